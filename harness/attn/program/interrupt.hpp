// Ctrl-C and SIGTERM: whatever runs ends soon, and what is finished stays.
#pragma once

#include <atomic>

namespace attn {

extern std::atomic<bool> interrupted;

// From here on SIGINT and SIGTERM set `interrupted`; writing to a closed pipe, or past a limit, is an error and no signal.
void catch_interrupts();

}  // namespace attn
