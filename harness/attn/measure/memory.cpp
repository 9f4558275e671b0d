#include "attn/measure/memory.hpp"

#include "attn/exec/limits.hpp"

namespace attn {

index_t default_memory_limit_bytes() { return available_memory_bytes() / 5 * 4; }

}  // namespace attn
