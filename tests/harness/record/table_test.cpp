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
