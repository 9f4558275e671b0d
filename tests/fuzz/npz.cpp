#include "attn/inputs/npz.hpp"

#include "fuzz.hpp"
#include "tensors.hpp"

void fuzz(std::span<const std::byte> bytes) {
  if (const auto array = attn::parse_npz(bytes, "q")) use_array(*array);
}
