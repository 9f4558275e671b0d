#include "attn/record/row.hpp"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "attn/cell/axes.hpp"
#include "attn/record/journal.hpp"
#include "attn/record/sink.hpp"
#include "attn/record/statistics.hpp"
#include "catch.hpp"

using namespace attn;

TEST_CASE("the median and its deviation") {
  CHECK(median({3, 1, 2}) == 2);
  CHECK(median({4, 1, 2, 3}) == 2.5);
  CHECK(median_absolute_deviation({1, 2, 3, 4, 100}) == 1);
}

TEST_CASE("the interval of the median takes the order statistics of the binomial") {
  // n = 9: ranks 2 and 8 cover the median with probability 0.961; n = 5: the whole range, 0.9375.
  const Interval nine = median_interval({9, 8, 7, 6, 5, 4, 3, 2, 1});
  CHECK((nine.low == 2 && nine.high == 8));
  const Interval five = median_interval({5, 4, 3, 2, 1});
  CHECK((five.low == 1 && five.high == 5));
  const Interval one = median_interval({7});
  CHECK((one.low == 7 && one.high == 7));
}

TEST_CASE("column names are distinct and plain") {
  std::set<std::string> names;
  for (const auto& column : row_schema().infos()) {
    CHECK(names.insert(column.name).second);
    CHECK(column.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos);
    CHECK_FALSE(column.doc.empty());
  }
}

TEST_CASE("the keys of a row stand before its status") {
  const auto& infos = row_schema().infos();
  for (std::size_t c = column_index(infos, "status"); c < infos.size(); ++c) CHECK(infos[c].role != Role::key);
}

namespace {

Measurement sample_measurement() {
  Measurement m;
  m.samples_s = {0.5, 0.25, 1.0};
  m.cost = {.flops = 1e9, .bytes = 1, .exps = 1};
  m.reason = "a \"quoted\" word, a comma\nand a line";
  return m;
}

Row sample_row() {
  Cell cell;
  cell.variant = "local:left=3,right=4";
  cell.input = "text";
  cell.isa = "scalar";
  return make_row(cell, sample_measurement(), {.isa = "scalar", .fma_gflops = 4});
}

std::string field(const Row& row, std::string_view name) { return row_schema().field(row, name); }

Row read_back(const Row& row) { return *row_schema().row(parse_csv(row_schema().line(row)).records.at(0)); }

// A row with something in every column, and no two figures alike.
Row full_row() {
  Row row = sample_row();
  const Measurement plain = row.measurement;
  Measurement m = plain;
  m.isa = "avx2";
  m.samples_s = {1.0 / 3, 2.0 / 7, 0.31234567891, 0.29};
  m.against = "full:score=scaled";
  m.against_s = {0.1234567891, 0.2, 0.21, 1e-9};
  m.append_s = {0.125, 0.0625, 0.03125};
  m.mixer_share = 2.0 / 3;
  m.parallelism = 7.75;
  m.meters = {
      .cycles = 3e9, .instructions = 8e9, .cache_misses = 123456, .joules = 1.25, .unsupported = "unsupported: energy: none"};
  m.choice_share = 0.125;
  m.variant_note = "100 % of \"it\"";
  m.compute = kernels::Compute::bf16_dot;
  m.stored = true;
  m.storage_error = 0.015625;
  m.gate = {.done = true, .scope = "rows", .max_abs = 1e-7 / 3, .relative = 2e-8, .allowance_abs = 3e-6};
  m.fidelity = {.done = true,
                .reason = "",
                .skill = -std::numeric_limits<double>::max(),
                .relative = 0.1,
                .row_p50 = 0.2,
                .row_p95 = 0.3,
                .worst_row = std::numeric_limits<double>::max(),
                .cosine_p50 = 0.4,
                .seeds = 5,
                .relative_sd = 0.5,
                .bias = 0.6,
                .scatter = 0.7,
                .matrix = {.done = true,
                           .reason = "because, \r\nbecause",
                           .relative = 0.81,
                           .js = 0.82,
                           .recall_1 = 0.83,
                           .recall_8 = 0.84,
                           .recall_32 = 0.85,
                           .support_mass = 0.86,
                           .support_mass_p05 = 0.61,
                           .spectral = 0.87}};
  m.note = "\r";
  m.placed = true;
  m.placement = {.logit_std = 1.1, .row_entropy = 1.2, .perplexity = 1.3, .sink_mass = 1.4, .top32_mass = 1.5, .q_norm2 = 1.6};
  m.output_file = "a b/c,d.npy";
  m.workspace_bytes = 3;
  m.parameter_bytes = 5;
  m.state_bytes = 6;
  m.peak_rss_bytes = 7;
  m.over_ranks = true;
  m.ranks = {.sent_bytes = 101,
             .sent_bytes_formula = 102,
             .sent_messages = 103,
             .sent_messages_formula = 104,
             .held_bytes = 105,
             .exposed = 0.106,
             .messages_s = 1.07,
             .imbalance = 1.08};
  m.setup_s = 1.7;
  m.fma_gflops = 11.0 / 3;
  m.disturbed = "load 3;\ttwo \xC3\xA4";
  m.remeasured = 2;
  row.cell.problem = {.batch = 2,
                      .heads = 6,
                      .kv_heads = 3,
                      .q_len = 5,
                      .kv_len = 7,
                      .head_dim = 11,
                      .value_dim = 13,
                      .causal = true,
                      .pass = Pass::decode};
  row = make_row(row.cell, m, {.isa = "avx2", .fma_gflops = 4, .exp_gexps = 0.125, .bf16_dot_gflops = 9, .read = {{1}, {3}}});
  row.cell.scope = Scope::layer;
  row.cell.cache = CacheState::cold;
  row.cell.seed = std::uint64_t{1} << 62;
  row.cell.threads = 17;
  row.cell.ranks = 19;
  row.implementation = "unfused";
  row.cell.variant = "local@unfused:left=3,right=4";
  row.name = "local";
  row.family = "sparse";
  row.exactness = "pattern";
  row.started = "2026-01-01T00:00:00Z";
  row.commit = "abc-dirty";
  row.command = "attn_sweep --variants 'local:left=3,right=4' \"\r";
  return row;
}

}  // namespace

TEST_CASE("a row tells its figures") {
  const Row row = sample_row();
  CHECK(field(row, "time_median_s") == "0.5");
  CHECK(field(row, "time_min_s") == "0.25");
  CHECK(field(row, "samples") == "3");
  CHECK(field(row, "ideal_time_s") == "0.25");
  CHECK(field(row, "roof_fraction") == "0.5");
  CHECK(field(row, "roof_binds") == "flops");
  CHECK(field(row, "err_max_abs").empty());
}

TEST_CASE("a clock that has risen since the peak was measured is the peak") {
  Measurement m = sample_measurement();
  m.fma_gflops = 8;
  CHECK(field(make_row(sample_row().cell, m, {.fma_gflops = 4}), "roof_fraction") == "0.25");
}

TEST_CASE("bytes that come cold are held to memory's speed, and a folded state to that of reading and writing it") {
  const Peak peak{.read = {{1e6, 1e8}, {50, 10}}, .update = {{1e6, 1e8}, {40, 5}}};
  Measurement m;
  m.samples_s = {1};
  m.cost = {.bytes = 1e6};
  Cell cell = sample_row().cell;
  const auto ideal = [&] { return std::stod(field(make_row(cell, m, peak), "ideal_time_s")); };
  CHECK(ideal() == Approx(1e6 / 50e9));
  cell.cache = CacheState::cold;
  CHECK(ideal() == Approx(1e6 / 10e9));
  m.in_place = true;
  m.state_bytes = 400'000;
  CHECK(ideal() == Approx(8e5 / 5e9 + 2e5 / 10e9));
}

TEST_CASE("a row read back is the row that was written") {
  std::vector<Row> rows = {Row{}, sample_row(), full_row()};
  for (const Outcome outcome : {Outcome::unsupported, Outcome::inaccurate, Outcome::timed_out, Outcome::out_of_memory,
                                Outcome::crashed, Outcome::skipped_budget}) {
    for (const Row& row : {sample_row(), full_row()}) {
      rows.push_back(row);
      rows.back().measurement.outcome = outcome;
    }
  }
  for (const int samples : {0, 1, 2, 5, 6, 9, 10}) {  // even and odd: a median of two is rounded once more
    Measurement m = full_row().measurement;
    m.samples_s.clear();
    m.against_s.clear();
    for (int i = 0; i < samples; ++i) {
      m.samples_s.push_back(1 / (3.0 + i * i));
      m.against_s.push_back(1 / (7.0 + i));
    }
    rows.push_back(make_row(full_row().cell, m, {.fma_gflops = 4, .read = {{1}, {1}}}));
  }
  rows.push_back(full_row());
  rows.back().measurement.peak_rss_bytes = -1;
  rows.push_back(full_row());
  rows.back().measurement.fidelity.seeds = 1;
  rows.push_back(full_row());
  rows.back().measurement.fidelity.matrix = {};
  rows.back().measurement.fidelity.reason = "no matrix";
  for (const Row& row : rows) {
    const Row again = read_back(row);
    CHECK(row_schema().record(again) == row_schema().record(row));
    CHECK(row_schema().key(again) == row_schema().key(row));
    const std::string label = row.implementation == "native" ? row.id : row.id + "@" + row.implementation;
    CHECK(again.cell.variant == (row.options.empty() ? label : label + ":" + row.options));
    CHECK(again.measurement.outcome == row.measurement.outcome);
  }
}

TEST_CASE("the full row has something in every column, and what the program needs is in the row again") {
  const Row row = full_row(), again = read_back(row);
  for (const auto& column : row_schema().columns()) {
    INFO(column.info.name);
    CHECK((!column.get(row).empty() || column.info.name == "reason"));
  }
  CHECK(again.cell.problem == row.cell.problem);
  CHECK(again.measurement.samples_s.size() == 4);
  CHECK(again.measurement.gate.done);
  CHECK(again.measurement.gate.scope == "rows");
  CHECK(again.measurement.fidelity.worst_row > 1e300);
  CHECK(again.measurement.fidelity.matrix.done);
  CHECK(again.measurement.placed);
  CHECK(again.figures.peak_fma_gflops == 4);
}

TEST_CASE("a record that no row has is refused with its column") {
  for (const auto& [name, text] : std::vector<std::pair<std::string, std::string>>{{"schema", "1"},
                                                                                   {"batch", "two"},
                                                                                   {"causal", "yes"},
                                                                                   {"threads", "99999999999"},
                                                                                   {"status", "fine"},
                                                                                   {"pass", "sideways"},
                                                                                   {"dtype", "f13"},
                                                                                   {"time_median_s", "1 s"},
                                                                                   {"samples_s", "1;;2"},
                                                                                   {"unstable", "no"}}) {
    auto record = row_schema().record(full_row());
    record[column_index(row_schema().infos(), name)] = text;
    const auto row = row_schema().row(record);
    REQUIRE_FALSE(row);
    CHECK(row.reason() == "'" + text + "' is no value of the column " + name);
  }
}

TEST_CASE("a torn last line is no record") {
  const std::string header = row_schema().header(), whole = header + row_schema().line(full_row());
  for (std::size_t cut = header.size(); cut < whole.size(); ++cut) {
    const CsvText csv = parse_csv(whole.substr(0, cut));
    CHECK(csv.records.size() == 1);
    CHECK(csv.whole_bytes == header.size());
  }
}

TEST_CASE("json lines hold numbers as numbers, words as words, and null for what is no finite number") {
  const auto j = nlohmann::json::parse(row_schema().json_line(full_row()));
  CHECK(j.size() == row_schema().infos().size());
  CHECK(j.at("batch") == 2);
  CHECK(j.at("time_min_s") == 0.285714);
  CHECK(j.at("variant") == "local");
  CHECK(j.at("fid_worst_row").is_null());
  CHECK(j.at("fid_reason") == "because, \r\nbecause");
}

TEST_CASE("rows of a file are read back, as far as it is whole") {
  const auto path = (std::filesystem::temp_directory_path() / ("attn_row_test" + std::to_string(::getpid()))).string();
  const std::string header = row_schema().header(), line = row_schema().line(full_row());
  const auto read = [&](const std::string& text) {
    REQUIRE(write_file(path, text));
    return read_rows(path, row_schema());
  };
  for (const std::string& text : {std::string(), std::string("sch"), header}) {
    const auto old = read(text);
    REQUIRE(old);
    CHECK((old->rows.empty() && old->whole_bytes == 0));
  }
  const auto two = read(header + line + line + "2,loc");
  REQUIRE(two);
  CHECK((two->rows.size() == 2 && two->whole_bytes == (header + line + line).size()));
  std::string windows = "\xEF\xBB\xBF" + header;
  windows.insert(windows.size() - 1, "\r");
  CHECK(read(windows + line)->rows.size() == 1);

  CHECK(read("schema,b\n").reason().find("has other columns than this attnbench writes (schema 2)") != std::string::npos);
  CHECK(read(header + "2,local\n").reason().find("record 2 of '" + path + "' has 2 fields instead of") != std::string::npos);
  std::string wrong = line;
  wrong.replace(0, 1, "3");
  CHECK(read(header + line + wrong).reason() == "record 3 of '" + path + "': '3' is no value of the column schema");
  std::filesystem::remove(path);
}

TEST_CASE("a file that is rewritten stays held and grows on") {
  const auto path = (std::filesystem::temp_directory_path() / ("attn_row_test" + std::to_string(::getpid()))).string();
  {
    auto file = AppendFile::open(path, AppendFile::Mode::create);
    REQUIRE(file);
    REQUIRE(file->append("a\nb\n"));
    REQUIRE(file->rewrite("a\n"));
    REQUIRE(file->append("c\n"));
    CHECK(AppendFile::open(path, AppendFile::Mode::hold).reason().find("another sweep") != std::string::npos);
  }
  CHECK(*read_file(path) == "a\nc\n");
  CHECK(AppendFile::open(path, AppendFile::Mode::create).reason().find("exists") != std::string::npos);
  std::filesystem::remove(path);
}

TEST_CASE("what is no regular file is not read") { CHECK(read_file("/dev/zero").reason() == "'/dev/zero' is no regular file"); }

TEST_CASE("a cell and its row read back have the same key") {
  for (const Row& row : {sample_row(), full_row()}) CHECK(cell_key(read_back(row).cell) == cell_key(row.cell));
}

TEST_CASE("the key changes with each of its fields, and with nothing else") {
  const auto& infos = row_schema().infos();
  Row full = full_row();
  full.cell.problem.pass = Pass::forward_backward;
  const auto record = row_schema().record(full);
  const std::string key = row_schema().key(full);
  const std::map<std::string, std::string> others = {
      {"kv_dtype", "q8"},        {"dtype", "bf16"}, {"pass", "forward"}, {"scope", "mixer"}, {"lengths", "zipf"},
      {"kv_layout", "paged:16"}, {"numa", "first"}, {"cache", "hot"},    {"causal", "0"},    {"shape", "bert-base"}};
  std::size_t keys = 0;
  for (std::size_t c = 0; c < infos.size(); ++c) {
    INFO(infos[c].name);
    if (infos[c].name == "schema" || infos[c].name == "status") continue;
    auto changed = record;
    const auto other = others.find(infos[c].name);
    changed[c] = other != others.end() ? other->second : infos[c].holds == Holds::text ? (record[c].empty() ? "1" : "") : "1";
    if (infos[c].name == "step") {  // this pass has none
      ++keys;
      continue;
    }
    const auto row = row_schema().row(changed);
    REQUIRE(row);
    CHECK((row_schema().key(*row) != key) == (infos[c].role == Role::key));
    keys += infos[c].role == Role::key;
  }
  CHECK(keys == axes().size() + 2);  // that of the variants is three columns
}

TEST_CASE("the step is in the key of a decode, and no other pass has one") {
  Row one = full_row(), two = full_row();
  two.cell.problem.q_len = 2;
  CHECK((field(one, "step") == "5" && field(two, "step") == "2" && field(one, "q_len") == "7" && field(two, "q_len") == "7"));
  CHECK(row_schema().key(one) != row_schema().key(two));
  auto record = row_schema().record(sample_row());
  std::string& step = record[column_index(row_schema().infos(), "step")];
  CHECK(step.empty());
  step = "1";
  CHECK_FALSE(row_schema().row(record));
}

TEST_CASE("a decode tells its tokens a second, and apart what it takes to take them up") {
  const Row row = full_row();
  CHECK(std::stod(field(row, "tokens_per_s")) == Approx(2 * 5 / row.figures.time_median_s.value()));
  CHECK(field(row, "append_s") == "0.0625");
  CHECK(field(row, "state_bytes") == "6");
  for (const char* name : {"tokens_per_s", "append_s", "state_bytes"}) CHECK(field(sample_row(), name).empty());
}

TEST_CASE("two keys are alike only if all their fields are") {
  Row a = sample_row(), b = sample_row();
  a.cell.input = "x,y";
  b.cell.input = "x\",\"y";
  CHECK(row_schema().key(a) != row_schema().key(b));
}

TEST_CASE("a row that failed has no times") {
  Measurement m = sample_measurement();
  m.outcome = Outcome::inaccurate;
  const Row row = make_row(sample_row().cell, m, {.fma_gflops = 4});
  CHECK(field(row, "status") == "inaccurate");
  CHECK(field(row, "time_median_s").empty());
  CHECK(field(row, "samples_s").empty());
  CHECK(field(row, "roof_fraction").empty());
}

TEST_CASE("a journal gives back its rounds, and leaves out what is torn") {
  const std::string key = row_schema().key(full_row());
  Measurement failed;
  failed.outcome = Outcome::crashed;
  failed.reason = "signal 11\n\"";
  const std::string text = journal_line({key, full_row().measurement}) + journal_line({"b", failed});
  CHECK(std::count(text.begin(), text.end(), '\n') == 2);
  const auto first = nlohmann::json::parse(text.substr(0, text.find('\n')));
  CHECK(first.at("measurement").at("samples_s").size() == 4);  // an object, readable as it stands
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    const auto entries = read_journal(text.substr(0, cut));
    const std::size_t whole =
        static_cast<std::size_t>(std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(cut), '\n'));
    CHECK((entries.size() == whole || cut + 1 == text.size() || cut + 1 == text.find('\n') + 1));
  }
  const auto entries = read_journal(text);
  REQUIRE(entries.size() == 2);
  CHECK((entries[0].key == key && entries[0].round.samples_s == full_row().measurement.samples_s));
  CHECK((entries[1].round.outcome == Outcome::crashed && entries[1].round.reason == failed.reason));
}

TEST_CASE("the meters agree within a tenth and four MiB") {
  Measurement m;
  m.workspace_bytes = index_t{100} << 20;
  m.peak_rss_bytes = index_t{113} << 20;
  CHECK(meters_agree(m));
  m.peak_rss_bytes = index_t{115} << 20;
  CHECK_FALSE(meters_agree(m));
  m.state_bytes = index_t{4} << 20;
  CHECK(meters_agree(m));
  m.peak_rss_bytes = -1;
  CHECK_FALSE(meters_agree(m));
}
