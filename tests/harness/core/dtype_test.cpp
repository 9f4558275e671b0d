#include "attn/core/dtype.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "catch.hpp"

namespace {

using namespace attn;

constexpr float infinity = std::numeric_limits<float>::infinity();

// Every finite pattern comes back, and between two neighbours the midpoint goes to the even one, its own neighbours to theirs.
template <class T>
bool rounds_to_nearest_even(T (*round)(float), std::uint16_t largest) {
  for (std::uint32_t bits = 0; bits < largest; ++bits) {
    const T low{static_cast<std::uint16_t>(bits)}, high{static_cast<std::uint16_t>(bits + 1)};
    const float a = to_float(low), b = to_float(high);
    if (!(a < b)) return false;
    const auto middle = static_cast<float>((static_cast<double>(a) + static_cast<double>(b)) / 2);
    const std::uint16_t even = (bits & 1) == 0 ? low.bits : high.bits;
    for (const float sign : {1.0f, -1.0f}) {
      const auto with_sign = [&](std::uint16_t x) { return static_cast<std::uint16_t>(x | (sign < 0 ? 0x8000 : 0)); };
      if (round(sign * a).bits != with_sign(low.bits) || round(sign * middle).bits != with_sign(even)) return false;
      if (round(sign * std::nextafter(middle, 0.0f)).bits != with_sign(low.bits)) return false;
      if (round(sign * std::nextafter(middle, infinity)).bits != with_sign(high.bits)) return false;
    }
  }
  return true;
}

}  // namespace

TEST_CASE("bf16 and f16 round every pattern and every midpoint to nearest even") {
  CHECK(rounds_to_nearest_even<bf16>(to_bf16, 0x7f7f));
  CHECK(rounds_to_nearest_even<f16>(to_f16, 0x7bff));
}

TEST_CASE("beyond the largest number of a type comes infinity, and NaN stays NaN") {
  CHECK(to_f16(65519.996f).bits == 0x7bff);
  CHECK(to_f16(65520.0f).bits == 0x7c00);
  CHECK(to_float(to_f16(-1e30f)) == -infinity);
  CHECK(to_float(to_f16(infinity)) == infinity);
  CHECK(to_float(to_bf16(std::numeric_limits<float>::max())) == infinity);
  CHECK(to_float(to_bf16(-infinity)) == -infinity);
  for (const std::uint32_t bits : {0x7f800001u, 0x7fffffffu, 0xff800001u, 0x7fc00000u}) {
    const auto nan = std::bit_cast<float>(bits);
    CHECK(std::isnan(to_float(to_bf16(nan))));
    CHECK(std::isnan(to_float(to_f16(nan))));
  }
}

TEST_CASE("a dtype has a name, bytes and a precision in one table") {
  CHECK(bytes_of(DType::f32, 3) == 12);
  CHECK(bytes_of(DType::bf16, 3) == 6);
  CHECK(bytes_of(DType::f16, 3) == 6);
  CHECK(bytes_of(DType::q8, 64) == 68);
  CHECK(bytes_of(DType::q8, 33) == 68);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::q8}) CHECK(parse_dtype(to_string(dtype)).value() == dtype);
  CHECK(parse_dtype("f64").reason() == "'f64' is no dtype; accepted: f32, bf16, f16, q8");
}
