#include "attn/inputs/npz.hpp"

#include "attn/core/assert.hpp"
#include "fuzz.hpp"
#include "tensors.hpp"

void fuzz(std::span<const std::byte> bytes) {
  if (const auto array = attn::parse_npz(bytes, "q")) use_array(*array);
  if (const auto text = attn::text_in_npz(bytes, "q.npy")) ATTN_ASSERT(text->size() <= 1033 * bytes.size());  // deflate's most
}
