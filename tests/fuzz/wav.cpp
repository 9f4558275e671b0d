#include "attn/inputs/wav.hpp"

#include <cmath>

#include "attn/core/assert.hpp"
#include "fuzz.hpp"

using namespace attn;

void fuzz(std::span<const std::byte> bytes) {
  auto sound = parse_sound(bytes);
  if (!sound) return;
  for (const float x : sound->samples) ATTN_ASSERT(std::isfinite(x));
  const auto window = static_cast<std::size_t>(sound->rate * 0.025);
  if (sound->samples.size() > 2 * window) sound->samples.resize(2 * window);  // two or three frames show what many do
  const Features features = log_mel(*sound);
  ATTN_ASSERT(features.count >= 1 && std::ssize(features.values) == features.count * features.size);
  for (const float x : features.values) ATTN_ASSERT(std::isfinite(x));
}
