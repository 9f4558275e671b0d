#include "attn/sweep/options.hpp"

#include "attn/program/flags.hpp"
#include "attn/variant/registry.hpp"
#include "catch.hpp"

using namespace attn;

TEST_CASE("the command line: the last of a repeated flag wins, inputs add up") {
  const auto line = parse_command_line({"--n", "64", "--n", "128", "--input", "iid:1", "--input", "npy:a,b,c", "--no-pin"});
  REQUIRE(line.then == CommandLine::Then::run);
  CHECK(line.options.axes.at("q_len") == std::vector<std::string>{"128"});
  CHECK(line.options.axes.at("input") == std::vector<std::string>{"iid:1", "npy:a,b,c"});
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

TEST_CASE("an id wins over the family of its name, which a slash tells apart") {
  Registry registry;
  register_builtin_variants(registry);
  const auto count = [&](const char* names) { return registry.configure_list(names)->size(); };
  CHECK(count("clustered") == 1);
  CHECK(count("clustered/") > 1);
  CHECK((count("sparse") > 1 && count("sparse/") == count("sparse")));
  CHECK_FALSE(registry.configure_list("clustred/"));
}
