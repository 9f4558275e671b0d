#include <algorithm>
#include <set>
#include <utility>

#include "attn/cell/values.hpp"
#include "attn/core/assert.hpp"
#include "fuzz.hpp"

using namespace attn;

void fuzz(std::span<const std::byte> bytes) {
  const auto text = as_text(bytes);
  for (const auto& [low, high] : {std::pair{index_t{1}, index_t{1} << 26}, {index_t{0}, index_t{1} << 62}}) {  // --n, --seed
    const auto values = parse_axis(text, low, high);
    if (!values) continue;
    ATTN_ASSERT(std::all_of(values->begin(), values->end(),
                            [low = low, high = high](index_t value) { return value >= low && value <= high; }));
    ATTN_ASSERT(std::set<index_t>(values->begin(), values->end()).size() == values->size());
  }
  if (const auto size = parse_bytes(text)) ATTN_ASSERT(*size >= 0);
  if (const auto causal = parse_causal(text)) ATTN_ASSERT(!causal->empty());
}
