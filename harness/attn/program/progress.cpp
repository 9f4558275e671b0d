#include "attn/program/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "attn/core/time.hpp"
#include "attn/record/sink.hpp"

namespace attn {

namespace {

// Lines can be rewritten; a dumb terminal knows no control sequences.
bool rewrites_lines() {
  const char* const kind = std::getenv("TERM");
  return ::isatty(STDERR_FILENO) == 1 && !(kind != nullptr && std::string_view(kind) == "dumb");
}

}  // namespace

Progress::Progress(std::size_t count, double work, bool quiet, double unit_s)
    : count_(count), work_(work), quiet_(quiet), terminal_(rewrites_lines()), begin_s_(monotonic_s()), unit_s_(unit_s) {}

void Progress::under_way(const std::string& title, double work, const std::string& state) {
  running_[title] = work;
  if (terminal_) show(title + ": " + state);
}

void Progress::end(const std::string& title, double work, const std::string& came_of_it) {
  ++ended_;
  running_.erase(title);
  done_ += work;
  show(title + ": " + came_of_it);
}

void Progress::skip(double work) {
  ++ended_;
  work_ -= work;
}

void Progress::add(double work) {
  ++count_;
  work_ += work;
}

void Progress::clear() const {
  if (terminal_ && !quiet_) tell(stderr, "\r\033[K");
}

void Progress::show(const std::string& what) const {
  if (quiet_) return;
  double done = done_;
  for (const auto& [title, work] : running_) done += work;
  const double unit_s = done > 0 ? (monotonic_s() - begin_s_) / done : unit_s_;
  const bool known = unit_s > 0 && done < work_;
  const double left_s = known ? unit_s * (work_ - done) : 0;
  tell_progress(fmt::format("[{}/{}] {}{}", ended_, count_, what, known ? fmt::format("  (about {:.0f} s left)", left_s) : ""),
                terminal_);
}

}  // namespace attn
