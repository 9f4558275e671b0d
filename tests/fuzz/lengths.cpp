// Lengths of a batch and layouts of keys, by name and from a file.
#include "attn/cell/lengths.hpp"

#include "fuzz.hpp"
#include "scratch_file.hpp"

using namespace attn;

namespace {

void check(const Result<std::vector<index_t>>& lengths, const Problem& p) {
  if (!lengths || lengths->empty()) return;
  ATTN_ASSERT(std::ssize(*lengths) == p.batch);
  for (const index_t length : *lengths) ATTN_ASSERT(length >= (p.pass == Pass::decode ? p.q_len : 1) && length <= p.kv_len);
}

}  // namespace

void fuzz(std::span<const std::byte> bytes) {
  const auto text = as_text(bytes);
  const std::string path = scratch_file(bytes);
  for (const Pass pass : {Pass::forward, Pass::decode}) {
    const Problem p{.batch = 3, .q_len = 2, .kv_len = 50, .causal = true, .pass = pass};
    check(lengths_of("file:" + path, p, 1), p);
    if (parse_lengths(text) && !text.starts_with("file:")) check(lengths_of(text, p, 1), p);
  }
  if (const auto name = parse_lengths(text)) ATTN_ASSERT(*parse_lengths(*name) == *name);
  if (const auto rows = parse_layout(text)) ATTN_ASSERT(*rows >= 0 && *parse_layout(layout_name(*rows)) == *rows);
}
