#include "attn/record/row.hpp"

#include <unistd.h>

#include <filesystem>
#include <set>

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
  for (const auto& column : columns()) {
    CHECK(names.insert(column.name).second);
    CHECK(column.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos);
    CHECK_FALSE(column.doc.empty());
  }
}

namespace {

Row sample_row() {
  Row row;
  row.id = "local";
  row.options = "left=3,right=4";
  row.cell.variant = "local:left=3,right=4";
  row.cell.input = "text";
  row.cell.isa = "scalar";
  row.measurement.samples_s = {0.5, 0.25, 1.0};
  row.measurement.cost = {.flops = 1e9, .bytes = 1, .exps = 1};
  row.measurement.reason = "a \"quoted\" word, a comma\nand a line";
  row.peak.fma_gflops = 4;
  return row;
}

std::string field(const std::vector<std::string>& record, const std::string& name) {
  for (std::size_t c = 0; c < columns().size(); ++c) {
    if (columns()[c].name == name) return record[c];
  }
  return "no such column";
}

}  // namespace

TEST_CASE("a row survives the CSV, quotes, commas and line ends included") {
  const Row row = sample_row();
  const CsvText csv = parse_csv(csv_header() + csv_line(row));
  REQUIRE(csv.records.size() == 2);
  REQUIRE(csv.records[1].size() == columns().size());
  CHECK(field(csv.records[1], "reason") == row.measurement.reason);
  CHECK(field(csv.records[1], "time_median_s") == "0.5");
  CHECK(field(csv.records[1], "time_min_s") == "0.25");
  CHECK(field(csv.records[1], "ideal_time_s") == "0.25");
  CHECK(field(csv.records[1], "roof_fraction") == "0.5");
  CHECK(field(csv.records[1], "roof_binds") == "flops");
}

TEST_CASE("a torn last line is no record") {
  const std::string whole = csv_header() + csv_line(sample_row());
  for (std::size_t cut = csv_header().size(); cut < whole.size(); ++cut) {
    const CsvText csv = parse_csv(whole.substr(0, cut));
    CHECK(csv.records.size() == 1);
    CHECK(csv.whole_bytes == csv_header().size());
  }
}

TEST_CASE("a file that ends within its header goes on as an empty one") {
  const auto path = (std::filesystem::temp_directory_path() / ("attn_row_test" + std::to_string(::getpid()))).string();
  for (const char* text : {"", "a,", "a,b\n"}) {
    REQUIRE(write_file(path, text));
    const auto old = read_csv_to_resume(path, "a,b\n", 1);
    REQUIRE(old);
    CHECK((old->records.empty() && old->whole_bytes == 0));
  }
  REQUIRE(write_file(path, "a,c"));
  CHECK_FALSE(read_csv_to_resume(path, "a,b\n", 1));
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

TEST_CASE("a cell and its row have the same key") {
  const Row row = sample_row();
  CHECK(cell_key(row.cell) == cell_key(parse_csv(csv_line(row)).records[0]));
  CHECK(record_status(parse_csv(csv_line(row)).records[0]) == "ok");
  Cell other = row.cell;
  other.seed = 2;
  CHECK(cell_key(other) != cell_key(row.cell));
}

TEST_CASE("a row that failed has no times") {
  Row row = sample_row();
  row.measurement.outcome = Outcome::inaccurate;
  const auto record = parse_csv(csv_line(row)).records[0];
  CHECK(field(record, "status") == "inaccurate");
  CHECK(field(record, "time_median_s").empty());
  CHECK(field(record, "roof_fraction").empty());
}

TEST_CASE("the meters agree within a tenth and four MiB") {
  Measurement m;
  m.workspace_bytes = index_t{100} << 20;
  m.peak_rss_bytes = index_t{113} << 20;
  CHECK(meters_agree(m));
  m.peak_rss_bytes = index_t{115} << 20;
  CHECK_FALSE(meters_agree(m));
  m.peak_rss_bytes = -1;
  CHECK_FALSE(meters_agree(m));
}
