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

TEST_CASE("No figure is told in powers of ten", "[record]") {
  CHECK(human_bytes(1023 * 1024) == "1023 KiB");
  CHECK(human_time(0.00099999) == "1000 us");
  CHECK(human_time(1234) == "1234 s");
  CHECK(human_time(0.0123) == "12.3 ms");
}
