// Batches of sequences of different lengths, and where their keys lie, by name: "uniform:100..3000", "paged:16".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"

namespace attn {

inline constexpr std::string_view equal_lengths = "equal";

// Whether it is one of equal, zipf, uniform:LOW..HIGH and file:PATH; a file is not looked for.
Result<std::string> parse_lengths(std::string_view name);
// "paged:16" for 16, "contiguous" for 0, and back.
std::string layout_name(index_t page_rows);
Result<index_t> parse_layout(std::string_view name);

// Of each sequence of the problem's batch; nothing where they are equal. uniform: drawn from the seed, the longest first. zipf: the i-th
// has 1/i of the tokens of the first, which has kv_len, and a step's tokens at least. file: whole numbers, one for each sequence.
// Refused: lengths below 1 or above kv_len, or below a step's tokens, and as many numbers as there are no sequences.
Result<std::vector<index_t>> lengths_of(std::string_view name, const Problem& p, std::uint64_t seed);

}  // namespace attn
