// ListOps: nested lists of digits under MIN, MAX, MED (median) and SM (sum modulo 10), read as tokens.
//   Nangia & Bowman 2018, arXiv:1804.06028; generator, lengths and tokens of the Long Range Arena: Tay et al. 2020,
//   arXiv:2011.04006, section 2.2.1, with its repository (lra_benchmarks/data/listops.py, listops/input_pipeline.py). Sequences are
//   drawn afresh rather than kept in a file, so duplicates are not removed; at these lengths there are practically none.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/train/draws.hpp"

namespace attn::listops {

inline constexpr index_t operators = 4, values = 10;
// Symbols: 0 is padding, 1..10 the digits, 11..14 MIN MAX MED SM, 15 the closing bracket, 16 the class token.
inline constexpr index_t pad = 0, first_digit = 1, first_operator = 11, close = 15, class_token = 16, symbols = 17;

struct Limits {
  index_t above = 500, below = 2000;  // length, both exclusive
  index_t depth = 10, arguments = 10;
};

inline constexpr index_t any_root = -1;

// One tree with a length within the limits, in prefix order: operator, arguments, bracket. With a root given, a tree of those that
// have this operator at their root.
std::vector<index_t> draw(Draws& draws, const Limits& limits, index_t root = any_root);

// How often a tree with this operator at its root has this value.
using ValueShares = std::array<std::array<double, values>, operators>;
ValueShares value_shares(const Limits& limits, index_t trees);

// The value of a tree. Operators deeper than `depth` (the root is at depth 1) count as their `modal` value instead.
index_t value(std::span<const index_t> tree, index_t depth, const std::array<index_t, operators>& modal);
index_t value(std::span<const index_t> tree);

// The most frequent value of each operator, over all its occurrences.
std::array<index_t, operators> modal_values(const std::vector<std::vector<index_t>>& trees);

}  // namespace attn::listops
