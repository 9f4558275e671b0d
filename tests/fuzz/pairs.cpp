// Pairs of texts, of lines and of catalogues: what is accepted is UTF-8 on both sides, and each source stands once.
#include "attn/train/pairs.hpp"

#include <set>

#include "attn/core/assert.hpp"
#include "attn/train/unicode.hpp"
#include "fuzz.hpp"

void fuzz(std::span<const std::byte> bytes) {
  const auto pairs = attn::parse_pairs(as_text(bytes), "x");
  if (!pairs) return;
  std::set<std::string> sources;
  for (const attn::TextPair& pair : *pairs) {
    ATTN_ASSERT(!pair.from.empty() && !pair.to.empty() && sources.insert(pair.from).second);
    for (const std::string& text : {pair.from, pair.to}) {
      const auto points = attn::code_points(text);
      ATTN_ASSERT(points && attn::to_utf8(*points) == text);
    }
  }
}
