// The CSV that --resume reads: what is whole stays what it is when the rest is cut off, and a row is the same row again.
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
    const auto once = parse_csv(csv_record(record));
    ATTN_ASSERT(once.records.size() == 1 && (once.records.front() == record || record.front().starts_with("\xEF\xBB\xBF")));
    if (record.size() != row_schema().columns().size()) continue;
    const auto row = row_schema().row(record);
    if (!row) continue;
    // What no row prints, such as 1e0, may change once; then it stands.
    const auto again = row_schema().row(row_schema().record(*row));
    ATTN_ASSERT(again && row_schema().record(*again) == row_schema().record(*row));
  }
}
