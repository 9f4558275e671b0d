// Ctrl-C and SIGTERM: whatever runs ends soon, and what is finished stays.
#pragma once

#include <atomic>

namespace attn {

extern std::atomic<bool> interrupted;

// From here on SIGINT and SIGTERM set `interrupted`, and writing to a closed pipe is an error, not a signal.
void catch_interrupts();

}  // namespace attn
