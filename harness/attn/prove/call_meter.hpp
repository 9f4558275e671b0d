// Calls of the system that a fast path must not make. Counting them takes an executable that stands before the C library
// (harness/apps/call_meter.cpp); the floors know only this interface.
#pragma once

#include <string>

#include "attn/core/problem.hpp"

namespace attn {

struct OutsideCalls {
  index_t allocations = 0;                           // malloc and its kin, operator new, mmap
  index_t threads = 0;                               // pthread_create
  std::string first_allocation_by, first_thread_by;  // library and function
};

class CallMeter {
 public:
  virtual ~CallMeter() = default;
  // Calls of all threads between start and stop, without those that TBB and oneDNN make for themselves.
  virtual void start() = 0;
  virtual OutsideCalls stop() = 0;
};

// For programs that link harness/apps/call_meter.cpp; null where the build leaves no room for a meter (sanitizers, C libraries
// other than glibc).
CallMeter* program_call_meter();

}  // namespace attn
