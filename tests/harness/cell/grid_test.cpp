#include "attn/cell/grid.hpp"

#include <map>

#include "catch.hpp"
#include "harness/variant_of.hpp"

using namespace attn;

namespace {

using test::registry;

std::vector<Block> blocks(const Asked& asked) {
  const auto grid = parse_grid(asked, registry());
  REQUIRE(grid);
  auto made = make_blocks(*grid);
  REQUIRE(made);
  return *std::move(made);
}

Cell only(const Asked& asked) {
  const auto made = blocks(asked);
  REQUIRE(made.size() == 1);
  REQUIRE(made[0].cells.size() == 1);
  return made[0].cells[0];
}

const Asked small{{"variant", {"full"}}, {"q_len", {"64"}}};

Asked with(Asked asked, const std::string& axis, const std::string& text) {
  asked[axis] = {text};
  return asked;
}

}  // namespace

TEST_CASE("every axis has a flag, a doc, values to take where none are asked for, and prints what it reads") {
  for (const Asked& asked : {small, with(small, "pass", "decode")}) {
    Cell cell = only(asked);
    for (const Axis& axis : axes()) {
      INFO(axis.name);
      CHECK_FALSE(axis.flag.empty());
      CHECK_FALSE(axis.doc.empty());
      CHECK_FALSE(axis.help.empty());
      CHECK(axis.usual.empty() != axis.as.empty());
      const AxisValue value = axis.get(cell);
      const bool says_something = cell.problem.pass == Pass::decode || axis.name != "step";
      CHECK(to_string(value).empty() != says_something);
      CHECK(std::holds_alternative<index_t>(value) == (axis.number && says_something));
      const auto read = axis.read(to_string(value));
      REQUIRE(read);
      CHECK(*read == value);
      axis.set(cell, value);
      CHECK(axis.get(cell) == value);
    }
    CHECK(cell_key(cell) == cell_key(only(asked)));
  }
}

TEST_CASE("the key of a cell changes with each of its axes") {
  const std::map<std::string, std::string, std::less<>> others = {
      {"variant", "mean_v"}, {"input", "iid:2"},        {"isa", "another"},     {"pass", "forward_backward"},
      {"scope", "layer"},    {"lengths", "zipf"},       {"dtype", "bf16"},      {"kv_dtype", "q8"},
      {"cache", "cold"},     {"kv_layout", "paged:16"}, {"shape", "bert-base"}, {"numa", "interleave"}};
  for (const Asked& asked : {small, with(small, "pass", "decode")}) {
    const Cell cell = only(asked);
    for (const Axis& axis : axes()) {
      INFO(axis.name);
      const AxisValue value = axis.get(cell);
      if (to_string(value).empty()) continue;  // a step where there is none
      Cell other = cell;
      const auto* number = std::get_if<index_t>(&value);
      const index_t next = number == nullptr ? 0 : axis.name == "causal" ? 1 - *number : *number + 1;
      const auto changed = axis.read(number != nullptr ? std::to_string(next) : others.at(axis.name));
      REQUIRE(changed);
      axis.set(other, *changed);
      CHECK(cell_key(other) != cell_key(cell));
    }
  }
}

TEST_CASE("lengths are the outermost axis in ascending order, seeds the innermost, and variants share a block") {
  std::vector<std::vector<index_t>> found;
  for (const Block& block :
       blocks({{"variant", {"full,linear"}}, {"q_len", {"128,64"}}, {"causal", {"both"}}, {"heads", {"8,4"}}, {"seed", {"2,1"}}})) {
    REQUIRE(block.cells.size() == 2);
    const Cell& c = block.cells[1];
    CHECK(block.cells[0].variant != c.variant);
    found.push_back({c.problem.q_len, c.problem.causal, c.problem.heads, static_cast<index_t>(c.seed)});
  }
  std::vector<std::vector<index_t>> expected;
  for (const index_t n : {64, 128})
    for (const index_t causal : {0, 1})
      for (const index_t heads : {8, 4})
        for (const index_t seed : {2, 1}) expected.push_back({n, causal, heads, seed});
  CHECK(found == expected);
}

TEST_CASE("an axis that is not asked for follows another, cell by cell") {
  for (const Block& block : blocks({{"variant", {"full"}}, {"q_len", {"64,128"}}, {"heads", {"2,4"}}, {"head_dim", {"16,32"}}})) {
    const Problem& p = block.cells[0].problem;
    CHECK((p.kv_len == p.q_len && p.kv_heads == p.heads && p.value_dim == p.head_dim && p.kv_dtype == p.dtype));
  }
  const Problem p = only(with(with(small, "kv_len", "96"), "kv_heads", "2")).problem;
  CHECK((p.q_len == 64 && p.kv_len == 96 && p.kv_heads == 2));
}

TEST_CASE("values given twice are one, and so are inputs under two names") {
  CHECK(blocks({{"variant", {"full,full"}}, {"q_len", {"64,64"}}, {"input", {"iid", "iid:1"}}, {"pass", {"forward,forward"}}})
            .size() == 1);
  CHECK(blocks(with(small, "variant", "full,full"))[0].cells.size() == 1);
}

TEST_CASE("a value that an axis has not is refused with the flag and what is accepted") {
  const auto refused = [](const std::string& axis, const std::string& text) {
    const auto grid = parse_grid(with(small, axis, text), registry());
    INFO(axis << " " << text);
    REQUIRE_FALSE(grid);
    return grid.reason();
  };
  CHECK(refused("q_len", "0") == "--n: 0 is outside 1..67108864");
  CHECK(refused("head_dim", "257") == "--head-dim: 257 is outside 1..256");
  CHECK(refused("causal", "maybe") == "--causal: causal 'maybe' is not one of no, yes, both");
  CHECK(refused("isa", "mmx").find("--isa: 'mmx' is not available; this machine and build have ") == 0);
  CHECK(refused("pass", "backward").find("--pass: 'backward'") == 0);
  CHECK(refused("dtype", "f31").find("--dtype: ") == 0);
  CHECK(refused("kv_dtype", "f31").find("f31") != std::string::npos);
  CHECK(refused("input", "text:/no/such").find("--input: ") == 0);
  CHECK(refused("variant", "ful").find("--variants: ") == 0);
}

TEST_CASE("a cell crosses to a worker by the names of its axes") {
  const Cell cell = only(with(with(with(small, "causal", "yes"), "scope", "layer"), "seed", "7"));
  const std::string question = to_json(cell, {});
  for (const Axis& axis : axes()) CHECK(question.find('"' + axis.name + "\":") != std::string::npos);
  CHECK(question.find("\"dtype\":\"f32\"") != std::string::npos);
  CHECK(question.find("\"seed\":7") != std::string::npos);
  Cell copy;
  Settings settings;
  from_json(question, copy, settings);
  CHECK(copy.problem == cell.problem);
  CHECK(cell_key(copy) == cell_key(cell));
  CHECK_THROWS(from_json(R"({"cell": {"variant": "full"}, "settings": {}})", copy, settings));
}

TEST_CASE("a heading says all but what goes without saying, a title what is unusual") {
  Cell cell = only(with(with(small, "threads", "3"), "isa", "scalar"));
  CHECK(heading(cell) == "q_len=64 batch=1 heads=8 head_dim=64 input=text threads=3 isa=scalar seed=1");
  cell.problem.kv_heads = 2;
  cell.problem.pass = Pass::forward_backward;
  cell.scope = Scope::layer;
  CHECK(heading(cell) ==
        "q_len=64 batch=1 heads=8 kv_heads=2 head_dim=64 input=text threads=3 isa=scalar pass=forward_backward "
        "scope=layer seed=1");
  const std::string told = title(cell, cell.variant);
  CHECK(told.find("full q_len=64 kv_heads=2") == 0);
  CHECK(told.find("batch") == std::string::npos);
}

TEST_CASE("the flags of a cell ask for that cell") {
  Cell cell = only(with(with(with(small, "causal", "yes"), "kv_heads", "4"), "isa", "scalar"));
  Asked asked;
  const auto arguments = arguments_for(cell);
  for (std::size_t i = 0; i < arguments.size(); i += 2) {
    for (const Axis& axis : axes()) {
      if ("--" + axis.flag == arguments[i]) asked[axis.name] = {arguments[i + 1]};
    }
  }
  CHECK(asked.size() == arguments.size() / 2);
  CHECK(cell_key(only(asked)) == cell_key(cell));
}
