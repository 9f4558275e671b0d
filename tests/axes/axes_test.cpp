// One entry in the table of axes is all that a new axis takes: here is one, and it is found everywhere.
#include "attn/cell/axes.hpp"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "attn/record/row.hpp"
#include "attn/record/sink.hpp"
#include "attn/sweep/grid.hpp"
#include "attn/sweep/options.hpp"
#include "catch.hpp"

using namespace attn;

namespace {

// It lies in the millions of the seed: cells need no member for it.
constexpr std::uint64_t level_unit = 1'000'000;

const bool added = [] {
  add_axis({.name = "toy_level",
            .flag = "toy-level",
            .doc = "a toy",
            .help = "levels of the toy",
            .usual = "0",
            .parse = [](std::string_view text, const Registry&) -> Result<std::vector<AxisValue>> {
              if (text == "0") return std::vector<AxisValue>{index_t{0}};
              if (text == "1,3") return std::vector<AxisValue>{index_t{1}, index_t{3}};
              if (text == "3") return std::vector<AxisValue>{index_t{3}};
              return refuse("'" + std::string(text) + "' is no toy");
            },
            .read = [](std::string_view text) -> Result<AxisValue> { return AxisValue(index_t{text[0] - '0'}); },
            .set =
                [](Cell& cell, const AxisValue& value) {
                  cell.seed = cell.seed % level_unit + static_cast<std::uint64_t>(std::get<index_t>(value)) * level_unit;
                },
            .get = [](const Cell& cell) { return AxisValue(static_cast<index_t>(cell.seed / level_unit)); }});
  return true;
}();

Asked asked(const std::vector<std::string>& arguments) {
  const CommandLine line = parse_command_line(arguments);
  INFO(line.text);
  REQUIRE(line.then == CommandLine::Then::run);
  return line.options.axes;
}

std::vector<Block> grid(const std::vector<std::string>& arguments) {
  Registry registry;
  register_builtin_variants(registry);
  auto blocks = make_grid(parse_command_line(arguments).options, registry);
  REQUIRE(blocks);
  return *std::move(blocks);
}

index_t level(const Cell& cell) { return std::get<index_t>(axis_of("toy_level").get(cell)); }

const std::vector<std::string> levels{"1,3"};

}  // namespace

TEST_CASE("an axis has a flag, a line of help, a variable and a config key") {
  CHECK(asked({"--toy-level", "1,3"}).at("toy_level") == levels);
  CHECK(parse_command_line({"--help"}).text.find("--toy-level TEXT") != std::string::npos);

  ::setenv("ATTN_TOY_LEVEL", "1,3", 1);
  CHECK(asked({}).at("toy_level") == levels);
  ::unsetenv("ATTN_TOY_LEVEL");

  const auto path = (std::filesystem::temp_directory_path() / ("attn_axes_test" + std::to_string(::getpid()))).string();
  REQUIRE(write_file(path, "toy-level = [1, 3]\n"));
  CHECK(asked({"--config", path}).at("toy_level") == levels);
  std::filesystem::remove(path);
}

TEST_CASE("an axis spans the grid, and a value that it has not is refused by its flag") {
  const auto blocks = grid({"--variants", "full,linear", "--n", "64,128", "--toy-level", "1,3"});
  REQUIRE(blocks.size() == 4);
  std::vector<std::pair<index_t, index_t>> found;
  for (const Block& block : blocks) {
    REQUIRE(block.cells.size() == 2);
    for (const Cell& cell : block.cells) CHECK(level(cell) == level(block.cells.front()));
    found.emplace_back(block.cells.front().problem.q_len, level(block.cells.front()));
  }
  CHECK(found == std::vector<std::pair<index_t, index_t>>{{64, 1}, {64, 3}, {128, 1}, {128, 3}});
  CHECK(level(grid({"--variants", "full", "--n", "64"}).front().cells.front()) == 0);
  CHECK(make_grid(parse_command_line({"--toy-level", "2"}).options, Registry()).reason() == "--toy-level: '2' is no toy");
}

TEST_CASE("an axis is a column, a part of the key and of the heading") {
  const auto blocks = grid({"--variants", "full", "--n", "64", "--toy-level", "1,3"});
  const Cell &one = blocks[0].cells[0], &three = blocks[1].cells[0];
  const Row row = make_row(three, {}, {});
  CHECK(row_schema().field(row, "toy_level") == "3");
  const auto back = row_schema().row(row_schema().record(row));
  REQUIRE(back);
  CHECK(cell_key(back->cell) == cell_key(three));

  CHECK(cell_key(one) != cell_key(three));
  CHECK(heading(three).find("toy_level=3") != std::string::npos);
  CHECK(title(three, three.variant).find("toy_level=3") != std::string::npos);
  CHECK(title(grid({"--variants", "full", "--n", "64"})[0].cells[0], "full").find("toy_level") == std::string::npos);
}

TEST_CASE("an axis crosses to the worker and stands in the command that repeats a cell") {
  const Cell cell = grid({"--variants", "full", "--n", "64", "--toy-level", "3"})[0].cells[0];
  Cell copy;
  Settings settings;
  from_json(to_json(cell, settings), copy, settings);
  CHECK(cell_key(copy) == cell_key(cell));
  CHECK(level(copy) == 3);

  const auto arguments = arguments_for(cell);
  CHECK(repeat_command(cell, {}).find("--toy-level 3") != std::string::npos);
  CHECK(cell_key(grid(arguments)[0].cells[0]) == cell_key(cell));
}
