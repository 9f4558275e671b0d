// The columns of a table that is written row by row and read back: in a CSV, as JSON lines, as what makes two rows the same, and
// as what the context file says of them. A list of columns is the only place where a column exists.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "attn/core/assert.hpp"
#include "attn/core/result.hpp"
#include "attn/record/csv.hpp"

namespace attn {

// What a column is to who reads the table.
enum class Role {
  key,       // what was asked: rows that agree in all of these are of the same thing
  fact,      // what is known without a clock: counts, sizes, the status and its reason
  measure,   // what was measured: time, memory
  accuracy,  // how far from the right answer, or from softmax attention's
  context,   // when, by what, on which machine, and the command that repeats the row
};
enum class Better { neither, lower, higher };
enum class Holds { number, text };

std::string_view to_string(Role role);
std::string_view to_string(Better better);
std::string_view to_string(Holds holds);

struct ColumnInfo {
  std::string name;
  std::string doc;
  std::string unit;  // of numbers, as it is written behind them; empty: none
  Role role = Role::fact;
  Better better = Better::neither;
  Holds holds = Holds::number;
  std::string usual;  // of a key: what a table from before this column held throughout; empty: there is no such value
};

template <class Row>
struct Column {
  ColumnInfo info;
  std::function<std::string(const Row&)> get;         // empty: not measured
  std::function<bool(Row&, const std::string&)> set;  // false: no text that `get` gives
};

// The same for all schemas.
std::string header_line(const std::vector<ColumnInfo>& columns);
std::string json_line(const std::vector<ColumnInfo>& columns, const std::vector<std::string>& record);
std::string columns_text(const std::vector<ColumnInfo>& columns);
std::size_t column_index(const std::vector<ColumnInfo>& columns, std::string_view name);  // which there is
// A file to go on with: its records, the header's first, all with as many fields. None where it ends within its header;
// refused if its header is another.
Result<CsvText> read_records(const std::string& path, const std::vector<ColumnInfo>& columns, int version);

template <class Row>
class Schema {
 public:
  // `version` grows when a column changes its meaning or goes.
  Schema(int version, std::vector<Column<Row>> columns) : version_(version), columns_(std::move(columns)) {
    for (const auto& column : columns_) infos_.push_back(column.info);
  }

  int version() const { return version_; }
  const std::vector<ColumnInfo>& infos() const { return infos_; }
  const std::vector<Column<Row>>& columns() const { return columns_; }

  std::string header() const { return header_line(infos_); }
  std::vector<std::string> record(const Row& row) const {
    std::vector<std::string> fields;
    for (const auto& column : columns_) fields.push_back(column.get(row));
    return fields;
  }
  std::string line(const Row& row) const { return csv_record(record(row)); }
  std::string json_line(const Row& row) const { return attn::json_line(infos_, record(row)); }
  std::string field(const Row& row, std::string_view name) const { return columns_[column_index(infos_, name)].get(row); }

  // What makes two rows the same: the texts of all columns that are keys, as a CSV record.
  std::string key(const Row& row) const {
    std::vector<std::string> fields;
    for (const auto& column : columns_) {
      if (column.info.role == Role::key) fields.push_back(column.get(row));
    }
    std::string text = csv_record(fields);
    text.pop_back();
    return text;
  }

  // A record that `record` wrote is the same row again; another is refused with the column that does not hold it.
  Result<Row> row(const std::vector<std::string>& record) const {
    ATTN_ASSERT(record.size() == columns_.size());
    Row row;
    for (std::size_t c = 0; c < columns_.size(); ++c) {
      if (!columns_[c].set(row, record[c])) return refuse("'" + record[c] + "' is no value of the column " + infos_[c].name);
    }
    return row;
  }

 private:
  int version_;
  std::vector<Column<Row>> columns_;
  std::vector<ColumnInfo> infos_;
};

// Rows of a file that --resume goes on with.
template <class Row>
struct OldRows {
  std::vector<Row> rows;
  std::size_t whole_bytes = 0;  // of the file, up to what is torn; 0: not even the header is whole
};

template <class Row>
Result<OldRows<Row>> read_rows(const std::string& path, const Schema<Row>& schema) {
  const auto old = read_records(path, schema.infos(), schema.version());
  if (!old) return old.refusal();
  OldRows<Row> found;
  for (std::size_t r = 1; r < old->records.size(); ++r) {
    auto row = schema.row(old->records[r]);
    if (!row) return refuse("record " + std::to_string(r + 1) + " of '" + path + "': " + row.reason());
    found.rows.push_back(*std::move(row));
  }
  found.whole_bytes = old->whole_bytes;
  return found;
}

}  // namespace attn
