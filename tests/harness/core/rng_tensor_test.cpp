#include <cmath>
#include <cstdint>
#include <vector>

#include "attn/core/rng.hpp"
#include "catch.hpp"

using attn::Rng;

TEST_CASE("whole tensors do not depend on their length") {
  for (const std::size_t n : {1u, 5u, 127u, 128u, 129u, 1000u}) {
    std::vector<float> all(1000), some(n);
    Rng(7, "x").normals(all);
    Rng(7, "x").normals(some);
    all.resize(n);
    REQUIRE(some == all);
  }
}

TEST_CASE("whole tensors are the same bits on every machine") {
  std::vector<float> values(8);
  Rng(1, "x").normals(values);
  const std::vector<float> expected{-0x1.0d8296p+0f, -0x1.42dbp-1f,  0x1.3d09dep-2f, -0x1.b231d6p-3f,
                                    0x1.26fbfap-6f,  0x1.5724d8p+0f, 0x1.8ea8b6p-3f, 0x1.75774ep-1f};
  REQUIRE(values == expected);
}

TEST_CASE("uniforms are the upper 24 bits of the Philox words") {
  std::vector<float> values(128);
  Rng(3, 9).uniforms(values);
  for (std::uint32_t block = 0; block < 32; ++block) {
    const auto words = attn::philox({block, 0, 9, 0}, {3, 0});
    for (std::uint32_t w = 0; w < 4; ++w) REQUIRE(values[w * 32 + block] == static_cast<float>(words[w] >> 8) * 0x1.0p-24f);
  }
}

TEST_CASE("normals have the moments and the tails of N(0,1)") {
  constexpr std::size_t n = 1 << 21;
  std::vector<float> values(n);
  Rng(11, "moments").normals(values);
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0, beyond2 = 0, beyond4 = 0;
  for (const float value : values) {
    const double x = static_cast<double>(value);
    m1 += x / n;
    m2 += x * x / n;
    m3 += x * x * x / n;
    m4 += x * x * x * x / n;
    beyond2 += std::abs(x) > 2 ? 1.0 / n : 0;
    beyond4 += std::abs(x) > 4 ? 1.0 / n : 0;
  }
  REQUIRE(std::abs(m1) < 4 / std::sqrt(n));
  REQUIRE(std::abs(m2 - 1) < 4 * std::sqrt(2.0 / n));
  REQUIRE(std::abs(m3) < 4 * std::sqrt(15.0 / n));
  REQUIRE(std::abs(m4 - 3) < 4 * std::sqrt(96.0 / n));
  REQUIRE(beyond2 == Approx(0.0455).epsilon(0.02));
  REQUIRE(beyond4 == Approx(6.33e-5).epsilon(0.4));
}

TEST_CASE("each Box-Muller pair lies on its radius") {
  std::vector<float> values(128);
  Rng(5, 1).normals(values);
  for (std::uint32_t block = 0; block < 32; ++block) {
    const auto words = attn::philox({block, 0, 1, 0}, {5, 0});
    for (std::uint32_t pair = 0; pair < 2; ++pair) {
      const double u = (static_cast<double>(words[2 * pair] >> 8) + 0.5) * 0x1.0p-24;
      const double x = static_cast<double>(values[2 * pair * 32 + block]);
      const double y = static_cast<double>(values[(2 * pair + 1) * 32 + block]);
      REQUIRE(x * x + y * y == Approx(-2 * std::log(u)).epsilon(2e-6).margin(2e-7));
    }
  }
}
