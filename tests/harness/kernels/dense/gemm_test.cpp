#include "attn/kernels/dense/gemm.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "attn/core/rng.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "catch.hpp"

using namespace attn;
using namespace attn::kernels;

namespace {

constexpr float unset = std::numeric_limits<float>::quiet_NaN();

// A matrix of random numbers in a sea of NaN.
struct Sea {
  Sea(index_t rows, index_t columns, index_t row_step, index_t column_step, std::uint64_t stream)
      : step{row_step, column_step},
        values(static_cast<std::size_t>((rows - 1) * row_step + (columns - 1) * column_step + 1 + 2 * margin), unset) {
    const Rng rng(1, stream);
    for (index_t i = 0; i < rows; ++i) {
      for (index_t j = 0; j < columns; ++j) at(i, j) = static_cast<float>(rng.normal(i * columns + j));
    }
  }
  float& at(index_t i, index_t j) { return values[index(i, j)]; }
  float at(index_t i, index_t j) const { return values[index(i, j)]; }
  std::size_t index(index_t i, index_t j) const { return static_cast<std::size_t>(margin + i * step[0] + j * step[1]); }
  float* data() { return values.data() + margin; }

  static constexpr index_t margin = 40;
  index_t step[2];
  std::vector<float> values;
};

void check(index_t m, index_t n, index_t k, bool transposed, const GemmOptions& options) {
  const bool lower_left = options.lower == Lower::left;
  Sea a(m, k, transposed ? 1 : k + 3, transposed ? m + 5 : 1, 1);
  Sea b(k, n, n + 7, 1, 2);
  Sea c(m, n, n + 2, 1, 3);
  if (lower_left) {
    for (index_t i = 0; i < m; ++i) {
      for (index_t j = i + 1 + options.diagonal; j < k; ++j) a.at(i, j) = 0;
    }
  }
  if (!options.add) {
    for (auto& value : c.values) value = unset;
  }
  const Sea before = c;
  gemm(m, n, k, {a.data(), a.step[0], a.step[1]}, {b.data(), b.step[0]}, {c.data(), c.step[0]}, options);
  index_t wrong = 0;
  for (index_t i = 0; i < m; ++i) {
    for (index_t j = 0; j < n; ++j) {
      double sum = options.add ? static_cast<double>(before.at(i, j)) : 0.0;
      double size = std::abs(sum);
      for (index_t x = 0; x < k; ++x) {
        const double term = static_cast<double>(a.at(i, x)) * static_cast<double>(b.at(x, j));
        sum += term;
        size += std::abs(term);
      }
      const double scale = options.row_scale != nullptr ? static_cast<double>(options.row_scale[i]) : 1.0;
      const double expected = options.lower == Lower::result && j > i + options.diagonal ? 0.0 : sum * scale;
      if (!(std::abs(static_cast<double>(c.at(i, j)) - expected) <= 2e-6 * size * std::abs(scale))) ++wrong;
      c.at(i, j) = unset;
    }
  }
  for (const float value : c.values) wrong += std::isnan(value) ? 0 : 1;  // written outside the matrix
  CHECK(wrong == 0);
}

template <class F>
void on_every_isa(F f) {
  for (const auto& isa : available_isas()) {
    DYNAMIC_SECTION(isa) {
      REQUIRE(force_isa(isa));
      REQUIRE(active_isa() == isa);
      f();
      REQUIRE(force_isa(""));
    }
  }
}

}  // namespace

TEST_CASE("gemm agrees with the sum in double at odd shapes and strides") {
  on_every_isa([] {
    for (const index_t m : {1, 2, 5, 6, 7, 13, 64, 200}) {
      for (const index_t n : {1, 3, 15, 16, 17, 33, 40, 64, 80, 130}) {
        for (const index_t k : {1, 7, 64, 129, 300}) {
          for (const bool transposed : {false, true}) check(m, n, k, transposed, {});
        }
      }
    }
  });
}

TEST_CASE("gemm adds, scales rows and keeps to the triangle") {
  std::vector<float> scale(200);
  for (std::size_t i = 0; i < scale.size(); ++i) scale[i] = 0.5f + static_cast<float>(i % 7);
  on_every_isa([&] {
    for (const bool transposed : {false, true}) {
      for (const index_t m : {1, 9, 64, 150}) {
        for (const index_t n : {1, 20, 64, 150}) {
          check(m, n, 140, transposed, {.add = true});
          check(m, n, 140, transposed, {.row_scale = scale.data()});
          check(m, n, 140, transposed, {.add = true, .row_scale = scale.data()});
          check(m, n, m, transposed, {.add = true, .lower = Lower::left});
        }
        check(m, m, 33, transposed, {.lower = Lower::result});
        check(m, m + 20, 33, transposed, {.lower = Lower::result, .diagonal = 20});
        check(m, 40, m + 20, transposed, {.lower = Lower::left, .diagonal = 20});
      }
    }
  });
}

TEST_CASE("gemm stacks two right operands") {
  on_every_isa([] {
    for (const index_t n : {1, 20, 64, 70}) {
      for (const index_t k : {5, 64, 130, 257}) {
        const index_t m = 33, more = 40;
        Sea a(m, k + more, k + more + 3, 1, 1), b(k + more, n, n + 7, 1, 2), together(m, n, n, 1, 3), apart = together;
        gemm(m, n, k + more, {a.data(), a.step[0]}, {b.data(), b.step[0]}, {together.data(), n});
        gemm(m, n, k, {a.data(), a.step[0]}, {b.data(), b.step[0]}, {apart.data(), n},
             {.below = {b.data() + k * b.step[0], b.step[0]}, .below_k = more});
        float worst = 0;
        for (index_t i = 0; i < m * n; ++i) worst = std::max(worst, std::abs(together.data()[i] - apart.data()[i]));
        CHECK(worst < 1e-4f);
      }
    }
  });
}

TEST_CASE("gemm over no depth is zero") {
  float c[4] = {unset, unset, unset, unset};
  gemm(2, 2, 0, {nullptr, 0}, {nullptr, 2}, {c, 2});
  for (const float value : c) CHECK(value == 0.0f);
}

TEST_CASE("gemm reads B rows 4 KB apart") {
  on_every_isa([] { check(200, 1017, 150, false, {}); });
}
