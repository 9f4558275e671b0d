// A file of edges: nodes are served in range, and every edge both ways.
#include <algorithm>

#include "attn/inputs/input.hpp"
#include "fuzz.hpp"
#include "scratch_file.hpp"

using namespace attn;

void fuzz(std::span<const std::byte> bytes) {
  const auto input = parse_input("graph:" + scratch_file(bytes));
  if (!input) return;
  const auto p = (*input)->adapt({.heads = 1, .kv_heads = 1, .q_len = 24, .kv_len = 24, .head_dim = 2, .value_dim = 2});
  ATTN_ASSERT(p && p->kv_len >= 1 && p->kv_len <= 24);
  constexpr index_t degree = 4;
  const InputSpec neighbours{.name = "neighbours",
                             .extents = {1, 1, p->kv_len, degree},
                             .low = -1,
                             .high = static_cast<double>(p->kv_len) - 1,
                             .drawn = [](double) { return -1.0; },
                             .doc = "",
                             .whole = true};
  const auto named = (*input)->make_named(*p, {neighbours}, 1);
  if (!named) return;  // more neighbours than that
  const auto list = named->arrays["neighbours"].f32<4>();
  const auto beside = [&](index_t i, index_t j) {
    return std::count(list[0][0].row(i), list[0][0].row(i) + degree, static_cast<float>(j));
  };
  for (index_t i = 0; i < p->kv_len; ++i) {
    for (index_t e = 0; e < degree; ++e) {
      const auto j = static_cast<index_t>(list(0, 0, i, e));
      ATTN_ASSERT(j >= -1 && j < p->kv_len);
      if (j >= 0) ATTN_ASSERT(beside(i, j) == beside(j, i));
    }
  }
}
