// Names of inputs: what is accepted prints a name that means the same. Kinds that open files are left to their own targets.
#include "attn/inputs/input.hpp"

#include "attn/core/assert.hpp"
#include "attn/core/text.hpp"
#include "attn/inputs/tensor_files.hpp"
#include "fuzz.hpp"

using namespace attn;

void fuzz(std::span<const std::byte> bytes) {
  const auto text = as_text(bytes);
  if (const auto files = parse_tensor_arguments("npy", text, 3)) ATTN_ASSERT(files->paths.size() == 3);
  const auto kind = trim(text).substr(0, trim(text).find(':'));
  for (const auto reader : {"text", "wav", "image", "npy", "npz", "safetensors"}) {
    if (kind == reader) return;
  }
  const auto input = parse_input(text);
  if (!input) return;
  const auto again = parse_input((*input)->name());
  ATTN_ASSERT(again && (*again)->name() == (*input)->name());
}
