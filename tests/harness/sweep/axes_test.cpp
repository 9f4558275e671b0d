#include "attn/cell/axes.hpp"

#include "attn/program/flags.hpp"
#include "attn/sweep/options.hpp"
#include "attn/variant/registry.hpp"
#include "catch.hpp"

using namespace attn;

TEST_CASE("axes are lists, geometric and arithmetic ranges") {
  const auto values = [](const char* text) { return *parse_axis(text, 1, 100'000); };
  CHECK(values("5") == std::vector<index_t>{5});
  CHECK(values("3,1,3") == std::vector<index_t>{3, 1});
  CHECK(values("128..1024*2") == std::vector<index_t>{128, 256, 512, 1024});
  CHECK(values("128..1000*2") == std::vector<index_t>{128, 256, 512});
  CHECK(values("10..40+10") == std::vector<index_t>{10, 20, 30, 40});
  CHECK(values("2..4") == std::vector<index_t>{2, 3, 4});
  CHECK(values("7,1..4*2") == std::vector<index_t>{7, 1, 2, 4});
}

TEST_CASE("axes that are no axes are refused with the given text") {
  for (const char* text :
       {"", "x", "0", "1,", "4..2", "1..8*1", "1..8+0", "1..", "..8", "1..1000000*2", "9999999999999999999", "1..100000"}) {
    INFO(text);
    CHECK_FALSE(parse_axis(text, 1, 100'000));
  }
  CHECK(parse_axis("12x", 1, 100).reason().find("12x") != std::string::npos);
}

TEST_CASE("axes end where the next value would overflow, and do not stand still at zero") {
  CHECK(*parse_axis("1..5+9223372036854775807", 1, 100) == std::vector<index_t>{1});
  CHECK(*parse_axis("3..9*4611686018427387904", 1, 100) == std::vector<index_t>{3});
  CHECK(*parse_axis("0..2", 0, 100) == std::vector<index_t>{0, 1, 2});
  CHECK(parse_axis("0..5*2", 0, 100).reason().find("does not advance") != std::string::npos);
}

TEST_CASE("sizes in bytes") {
  CHECK(*parse_bytes("512") == 512);
  CHECK(*parse_bytes("3K") == 3072);
  CHECK(*parse_bytes("8G") == index_t{8} << 30);
  for (const char* text : {"", "K", "-1", "1Q", "99999999999T"}) CHECK_FALSE(parse_bytes(text));
}

TEST_CASE("the command line: the last of a repeated flag wins, inputs add up") {
  const auto line = parse_command_line({"--n", "64", "--n", "128", "--input", "iid:1", "--input", "npy:a,b,c", "--no-pin"});
  REQUIRE(line.then == CommandLine::Then::run);
  CHECK(line.options.n == "128");
  CHECK(line.options.inputs == std::vector<std::string>{"iid:1", "npy:a,b,c"});
  CHECK_FALSE(line.options.pin);
}

TEST_CASE("a flag or a config key without a value is refused and takes no neighbour for it") {
  for (const auto& given : {std::vector<std::string>{"--n=", "--dry-run"}, {"--n", "", "--dry-run"}}) {
    const auto line = parse_command_line(given);
    CHECK((line.then == CommandLine::Then::exit && line.exit_code == 2));
    CHECK(line.text.find(given[0] + " has no value") != std::string::npos);
  }
  for (const char* text : {"jsonl = \"\"", "n = []", "input = ['']"}) {
    INFO(text);
    CHECK(config_arguments(text, "c.toml", {"input"}).reason().find("is empty") != std::string::npos);
  }
}

TEST_CASE("a memory limit in which no worker starts is refused") {
  CHECK(*read_memory_limit("16M") == index_t{16} << 20);
  for (const char* text : {"0", "1", "1K", "15M"}) CHECK(read_memory_limit(text).reason().find(text) != std::string::npos);
}

TEST_CASE("an id wins over the family of its name, which a slash tells apart") {
  Registry registry;
  register_builtin_variants(registry);
  const auto count = [&](const char* names) { return registry.configure_list(names)->size(); };
  CHECK(count("clustered") == 1);
  CHECK(count("clustered/") > 1);
  CHECK((count("sparse") > 1 && count("sparse/") == count("sparse")));
  CHECK_FALSE(registry.configure_list("clustred/"));
}
