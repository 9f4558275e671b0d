// What time it is.
#pragma once

#include <string>

namespace attn {

// Seconds of CLOCK_MONOTONIC: comparable between processes of this machine.
double monotonic_s();

// Processor time of this thread, seconds: other processes on the machine do not enter.
double thread_cpu_s();

// The date, ISO 8601 with seconds: 2026-11-30T04:07:14Z.
std::string utc_now();

// The same for the name of a file: 20261130T040714.
std::string utc_stamp();

}  // namespace attn
