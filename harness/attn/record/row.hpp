// One row of the CSV: a cell, what was measured, and what stands around it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "attn/cell/axes.hpp"
#include "attn/cell/cell.hpp"
#include "attn/core/result.hpp"
#include "attn/measure/machine.hpp"

namespace attn {

struct Row {
  Cell cell;
  std::string id, options, family, exactness;  // of the variant
  Measurement measurement;                     // samples of all rounds
  Peak peak;                                   // of the machine, same ISA and threads
  std::string started;                         // ISO 8601, UTC
  std::string commit;
  std::string command;  // repeats this row
};

// One column of the CSV. This list is the only place where a column exists: the writer, --columns, the README's table and
// the golden header read it.
struct Column {
  std::string name;
  std::string doc;
  std::function<std::string(const Row&)> value;  // "" = not measured
  bool text = false;                             // the others hold numbers
};
const std::vector<Column>& columns();

inline constexpr int csv_schema = 1;  // grows when a column changes its meaning or goes

// Time above this relative 95 % interval of the median is marked unstable.
inline constexpr double unstable_above = 0.10;

// Time over that of the variant measured beside it (--against), pair by pair of neighbouring samples; empty if there is none.
std::vector<double> ratios(const Measurement& m);

// The meters of a row agree when booked workspace + parameters and measured peak differ by at most 10 % + 4 MiB.
bool meters_agree(const Measurement& m);

std::string csv_header();
std::string csv_line(const Row& row);
std::string json_line(const Row& row);
std::string json_line(const std::vector<std::string>& record);  // of a CSV of this schema

// One line of RFC 4180 text, quoted where needed.
std::string csv_record(const std::vector<std::string>& fields);

// Fields of RFC 4180 text; a torn last line (no newline, or an open quote) is not among the records.
struct CsvText {
  std::vector<std::vector<std::string>> records;
  std::size_t whole_bytes = 0;  // length of the text up to the end of the last whole record
};
CsvText parse_csv(std::string_view text);
// The file that --resume goes on with: its records, `header`'s line first, all with as many fields. None where it ends within
// the header; refused if it is another's.
Result<CsvText> read_csv_to_resume(const std::string& path, const std::string& header, int schema);

// cell_key() of a CSV record of this schema.
std::string cell_key(const std::vector<std::string>& record);

// The column status of a CSV record of this schema.
const std::string& record_status(const std::vector<std::string>& record);

}  // namespace attn
