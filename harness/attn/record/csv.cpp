#include "attn/record/csv.hpp"

#include "attn/core/text.hpp"

namespace attn {

namespace {

std::string quoted(const std::string& field) {
  if (field.find_first_of(",\"\r\n") == std::string::npos) return field;
  std::string text = "\"";
  for (const char c : field) text += c == '"' ? "\"\"" : std::string(1, c);
  return text + '"';
}

}  // namespace

std::string csv_record(const std::vector<std::string>& fields) {
  std::vector<std::string> safe;
  for (const auto& field : fields) safe.push_back(quoted(field));
  return join(safe, ",") + "\n";
}

CsvText parse_csv(std::string_view text) {
  constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";
  CsvText csv;
  std::vector<std::string> record;
  std::string field;
  bool open_quote = false;
  std::size_t quoted_size = 0;  // of the field, as far as it stood in quotes: a carriage return there belongs to it
  for (std::size_t i = text.starts_with(byte_order_mark) ? byte_order_mark.size() : 0; i < text.size(); ++i) {
    const char c = text[i];
    if (open_quote) {
      if (c != '"') {
        field += c;
      } else if (i + 1 < text.size() && text[i + 1] == '"') {
        field += text[++i];
      } else {
        open_quote = false;
        quoted_size = field.size();
      }
    } else if (c == '"') {
      open_quote = true;
    } else if (c == ',' || c == '\n') {
      if (c == '\n' && field.size() > quoted_size && field.back() == '\r') field.pop_back();
      record.push_back(std::move(field));
      field.clear();
      quoted_size = 0;
      if (c == '\n') {
        csv.records.push_back(std::move(record));
        record.clear();
        csv.whole_bytes = i + 1;
      }
    } else {
      field += c;
    }
  }
  return csv;
}

}  // namespace attn
