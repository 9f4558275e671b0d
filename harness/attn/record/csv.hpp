// RFC 4180 text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace attn {

// One line, with its end; fields are quoted where they hold a comma, a quote or a line end.
std::string csv_record(const std::vector<std::string>& fields);

// A torn last line (no newline, or an open quote) is not among the records.
struct CsvText {
  std::vector<std::vector<std::string>> records;
  std::size_t whole_bytes = 0;  // length of the text up to the end of the last whole record
};
// Lines end in a line feed, with or without a carriage return before it; a byte order mark at the start is no part of a field.
CsvText parse_csv(std::string_view text);

}  // namespace attn
