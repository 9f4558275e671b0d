// Lists of values and sizes as people type them.
#pragma once

#include <string_view>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"

namespace attn {

// "128,256", "128..16384*2" (geometric), "128..1024+128" (arithmetic), "1..4" (+1), or any of these joined by commas.
// Values are in [low, high]; the list keeps its order, without repeats.
Result<std::vector<index_t>> parse_axis(std::string_view text, index_t low, index_t high);

// "no", "0" or "false"; "yes", "1" or "true"; "both".
Result<std::vector<bool>> parse_causal(std::string_view text);
// But for "both".
Result<bool> parse_one_causal(std::string_view text);

// "512M", "8G", "65536", "64K": bytes.
Result<index_t> parse_bytes(std::string_view text);

}  // namespace attn
