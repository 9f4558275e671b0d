#include "attn/inputs/safetensors.hpp"

#include "fuzz.hpp"
#include "tensors.hpp"

void fuzz(std::span<const std::byte> bytes) {
  if (const auto array = attn::parse_safetensors(bytes, "q")) use_array(*array);
}
