#include "attn/train/row.hpp"

#include <cmath>
#include <set>

#include "catch.hpp"

using namespace attn;

namespace {

TrainRow full_row() {
  Job job{"mqar:kv=2", "local@unfused:left=2,right=2,sinks=0", 16, {}};
  job.settings = {.layer = {.width = 48, .heads = 3, .mlp = 7, .conv = 4, .positions = Positions::sinusoidal, .causal = true},
                  .layers = 5,
                  .body = Body::recurrent,
                  .batch = 6,
                  .steps = 1234,
                  .rate = 0.0012345678,
                  .seed = 9,
                  .test_samples = 99,
                  .extrapolate = 4,
                  .beam = 3,
                  .samples = 77};
  TrainRow row = make_train_row(job);
  row.name = "local:left=2,right=2";
  row.family = "sparse";
  row.exactness = "pattern";
  RunResult r;
  r.steps = 1000;
  r.steps_to_99 = 700;
  r.loss = 1.0 / 3;
  r.train_accuracy = 2.0 / 3;
  r.accuracy = 0.91234567;
  r.low = 0.9;
  r.high = 0.95;
  r.chrf = 5.0 / 7;
  r.levels = {{"chance", 1.0 / 3, true}, {"window_8", 0.77777, false}};
  r.longer_accuracy = 0.5;
  r.longer_skill = 0.25;
  r.train_s = 7.0 / 9;
  r.parameter_count = 321;
  take_result(row, r, 5000);
  row.verdict = Verdict::still_improving;
  row.reason = "the \"loss\", still\nfalling";
  row.state_bytes = 0;
  row.finished = "2026-01-01T00:00:00Z";
  row.commit = "abc";
  row.command = "attn_train\r";
  return row;
}

TrainRow read_back(const TrainRow& row) { return *train_schema().row(parse_csv(train_schema().line(row)).records.at(0)); }

}  // namespace

TEST_CASE("Columns of a training CSV are distinct, and its keys stand before the verdict", "[train]") {
  std::set<std::string> names;
  bool judged = false;
  for (const auto& column : train_schema().infos()) {
    CHECK(names.insert(column.name).second);
    CHECK_FALSE(column.doc.empty());
    judged = judged || column.name == "verdict";
    if (judged) CHECK(column.role != Role::key);
  }
}

TEST_CASE("A training row read back is the row that was written", "[train]") {
  for (const auto& column : train_schema().columns()) {
    INFO(column.info.name);
    CHECK_FALSE(column.get(full_row()).empty());
  }
  std::vector<TrainRow> rows = {TrainRow{}, full_row()};
  for (const Verdict verdict : {Verdict::ok, Verdict::inconclusive, Verdict::diverged, Verdict::refused, Verdict::timed_out,
                                Verdict::out_of_memory, Verdict::crashed}) {
    rows.push_back(full_row());
    rows.back().verdict = verdict;
    rows.push_back(make_train_row(full_row().job));
    rows.back().verdict = verdict;
  }
  TrainRow diverged = make_train_row(full_row().job);
  RunResult result;
  result.ending = Ending::diverged;
  result.loss = std::nan("");
  result.steps = 3;
  result.train_s = 0.3;
  take_result(diverged, result, -1);
  diverged.verdict = Verdict::diverged;
  CHECK(train_schema().field(diverged, "steps") == "3");
  CHECK(train_schema().field(diverged, "floor").empty());
  rows.push_back(diverged);
  for (const TrainRow& row : rows) {
    const TrainRow again = read_back(row);
    CHECK(train_schema().record(again) == train_schema().record(row));
    CHECK(train_schema().key(again) == train_schema().key(row));
    CHECK(again.verdict == row.verdict);
  }
}

TEST_CASE("What a training's table and controls need is in the row again", "[train]") {
  const TrainRow row = full_row(), again = read_back(row);
  CHECK(again.job.variant == row.job.variant);
  CHECK(again.job.settings.rate == row.job.settings.rate);
  CHECK(again.result.accuracy == 0.912346);
  CHECK(again.result.steps_to_99 == 700);
  CHECK(again.skill == Approx((0.91234567 - 1.0 / 3) / (2.0 / 3)).epsilon(1e-5));
  CHECK(again.steps_per_s == Approx(9000.0 / 7).epsilon(1e-5));
  CHECK(again.trained());
}

TEST_CASE("A row and the job it came from have the same key", "[train]") {
  CHECK(job_key(read_back(full_row()).job) != job_key({}));
  CHECK(train_schema().key(read_back(full_row())) == job_key(full_row().job));
}

TEST_CASE("The key of a training row changes with each of its fields, and with nothing else", "[train]") {
  const auto& infos = train_schema().infos();
  const auto record = train_schema().record(full_row());
  const std::string key = train_schema().key(full_row());
  std::size_t keys = 0;
  for (std::size_t c = 0; c < infos.size(); ++c) {
    INFO(infos[c].name);
    if (infos[c].name == "schema") continue;
    auto changed = record;
    changed[c] = infos[c].name == "positions" ? "none"
                 : infos[c].name == "body"    ? "layers"
                 : infos[c].name == "verdict" ? "ok"
                 : infos[c].name == "levels"  ? "chance=0.2"
                 : infos[c].name == "causal"  ? "0"
                 : infos[c].name == "options" ? "left=1"
                                              : "1";
    const auto row = train_schema().row(changed);
    REQUIRE(row);
    CHECK((train_schema().key(*row) != key) == (infos[c].role == Role::key));
    keys += infos[c].role == Role::key;
  }
  CHECK(keys == 21);
}

TEST_CASE("A training record that no row has is refused with its column", "[train]") {
  for (const auto& [name, text] : std::vector<std::pair<std::string, std::string>>{{"schema", "1"},
                                                                                   {"n", ""},
                                                                                   {"options", "1"},
                                                                                   {"positions", "rope"},
                                                                                   {"verdict", "good"},
                                                                                   {"levels", "chance"},
                                                                                   {"loss", "low"}}) {
    auto record = train_schema().record(full_row());
    record[column_index(train_schema().infos(), name)] = text;
    const auto row = train_schema().row(record);
    REQUIRE_FALSE(row);
    CHECK(row.reason() == "'" + text + "' is no value of the column " + name);
  }
}
