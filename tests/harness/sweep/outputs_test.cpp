#include "attn/sweep/outputs.hpp"

#include <unistd.h>

#include <filesystem>

#include "attn/cell/axes.hpp"
#include "catch.hpp"

using namespace attn;

namespace {

class Folder {
 public:
  Folder() { std::filesystem::create_directory(path_); }
  ~Folder() { std::filesystem::remove_all(path_); }
  SweepOptions options(bool resume) const {
    SweepOptions o;
    o.out = (path_ / "a.csv").string();
    o.jsonl = (path_ / "a.jsonl").string();
    o.resume = resume;
    return o;
  }

 private:
  std::filesystem::path path_ = std::filesystem::temp_directory_path() / ("attn_outputs_test" + std::to_string(::getpid()));
};

Cell cell_of(std::uint64_t seed) { return {.variant = "full", .problem = {}, .input = "iid:1", .seed = seed, .isa = "scalar"}; }

Measurement measured(Outcome outcome) {
  Measurement m;
  m.outcome = outcome;
  if (outcome == Outcome::ok) m.samples_s = {0.5};
  return m;
}

Row row_of(std::uint64_t seed, Outcome outcome) { return make_row(cell_of(seed), measured(outcome), {}); }

}  // namespace

TEST_CASE("what a sweep left behind is read back as rows and rounds, but not what its budget skipped") {
  const Folder folder;
  {
    auto outputs = Outputs::open(folder.options(false));
    REQUIRE(outputs);
    REQUIRE(outputs->begin());
    REQUIRE(outputs->write(row_of(1, Outcome::ok)));
    REQUIRE(outputs->write(row_of(2, Outcome::skipped_budget)));
    REQUIRE(outputs->write(row_of(3, Outcome::crashed)));
    REQUIRE(outputs->note(cell_key(cell_of(4)), measured(Outcome::ok)));
    REQUIRE(outputs->note(cell_key(cell_of(5)), measured(Outcome::skipped_budget)));
    CHECK(outputs->rows_from_before() == 0);
    CHECK_FALSE(Outputs::open(folder.options(true)));  // held
  }
  CHECK_FALSE(Outputs::open(folder.options(false)));  // would be replaced
  auto outputs = Outputs::open(folder.options(true));
  REQUIRE(outputs);
  CHECK(outputs->rows_from_before() == 2);
  CHECK((outputs->has(cell_key(cell_of(1))) && !outputs->has(cell_key(cell_of(2))) && outputs->has(cell_key(cell_of(3)))));
  CHECK(outputs->rounds_from_before(cell_key(cell_of(4))).size() == 1);
  CHECK(outputs->rounds_from_before(cell_key(cell_of(5))).empty());

  REQUIRE(outputs->begin());
  REQUIRE(outputs->write(row_of(2, Outcome::ok)));
  outputs->end();
  CHECK_FALSE(std::filesystem::exists(folder.options(true).out + ".journal"));
  const auto csv = read_rows(folder.options(true).out, row_schema());
  REQUIRE(csv);
  REQUIRE(csv->rows.size() == 3);
  const auto json = read_file(folder.options(true).jsonl);
  REQUIRE(json);
  std::string expected;
  for (const Row& row : csv->rows) expected += row_schema().json_line(row);
  CHECK(*json == expected);
}
