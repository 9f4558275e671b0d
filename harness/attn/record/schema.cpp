#include "attn/record/schema.hpp"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "attn/core/text.hpp"
#include "attn/record/sink.hpp"

namespace attn {

std::string_view to_string(Role role) {
  switch (role) {
    case Role::key: return "key";
    case Role::fact: return "fact";
    case Role::measure: return "measure";
    case Role::accuracy: return "accuracy";
    case Role::context: return "context";
  }
  return "";
}

std::string_view to_string(Better better) {
  switch (better) {
    case Better::neither: return "neither";
    case Better::lower: return "lower";
    case Better::higher: return "higher";
  }
  return "";
}

std::string_view to_string(Holds holds) { return holds == Holds::text ? "text" : "number"; }

namespace {

std::vector<std::string> names_of(const std::vector<ColumnInfo>& columns) {
  std::vector<std::string> names;
  for (const auto& column : columns) names.push_back(column.name);
  return names;
}

}  // namespace

std::string header_line(const std::vector<ColumnInfo>& columns) { return csv_record(names_of(columns)); }

std::string json_line(const std::vector<ColumnInfo>& columns, const std::vector<std::string>& record) {
  ATTN_ASSERT(record.size() == columns.size());
  nlohmann::ordered_json j;
  for (std::size_t c = 0; c < record.size(); ++c) {
    const auto figure = parse_number(record[c]);
    if (columns[c].holds == Holds::text) {
      j[columns[c].name] = record[c];
    } else if (figure && std::isfinite(*figure)) {
      j[columns[c].name] = nlohmann::ordered_json::parse(record[c]);
    } else {
      j[columns[c].name] = nullptr;
    }
  }
  return j.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string columns_text(const std::vector<ColumnInfo>& columns) {
  std::string text;
  for (const auto& column : columns) {
    std::string line = fmt::format("{:<20} {:<8}  {}", column.name, to_string(column.role), column.doc);
    if (!column.unit.empty()) line += " [" + column.unit + "]";
    if (column.better != Better::neither) line += fmt::format(" ({} is better)", to_string(column.better));
    text += line + "\n";
  }
  return text;
}

std::size_t column_index(const std::vector<ColumnInfo>& columns, std::string_view name) {
  for (std::size_t c = 0; c < columns.size(); ++c) {
    if (columns[c].name == name) return c;
  }
  ATTN_ASSERT(false && "a column of this schema");
  return 0;
}

Result<CsvText> read_records(const std::string& path, const std::vector<ColumnInfo>& columns, int version) {
  const auto text = read_file(path);
  if (!text) return text.refusal();
  if (header_line(columns).starts_with(*text)) return CsvText{};
  CsvText old = parse_csv(*text);
  if (old.records.empty() || old.records.front() != names_of(columns)) {
    return refuse("'" + path + "' has other columns than this attnbench writes (schema " + std::to_string(version) + ")");
  }
  for (std::size_t r = 1; r < old.records.size(); ++r) {
    if (old.records[r].size() != columns.size()) {
      return refuse("record " + std::to_string(r + 1) + " of '" + path + "' has " + std::to_string(old.records[r].size()) +
                    " fields instead of " + std::to_string(columns.size()));
    }
  }
  return old;
}

}  // namespace attn
