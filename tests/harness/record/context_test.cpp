#include "attn/record/context.hpp"

#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "attn/kernels/machine/isa.hpp"
#include "catch.hpp"

using namespace attn;

namespace {

nlohmann::json context(const std::vector<Peak>& peaks = {}, const std::vector<ColumnInfo>& columns = {}) {
  return nlohmann::json::parse(context_json({"attn_sweep", "--out", "a b.csv"}, peaks, columns, 7, R"({"n": [1]})"));
}

}  // namespace

TEST_CASE("a context lies beside its CSV, under the same name") {
  CHECK(context_path("a.csv") == "a.context.json");
  CHECK(context_path("folder.csv/a") == "folder.csv/a.context.json");
  CHECK(context_path("a.csv.csv") == "a.csv.context.json");
  CHECK(context_path("acsv") == "acsv.context.json");
  CHECK(context_path(".csv") == ".csv.context.json");
}

TEST_CASE("a command is quoted where a shell would take it for more than a word") {
  CHECK(shell_quoted({}).empty());
  CHECK(shell_quoted({"attn_sweep", "--n", "512..4096*2"}) == "attn_sweep --n '512..4096*2'");
  CHECK(shell_quoted({"-_./=:,+@%", "aZ09"}) == "-_./=:,+@% aZ09");
  CHECK(shell_quoted({"", "a b", "it's", "'"}) == R"('' 'a b' 'it'\''s' ''\''')");
  CHECK(shell_quoted({"\xC3\xA4", "a\nb", "$HOME", "a;b"}) == "'\xC3\xA4' 'a\nb' '$HOME' 'a;b'");
}

TEST_CASE("a context tells what was called, asked and measured, and what the columns mean") {
  const Peak peak{.isa = "avx2", .threads = 3, .fma_gflops = 40, .read = {{1, 2}, {30, 20}}};
  const ColumnInfo plain{.name = "status", .doc = "how it ended", .holds = Holds::text};
  const ColumnInfo full{"n", "tokens", "tok", Role::key, Better::higher, Holds::number, "512"};
  const auto j = context({peak}, {plain, full});
  CHECK(j.at("context_schema") == 2);
  CHECK(j.at("csv_schema") == 7);
  CHECK(j.at("command_line") == "attn_sweep --out 'a b.csv'");
  CHECK(j.at("asked").at("n").at(0) == 1);
  CHECK(peak_from_json(j.at("peaks").at(0).dump()).read.gbs == std::vector<double>{30, 20});
  CHECK(j.at("columns").at(0) ==
        nlohmann::json{{"name", "status"}, {"doc", "how it ended"}, {"role", "fact"}, {"holds", "text"}, {"better", "neither"}});
  CHECK(j.at("columns").at(1) == nlohmann::json{{"name", "n"},
                                                {"doc", "tokens"},
                                                {"role", "key"},
                                                {"holds", "number"},
                                                {"better", "higher"},
                                                {"unit", "tok"},
                                                {"usual", "512"}});
}

TEST_CASE("a context tells of this machine, or why it cannot") {
  char name[256] = {};
  REQUIRE(::gethostname(name, sizeof name - 1) == 0);
  CHECK(host_name() == name);
  ::setenv("SLURMD_NODENAME", "n7", 1);
  CHECK(context().at("machine").at("node") == "n7");
  ::setenv("SLURMD_NODENAME", "", 1);
  CHECK(context().at("machine").at("node") == name);
  ::unsetenv("SLURMD_NODENAME");
  const auto machine = context().at("machine");
  CHECK(machine.at("node") == name);
  CHECK(machine.at("host") == name);
  CHECK(machine.at("processors_allowed").get<int>() >= 1);
  CHECK(machine.at("processors").get<int>() >= machine.at("cores").get<int>());
  CHECK(machine.at("isa_used") == kernels::active_isa());
  for (const char* fact : {"cpu", "stepping", "microcode", "governor", "smt", "transparent_hugepages", "load_average", "kernel"}) {
    const std::string text = machine.at(fact);
    INFO(fact << ": " << text);
    CHECK(!text.empty());
    CHECK(text.find('\n') == std::string::npos);
    CHECK((text.find("unsupported") == std::string::npos || text.starts_with("unsupported: ")));
  }
}

TEST_CASE("a context keeps the variables that change a time, whole, and no others") {
  ::setenv("OMP_CONTEXT_TEST", "a=b", 1);
  ::setenv("ATTN_CONTEXT_TEST", "", 1);
  ::setenv("MY_OMP_CONTEXT_TEST", "1", 1);
  const auto environment = context().at("environment");
  CHECK(environment.at("OMP_CONTEXT_TEST") == "a=b");
  CHECK(environment.at("ATTN_CONTEXT_TEST") == "");
  CHECK_FALSE(environment.contains("MY_OMP_CONTEXT_TEST"));
  CHECK_FALSE(environment.contains("PATH"));
  for (const char* variable : {"OMP_CONTEXT_TEST", "ATTN_CONTEXT_TEST", "MY_OMP_CONTEXT_TEST"}) ::unsetenv(variable);
}

TEST_CASE("a version names build, commit and oneDNN in two lines") {
  const std::string text = version_text();
  CHECK(std::count(text.begin(), text.end(), '\n') == 2);
  CHECK(text.find(" commit " + source_commit() + "\n") != std::string::npos);
}
