// Resident memory of a process: the kernel's counters from /proc/PID/status, in bytes; -1 when unreadable. Process 0 is this one.
#pragma once

#include <sys/types.h>

#include "attn/core/problem.hpp"

namespace attn {

index_t resident_bytes(pid_t process = 0);       // VmRSS
index_t peak_resident_bytes(pid_t process = 0);  // VmHWM

// Sets VmHWM back to VmRSS (Linux, proc(5) clear_refs). False when the kernel refuses.
bool reset_peak_resident(pid_t process = 0);

}  // namespace attn
