#include "attn/program/worker_end.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <string.h>

#include "attn/core/text.hpp"

namespace attn {

NoAnswer no_answer(const ProcessEnd& end, double timeout_s, const std::string& where) {
  const std::string words = end.last_words.empty() ? "" : ": " + end.last_words;
  switch (end.how) {
    case ProcessEnd::How::answered: return {Outcome::crashed, "the worker's answer was torn" + where + words};
    case ProcessEnd::How::silent:
      return {Outcome::crashed, fmt::format("the worker ended with code {} and no answer{}{}", end.code, where, words)};
    case ProcessEnd::How::signalled:
      // The kernel's out-of-memory killer is the only sender of SIGKILL besides us.
      if (end.code == SIGKILL)
        return {Outcome::out_of_memory, "the worker was killed by the system, most likely for memory" + where};
      if (end.last_words.find("bad_alloc") != std::string::npos)
        return {Outcome::out_of_memory, "more memory was needed than --memory-limit allows" + where + words};
      return {Outcome::crashed, fmt::format("signal {} ({}){}{}", end.code, ::strsignal(end.code), where, words)};
    case ProcessEnd::How::timed_out:
      return {Outcome::timed_out, fmt::format("no answer within --timeout {} s{}", format_number(timeout_s), where)};
    case ProcessEnd::How::stopped: break;
  }
  return {Outcome::crashed, "interrupted"};
}

}  // namespace attn
