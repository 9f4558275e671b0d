#include "attn/inputs/npy.hpp"

#include "fuzz.hpp"
#include "tensors.hpp"

void fuzz(std::span<const std::byte> bytes) {
  if (const auto array = attn::parse_npy(bytes)) use_array(*array);
}
