// What a guest says of itself: what is accepted reads back as the same.
#include "attn/guest/spec.hpp"
#include "fuzz.hpp"

void fuzz(std::span<const std::byte> bytes) {
  const auto spec = attn::read_guest_spec(std::string(as_text(bytes)));
  if (!spec) return;
  const auto again = attn::read_guest_spec(spec->text);
  ATTN_ASSERT(again && again->name == spec->name && again->variants.size() == spec->variants.size() && again->text == spec->text);
}
