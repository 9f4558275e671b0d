#include "attn/sweep/outputs.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <utility>

#include "attn/cell/axes.hpp"
#include "attn/record/journal.hpp"

namespace attn {

namespace {

// Whether a file is empty or begins, as far as it goes, as json_line does.
bool begins_as_ours(std::string_view text) {
  const std::string begin = fmt::format(R"({{"schema":{},"variant":)", csv_schema);
  return text.substr(0, begin.size()) == std::string_view(begin).substr(0, text.size());
}

bool same_file(const std::string& a, const std::string& b) {
  const auto place = [](const std::string& path) {
    std::error_code ignored;  // opening says what is wrong
    return std::filesystem::weakly_canonical(std::filesystem::absolute(path, ignored), ignored);
  };
  return place(a) == place(b);
}

}  // namespace

Result<Outputs> Outputs::open(const SweepOptions& o) {
  Outputs outputs;
  const auto mode = o.resume || o.force ? AppendFile::Mode::hold : AppendFile::Mode::create;
  if (!o.jsonl.empty()) {
    if (Status status = outputs.open_jsonl(o, mode); !status) return refuse("--jsonl: " + status.reason());
  }
  if (!o.save_output.empty()) {
    std::error_code failed;
    std::filesystem::create_directories(o.save_output, failed);
    if (failed) return refuse("--save-output: making '" + o.save_output + "' failed: " + failed.message());
  }
  auto csv = AppendFile::open(o.out, mode);
  if (!csv) return refuse("--out: " + csv.reason());
  outputs.csv_ = *std::move(csv);
  if (o.resume) {
    if (Status status = outputs.read_csv(); !status) return refuse("--resume: " + status.reason());
  }
  auto journal = AppendFile::open(o.out + ".journal", AppendFile::Mode::hold);
  if (!journal) return journal.refusal();
  outputs.journal_ = *std::move(journal);
  if (o.resume) outputs.read_rounds();
  return outputs;
}

Status Outputs::open_jsonl(const SweepOptions& o, AppendFile::Mode mode) {
  if (same_file(o.out, o.jsonl)) return refuse("'" + o.jsonl + "' is --out too, two files are accepted");
  auto jsonl = AppendFile::open(o.jsonl, mode);
  if (!jsonl) return jsonl.refusal();
  jsonl_ = *std::move(jsonl);
  if (!o.resume) return {};
  const auto text = read_file(o.jsonl);
  if (!text) return text.refusal();
  if (!begins_as_ours(*text)) return refuse("'" + o.jsonl + "' holds no rows of a sweep, --resume does not replace it");
  return {};
}

Status Outputs::read_csv() {
  auto old = read_rows(csv_->path(), row_schema());
  if (!old) return old.refusal();
  for (Row& row : old->rows) {
    if (row.measurement.outcome == Outcome::skipped_budget) {
      drops_rows_ = true;
    } else {
      keys_.insert(cell_key(row.cell));
      rows_.push_back(std::move(row));
    }
  }
  kept_rows_ = rows_.size();
  kept_bytes_ = old->whole_bytes;
  return {};
}

void Outputs::read_rounds() {
  const auto text = read_file(journal_->path());
  if (!text) return;
  for (auto& [key, round] : read_journal(*text)) {
    if (round.outcome != Outcome::skipped_budget) rounds_[key].push_back(std::move(round));
  }
}

Status Outputs::begin() {
  std::string lines;
  for (const auto& [key, rounds] : rounds_) {
    for (const auto& round : rounds) lines += journal_line({key, round});
  }
  if (Status status = journal_->rewrite(lines); !status) return status;
  if (drops_rows_) {
    std::string text = row_schema().header();
    for (const Row& row : rows_) text += row_schema().line(row);
    if (Status status = csv_->rewrite(text); !status) return status;
  } else {
    if (Status status = csv_->cut(kept_bytes_); !status) return status;
    if (kept_bytes_ == 0) {
      if (Status status = csv_->append(row_schema().header()); !status) return status;
    }
  }
  if (!jsonl_) return {};
  // The rows of the CSV once more: the file may lack the last ones, or be another sweep's.
  if (Status status = jsonl_->cut(0); !status) return status;
  lines.clear();
  for (const Row& row : rows_) lines += row_schema().json_line(row);
  return jsonl_->append(lines);
}

Status Outputs::write(Row row) {
  if (Status status = csv_->append(row_schema().line(row)); !status) return status;
  if (jsonl_) {
    if (Status status = jsonl_->append(row_schema().json_line(row)); !status) return status;
  }
  keys_.insert(cell_key(row.cell));
  rows_.push_back(std::move(row));
  return {};
}

Status Outputs::note(const std::string& key, const Measurement& round) { return journal_->append(journal_line({key, round})); }

void Outputs::end() { ::unlink(journal_->path().c_str()); }

std::vector<Measurement> Outputs::rounds_from_before(const std::string& key) const {
  const auto found = rounds_.find(key);
  return found == rounds_.end() ? std::vector<Measurement>() : found->second;
}

}  // namespace attn
