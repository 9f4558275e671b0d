// The CSV that --resume reads: what is whole stays what it is when the rest is cut off.
#include "attn/core/assert.hpp"
#include "attn/record/row.hpp"
#include "fuzz.hpp"

using namespace attn;

void fuzz(std::span<const std::byte> bytes) {
  const auto text = as_text(bytes);
  const CsvText csv = parse_csv(text);
  ATTN_ASSERT(csv.whole_bytes <= text.size());
  const CsvText whole = parse_csv(text.substr(0, csv.whole_bytes));
  ATTN_ASSERT(whole.records == csv.records && whole.whole_bytes == csv.whole_bytes);
  for (const auto& record : csv.records) {
    if (record.size() == columns().size()) ATTN_ASSERT(!cell_key(record).empty());
  }
}
