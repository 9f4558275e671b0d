#include "attn/exec/recorder.hpp"

#include <utility>

#include "attn/core/time.hpp"
#include "attn/exec/here.hpp"

namespace attn {

double Recording::serial_s() const {
  double seconds = end_s;
  for (const RecordedRegion& region : regions) seconds -= region.end_s - region.begin_s;
  return seconds;
}

Recorder::Recorder() : Recorder(0) {}

Recorder::Recorder(int threads, Clock clock)
    : threads_(threads),
      clock_(clock),
      recorder_before_(std::exchange(here.recorder, this)),
      rehearsed_before_(std::exchange(here.rehearsed, threads)) {
  begin_s_ = now_s();
}

Recorder::~Recorder() {
  here.recorder = recorder_before_;
  here.rehearsed = rehearsed_before_;
}

double Recorder::now_s() const { return clock_ == Clock::wall ? monotonic_s() : thread_cpu_s(); }

Recording Recorder::take() {
  Recording done = std::exchange(recording_, {});
  done.end_s = now_s() - begin_s_;
  begin_s_ = now_s();
  return done;
}

void Recorder::record(index_t count, FunctionRef<void(index_t, int)> body) {
  recording_.regions.emplace_back().tasks_s.resize(static_cast<std::size_t>(count));
  RecordedRegion& region = recording_.regions.back();
  std::vector<double>& tasks_s = region.tasks_s;
  const struct Pause {  // a task's own regions are part of it
    Recorder* recorder = std::exchange(here.recorder, nullptr);
    ~Pause() { here.recorder = recorder; }
  } pause;
  region.begin_s = now_s() - begin_s_;
  if (threads_ > 0) {
    double last_s = now_s();
    for (index_t task = 0; task < count; ++task) {
      body(task, 0);
      const double end_s = now_s();
      tasks_s[static_cast<std::size_t>(task)] = end_s - std::exchange(last_s, end_s);
    }
  } else {
    parallel_tasks(count, [&](index_t task, int worker) {
      const double started_s = now_s();
      body(task, worker);
      tasks_s[static_cast<std::size_t>(task)] = now_s() - started_s;
    });
  }
  region.end_s = now_s() - begin_s_;
}

}  // namespace attn
