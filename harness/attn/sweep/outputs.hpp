// The files of a sweep: the CSV, the journal of cells that are not finished, the JSON lines.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "attn/record/row.hpp"
#include "attn/record/sink.hpp"
#include "attn/sweep/options.hpp"

namespace attn {

class Outputs {
 public:
  // Holds every file and reads what --resume goes on with. No file that holds something is changed.
  static Result<Outputs> open(const SweepOptions& options);

  // From here on the files are this sweep's.
  Status begin();
  // A cell's row.
  Status write(Row row);
  // A round of a cell that has no row yet.
  Status note(const std::string& key, const Measurement& round);
  // All is measured: there is nothing left to resume.
  void end();

  // Those of the CSV that --resume goes on with, then those of this run.
  const std::vector<Row>& rows() const { return rows_; }
  std::size_t rows_from_before() const { return kept_rows_; }
  bool has(const std::string& key) const { return keys_.contains(key); }
  // Of a cell that an interrupted sweep did not finish.
  std::vector<Measurement> rounds_from_before(const std::string& key) const;

 private:
  Outputs() = default;
  Status open_jsonl(const SweepOptions& options, AppendFile::Mode mode);
  Status read_csv();
  void read_rounds();

  std::optional<AppendFile> csv_, journal_, jsonl_;
  std::vector<Row> rows_;
  std::set<std::string> keys_;  // of the rows
  std::size_t kept_rows_ = 0;   // of the CSV
  std::size_t kept_bytes_ = 0;  // of the CSV, up to what is torn
  bool drops_rows_ = false;     // that the budget skipped: they are measured
  std::map<std::string, std::vector<Measurement>> rounds_;
};

}  // namespace attn
