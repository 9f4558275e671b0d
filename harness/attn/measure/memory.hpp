// Resident memory of this process, and what workers may take.
#pragma once

#include "attn/core/problem.hpp"

namespace attn {

// The kernel's counters from /proc/self/status, in bytes; -1 when unreadable.
index_t resident_bytes();       // VmRSS
index_t peak_resident_bytes();  // VmHWM

// Sets VmHWM back to VmRSS (Linux, proc(5) clear_refs). False when the kernel refuses.
bool reset_peak_resident();

// Of all workers together, unless one is asked for: four fifths of what is available (exec/limits.hpp).
index_t default_memory_limit_bytes();

}  // namespace attn
