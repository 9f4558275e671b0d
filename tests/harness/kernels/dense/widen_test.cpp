#include "attn/kernels/dense/widen.hpp"

#include <cmath>
#include <cstring>
#include <vector>

#include "attn/kernels/machine/isa.hpp"
#include "catch.hpp"

namespace {

using namespace attn;

bool same(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b)); }

template <class T>
void every_pattern() {
  std::vector<T> from(65536 + 5);
  for (std::size_t i = 0; i < from.size(); ++i) from[i].bits = static_cast<std::uint16_t>(i);
  std::vector<float> to(from.size());
  kernels::widen(dtype_of<T>, from.data(), std::ssize(from), to.data());
  for (std::size_t i = 0; i < from.size(); ++i) {
    if (!same(to[i], to_float(from[i]))) FAIL(to_string(dtype_of<T>) << " pattern " << i << " became " << to[i]);
  }
}

}  // namespace

TEST_CASE("every number of 16 bits is widened to itself, on every instruction set") {
  for (const std::string& isa : kernels::available_isas()) {
    INFO(isa);
    REQUIRE(kernels::force_isa(isa));
    every_pattern<bf16>();
    every_pattern<f16>();
    std::vector<q8> blocks(3);
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      blocks[b].scale = to_f16(0.013f * static_cast<float>(b + 1));
      for (int i = 0; i < 32; ++i) blocks[b].values[i] = static_cast<std::int8_t>(i * 8 - 128 + static_cast<int>(b));
    }
    std::vector<float> found(96), expected(96);
    kernels::widen(DType::q8, blocks.data(), 96, found.data());
    widen_row(DType::q8, blocks.data(), 96, expected.data());
    CHECK(found == expected);
  }
  REQUIRE(kernels::force_isa(""));
}
