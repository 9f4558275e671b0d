#include "attn/core/time.hpp"

#include <time.h>

#include <ctime>

namespace attn {

namespace {

double seconds_of(clockid_t clock) {
  timespec t{};
  ::clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

std::string utc(const char* format) {
  const std::time_t now = ::time(nullptr);
  std::tm date{};
  ::gmtime_r(&now, &date);
  char text[32];
  return {text, std::strftime(text, sizeof text, format, &date)};
}

}  // namespace

double monotonic_s() { return seconds_of(CLOCK_MONOTONIC); }

double thread_cpu_s() { return seconds_of(CLOCK_THREAD_CPUTIME_ID); }

std::string utc_now() { return utc("%Y-%m-%dT%H:%M:%SZ"); }

std::string utc_stamp() { return utc("%Y%m%dT%H%M%S"); }

}  // namespace attn
