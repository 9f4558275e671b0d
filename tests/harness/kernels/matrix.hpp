// Matrices whose rows have NaN between them, for tests of kernels on rows: what reads or writes beside a row shows.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "attn/core/rng.hpp"
#include "attn/kernels/dense/gemm.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "catch.hpp"

namespace attn::kernels::test {

inline constexpr float unset = std::numeric_limits<float>::quiet_NaN();

struct Matrix {
  Matrix(index_t m, index_t n) : stride(n + 5), values(static_cast<std::size_t>(m * stride), unset) {}
  float& at(index_t i, index_t j) { return values[static_cast<std::size_t>(i * stride + j)]; }
  Rows rows() const { return {values.data(), stride}; }
  Into into() { return {values.data(), stride}; }
  index_t stride;
  std::vector<float> values;
};

inline Matrix random(index_t m, index_t n, float size, std::uint64_t stream = 0) {
  Matrix x(m, n);
  const Rng rng(7, stream);
  for (index_t i = 0; i < m; ++i) {
    for (index_t j = 0; j < n; ++j) x.at(i, j) = size * static_cast<float>(rng.normal(i * n + j));
  }
  return x;
}

template <class F>
void on_every_isa(F f) {
  for (const auto& isa : available_isas()) {
    DYNAMIC_SECTION(isa) {
      REQUIRE(force_isa(isa));
      f();
      REQUIRE(force_isa(""));
    }
  }
}

template <class F>
void on_every_isa_and_shape(F f) {
  on_every_isa([&] {
    for (const index_t m : {1, 3, 16, 37}) {
      for (const index_t n : {1, 4, 15, 16, 17, 64, 70, 130}) {
        INFO(m << " x " << n);
        f(m, n);
      }
    }
  });
}

// Largest |to - expected| / (|expected| + 1e-30 or `absolute` where that is meant), and no write between the rows.
template <class F>
double worst(index_t m, index_t n, Matrix& to, F expected, bool absolute = false) {
  double error = 0;
  for (index_t i = 0; i < m; ++i) {
    for (index_t j = 0; j < to.stride && i * to.stride + j < static_cast<index_t>(to.values.size()); ++j) {
      if (j >= n) {
        if (!std::isnan(to.at(i, j))) return INFINITY;
        continue;
      }
      const double e = expected(i, j), difference = std::abs(static_cast<double>(to.at(i, j)) - e);
      if (!std::isfinite(difference)) return INFINITY;
      error = std::max(error, absolute ? difference : difference / (std::abs(e) + 1e-30));
    }
  }
  return error;
}

inline double at(Matrix& x, index_t i, index_t j) { return static_cast<double>(x.at(i, j)); }

}  // namespace attn::kernels::test
