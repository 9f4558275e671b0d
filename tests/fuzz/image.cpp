#include "attn/inputs/image.hpp"

#include <algorithm>

#include "attn/core/assert.hpp"
#include "fuzz.hpp"

using namespace attn;

void fuzz(std::span<const std::byte> bytes) {
  const auto image = parse_image(bytes);
  if (!image) return;
  ATTN_ASSERT(std::ssize(image->samples) == image->width * image->height * image->channels);
  for (const float x : image->samples) ATTN_ASSERT(x >= 0 && x <= 1);
  for (const index_t patch : {index_t{1}, std::min(image->width, image->height)}) {
    const Features features = patches(*image, patch);
    ATTN_ASSERT(std::ssize(features.values) == features.count * features.size);
  }
}
