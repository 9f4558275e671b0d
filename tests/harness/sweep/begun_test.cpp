#include "attn/sweep/begun.hpp"

#include <unistd.h>

#include <filesystem>

#include "attn/record/context.hpp"
#include "attn/record/sink.hpp"
#include "attn/sweep/grid.hpp"
#include "attn/sweep/options.hpp"
#include "attn/sweep/plan.hpp"
#include "catch.hpp"
#include "harness/variant_of.hpp"

using namespace attn;
using attn::test::registry;
using Words = std::vector<std::string>;

namespace {

SweepOptions options_of(const Words& given) {
  const CommandLine line = parse_command_line(given);
  INFO(line.text);
  REQUIRE(line.then == CommandLine::Then::run);
  return line.options;
}

// Every setting that a sweep is told elsewhere, none as it usually is.
const Words unusual = {"--samples",
                       "4",
                       "--rounds",
                       "2",
                       "--sample-time",
                       "0.25",
                       "--fidelity",
                       "full",
                       "--fidelity-seeds",
                       "7",
                       "--against",
                       "full",
                       "--launcher",
                       "mpirun -x A",
                       "--no-pin",
                       "--plugin",
                       "a.so",
                       "--prefer",
                       "plugin",
                       "--timeout",
                       "12",
                       "--memory-limit",
                       "3G",
                       "--order-seed",
                       "9",
                       "--machine-root",
                       "/none",
                       "--iso-error",
                       "0.5"};

}  // namespace

TEST_CASE("settings as flags ask for the same settings, and the usual limits go without saying") {
  const SweepOptions o = options_of(unusual);
  CHECK(sweep_arguments(o) == unusual);
  CHECK(sweep_arguments(options_of(sweep_arguments(o))) == unusual);
  CHECK(setting_arguments(o) == Words(unusual.begin(), unusual.begin() + 19));
  CHECK(sweep_arguments({}) == Words{"--samples", "9", "--rounds", "3", "--sample-time", "0.01"});
  CHECK(sweep_arguments(options_of({"--iso-skill", "0"})).back() == "0");
}

TEST_CASE("what a sweep was begun with is kept beside its CSV and asks for the same again") {
  const auto folder = std::filesystem::temp_directory_path() / ("attn_begun_test" + std::to_string(::getpid()));
  std::filesystem::create_directory(folder);
  const std::string csv = (folder / "a.csv").string();
  Words given = unusual;
  given.insert(given.end(), {"--variants", "sparse", "--n", "64,128", "--input", "iid:1", "--input", "iid:2", "--causal", "--jsonl",
                             "b.jsonl", "--save-output", "folder"});
  SweepOptions o = options_of(given);
  const Begun begun = begun_with(o, registry());
  CHECK(begun.variants == "sparse");
  CHECK(begun.axes.at("variant").size() == registry().configure_list("sparse")->size());
  CHECK(begun.axes.at("q_len") == Words{"64", "128"});
  CHECK(begun.axes.at("input") == Words{"iid:1", "iid:2"});
  CHECK(begun.axes.contains("threads"));
  CHECK(begun.axes.contains("isa"));
  CHECK_FALSE(begun.axes.contains("heads"));

  CHECK_FALSE(read_begun(csv));
  REQUIRE(write_file(context_path(csv), "{\"asked\":" + to_json(begun) + "}"));
  CHECK_FALSE(read_begun(csv));  // of a file that is not there
  REQUIRE(write_file(csv, "schema\n"));
  const auto read = read_begun(csv);
  REQUIRE(read);
  CHECK((read->axes == begun.axes && read->variants == begun.variants && read->settings == begun.settings));
  REQUIRE(write_file(context_path(csv), "{\"asked\":{}"));
  CHECK_FALSE(read_begun(csv));
  std::filesystem::remove_all(folder);

  const SweepOptions again = options_of(begun.arguments());
  CHECK(begun_with(again, registry()).axes == begun.axes);
  CHECK(begun_with(again, registry()).settings == begun.settings);
  CHECK((again.jsonl == "b.jsonl" && again.save_output == "folder" && !again.pin));
}

TEST_CASE("a sweep that goes on takes its axes from its beginning and refuses others") {
  SweepOptions begin = options_of({"--variants", "*_v", "--n", "64,128", "--out", "a.csv"});
  const Begun begun = begun_with(begin, registry());
  const auto go_on = [&](const Words& said, std::string* note = nullptr) {
    SweepOptions o = options_of(begun.arguments());
    const SweepOptions own = options_of(said);
    o.out = "a.csv", o.begun = begun, o.said = own.axes;
    for (const auto& [axis, texts] : own.axes) {
      if (!texts.empty()) o.axes[axis] = texts;
    }
    o.iso_error = own.iso_error;
    std::string unread;
    const Status status = go_on_as_begun(o, registry(), note != nullptr ? *note : unread);
    return status ? std::string() : status.reason();
  };
  CHECK(go_on({}).empty());
  CHECK(go_on({"--n", "128,64"}).empty());
  CHECK(go_on({"--variants", "*_v"}).empty());
  CHECK(go_on({"--variants", "mean_v,copy_v"}).empty());
  CHECK(go_on({"--heads", "8"}).empty());  // the usual ones
  CHECK(go_on({"--n", "64"}) == "--resume: --n 64 is given, 'a.csv' was begun with --n 64,128; accepted: no --n, or another --out");
  CHECK(go_on({"--heads", "4"}) ==
        "--resume: --heads 4 is given, 'a.csv' was begun with --heads 8; accepted: no --heads, or another --out");
  CHECK(go_on({"--variants", "full"}).find("begun with --variants copy_v,mean_v") != std::string::npos);
  CHECK(go_on({"--iso-error", "0.5"}) ==
        "--resume: --iso-error 0.5 is given, 'a.csv' was begun with no --iso-error and no --iso-skill; accepted: the same, or "
        "another --out");
  std::string note = "?";
  CHECK(go_on({}, &note).empty());
  CHECK(note.empty());

  SweepOptions alone = options_of({"--out", "b.csv"});
  CHECK(go_on_as_begun(alone, registry(), note)
            .reason()
            .starts_with("--resume: neither 'b.csv' nor 'b.context.json' says what to measure"));
  SweepOptions named = options_of({"--out", "b.csv", "--n", "64"});
  CHECK(go_on_as_begun(named, registry(), note));
}

TEST_CASE("the command that goes on is one that a shell takes") {
  CHECK(resume_command("./attn_sweep", "a b.csv") == "./attn_sweep --out 'a b.csv' --resume");
}

TEST_CASE("a variant that every other is clocked beside has cells of its own, once") {
  const auto names = [](const Words& given) {
    Words found;
    const auto blocks = make_grid(options_of(given), registry());
    REQUIRE(blocks);
    for (const Cell& cell : blocks->front().cells) found.push_back(VariantName::parse(cell.variant)->id);
    return found;
  };
  CHECK(names({"--variants", "copy_v", "--n", "64", "--against", "full"}) == Words{"copy_v", "full"});
  CHECK(names({"--variants", "copy_v,full", "--n", "64", "--against", "full"}) == Words{"copy_v", "full"});
  CHECK(make_grid(options_of({"--against", "ful"}), registry()).reason().starts_with("--against: "));
}

TEST_CASE("a plan has a line for each block, whose arguments ask for that block") {
  const SweepOptions o = options_of({"--variants", "copy_v,mean_v", "--n", "64,128", "--heads", "2"});
  const auto blocks = make_grid(o, registry());
  REQUIRE(blocks);
  const std::string text = plan_text(*blocks, o, registry());
  CHECK(text.starts_with("# attnbench plan 1\n# build "));
  CHECK(text.find("# 2 blocks, 4 cells, about ") != std::string::npos);
  CHECK(text.find("\nblock\tseconds\tcells\tproblem\targuments\n0\t") != std::string::npos);
  const auto second = text.find("\n1\t");
  REQUIRE(second != std::string::npos);
  const std::string line = text.substr(second);
  CHECK(line.find("\t2\tq_len=128 ") != std::string::npos);
  CHECK(line.find("--variants copy_v,mean_v") != std::string::npos);
  CHECK(line.find("--n 128") != std::string::npos);
  CHECK((line.find("--threads") == std::string::npos && line.find("--isa") == std::string::npos));  // the node's own
  const SweepOptions two = options_of({"--variants", "copy_v", "--n", "64", "--threads", "2"});
  CHECK(plan_text(*make_grid(two, registry()), two, registry()).find("--threads 2") != std::string::npos);
}
