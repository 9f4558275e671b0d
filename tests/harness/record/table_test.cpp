#include "attn/record/table.hpp"

#include <string>
#include <vector>

#include "attn/record/row.hpp"
#include "catch.hpp"

using namespace attn;

namespace {

Row row(const std::string& variant, double seconds) {
  Measurement m;
  m.samples_s = std::vector<double>(9, seconds);
  m.cost = {.flops = 1e9, .bytes = 1, .exps = 0};
  Row row =
      make_row({.variant = variant, .problem = {.q_len = 64, .kv_len = 64}, .input = "text", .isa = "avx2"}, m, {.fma_gflops = 4});
  row.family = "scores";
  return row;
}

// The line of a row, by the name that it begins with.
std::string line_of(const std::string& name, const std::string& text) {
  const auto at = text.find("\n  " + name + " ");
  REQUIRE(at != std::string::npos);
  return text.substr(at + 1, text.find('\n', at + 1) - at - 1);
}

}  // namespace

TEST_CASE("A table divides a variant's time by the baseline's", "[record]") {
  const std::string text = table({row("full", 1), row("local", 2)}, "full", TableStyle::terminal);
  CHECK(line_of("full", text).find("  1x  ") != std::string::npos);
  CHECK(line_of("local", text).find("  2x  ") != std::string::npos);
}

TEST_CASE("Another implementation of the baseline is no baseline, and stands behind it", "[record]") {
  const std::string text = table({row("full@unfused", 4), row("full", 1), row("local", 2)}, "full", TableStyle::terminal);
  CHECK(line_of("full@unfused", text).find("  4x  ") != std::string::npos);
  CHECK(line_of("local", text).find("  2x  ") != std::string::npos);
  CHECK(text.find("\n  full ") < text.find("\n  full@unfused "));
  const std::string other = table({row("full", 1), row("full@unfused", 4)}, "full@unfused", TableStyle::terminal);
  CHECK(line_of("full", other).find("  0.25x  ") != std::string::npos);
}

TEST_CASE("A table leaves out its last columns where the terminal is narrow, and breaks no line", "[record]") {
  Row failed = row("linformer", 1);
  failed.measurement.outcome = Outcome::unsupported;
  failed.measurement.reason = "linformer has no causal form: " + std::string(200, 'x');
  const std::vector<Row> rows = {row("full", 1), row("local:left=64,right=64", 2), failed};
  const std::string wide = table(rows, "full", TableStyle::terminal);
  for (const std::size_t columns : {100, 70, 56}) {
    const std::string text = table(rows, "full", TableStyle::terminal, columns);
    std::size_t begin = 0;
    for (std::size_t end = text.find('\n'); end != std::string::npos; begin = end + 1, end = text.find('\n', begin))
      CHECK(end - begin <= columns);
    CHECK(text.find("vs full") != std::string::npos);
    CHECK(text.find("linformer has") != std::string::npos);
  }
  CHECK(wide.find("skill") != std::string::npos);
  CHECK(table(rows, "full", TableStyle::terminal, 60).find("skill") == std::string::npos);
}

TEST_CASE("A table is this text", "[record]") {
  std::vector<Row> rows = {row("full", 0.5), row("local:left=64,right=64", 0.001), row("linear", 1)};
  rows[1].measurement.peak_rss_bytes = 3 << 19;
  rows[1].figures.unstable = 1;
  rows[1].measurement.gate = {.done = true, .scope = "whole", .relative = 1.24e-7};
  rows[1].measurement.fidelity = {.done = true, .skill = 0.8765};
  rows[0].measurement.gate.scope = ungated;
  rows[2].measurement.outcome = Outcome::unsupported;
  rows[2].measurement.reason = "linear has none";
  const std::string heading = "q_len=64 batch=1 heads=8 head_dim=64 input=text threads=1 isa=avx2 seed=1";
  CHECK(table(rows, "full", TableStyle::terminal) == heading + R"(
  variant                        time  vs full       of roof   memory    error  skill
  full                       500 ms ?       1x    0.50 flops    0 KiB  ungated  -
  linear                  unsupported  linear has none
  local:left=64,right=64       1 ms ~   0.002x  250.00 flops  1.5 MiB  1.2e-07  0.876

)");
  CHECK(table(rows, "full", TableStyle::markdown) == "**" + heading + R"(**

| variant | time | vs full | of roof | memory | error | skill |
|---|---:|---:|---:|---:|---:|---:|
| full | 500 ms ? | 1x | 0.50 flops | 0 KiB | ungated | - |
| linear | unsupported |  |  |  |  | linear has none |
| local:left=64,right=64 | 1 ms ~ | 0.002x | 250.00 flops | 1.5 MiB | 1.2e-07 | 0.876 |

)");
}

TEST_CASE("Samples taken in turn give the ratio with its interval, of the variant that they were taken beside", "[record]") {
  Row paired = row("local", 2);
  paired.measurement.against = "entmax";
  paired.figures.ratio_median = 0.5, paired.figures.ratio_ci_low = 0.25, paired.figures.ratio_ci_high = 1.5;
  const std::string text = table({paired, row("full", 1)}, "full", TableStyle::terminal);
  CHECK(text.find("vs entmax, paired") != std::string::npos);
  CHECK(line_of("local", text).find("  0.5x [0.25, 1.5]  ") != std::string::npos);
  CHECK(line_of("full", text).find("  1x  ") != std::string::npos);
}

TEST_CASE("Problems have a table each, shorter ones first, with the baseline of their own", "[record]") {
  std::vector<Row> rows = {row("full", 4), row("local", 2), row("full", 1), row("local", 3)};
  for (const std::size_t longer : {0, 1}) rows[longer].cell.problem.q_len = rows[longer].cell.problem.kv_len = 128;
  const std::string text = table(rows, "full", TableStyle::terminal);
  const auto second = text.find("q_len=128");
  REQUIRE((text.starts_with("q_len=64 ") && second != std::string::npos));
  CHECK(line_of("local", text.substr(0, second)).find("  3x  ") != std::string::npos);
  CHECK(line_of("local", text.substr(second)).find("  0.5x  ") != std::string::npos);
}

TEST_CASE("A layer's table has the mixer's share in the place of the skill", "[record]") {
  Row layer = row("full", 1);
  layer.cell.scope = Scope::layer;
  layer.measurement.mixer_share = 0.756;
  const std::string text = table({layer}, "full", TableStyle::terminal);
  CHECK(text.find("mixer's share") != std::string::npos);
  CHECK(line_of("full", text).ends_with("  0.76"));
}

TEST_CASE("Where an input lies is said once, by the first row that ran", "[record]") {
  Row placed = row("local", 1);
  placed.measurement.placed = true;
  placed.measurement.placement = {.logit_std = 1.5};
  placed.measurement.note = "cut to 64 tokens";
  const std::string where = to_string(placed.measurement.placement) + "; cut to 64 tokens\n";
  const std::string text = table({row("full", 1), placed}, "full", TableStyle::terminal);
  CHECK(text.find("\n  " + where + "  variant") != std::string::npos);
  CHECK(table({placed}, "full", TableStyle::markdown).find("**\n\n" + where + "\n| variant") != std::string::npos);
  CHECK(table({row("full", 1)}, "full", TableStyle::terminal).find("seed=1\n  variant") != std::string::npos);
}

TEST_CASE("No figure is told in powers of ten", "[record]") {
  CHECK(human_bytes(1023 * 1024) == "1023 KiB");
  CHECK(human_time(0.00099999) == "1000 us");
  CHECK(human_time(1234) == "1234 s");
  CHECK(human_time(0.0123) == "12.3 ms");
  CHECK((human_time(0.001) == "1 ms" && human_time(1) == "1 s" && human_time(0.999) == "999 ms"));
  CHECK((human_bytes(0) == "0 KiB" && human_bytes(1 << 20) == "1 MiB" && human_bytes(1 << 30) == "1 GiB"));
  CHECK((human_bytes(1.5 * (1 << 20)) == "1.5 MiB" && human_bytes(2.25 * (1 << 30)) == "2.25 GiB"));
}
