#include "attn/kernels/spectral/fft.hpp"

#include <cmath>
#include <complex>
#include <numbers>
#include <vector>

#include "catch.hpp"
#include "harness/kernels/matrix.hpp"

using namespace attn;
using namespace attn::kernels;
using namespace attn::kernels::test;

namespace {

using Complex = std::complex<double>;

// n rows of `columns` real parts and as many imaginary ones.
std::vector<float> block(index_t n, index_t columns) {
  const Rng rng(3, "fft");
  std::vector<float> values;
  for (index_t i = 0; i < n * 2 * columns; ++i) values.push_back(static_cast<float>(rng.normal(i)));
  return values;
}

Complex element(const float* block, index_t columns, index_t row, index_t column) {
  const float* at = block + row * 2 * columns + column;
  return {static_cast<double>(at[0]), static_cast<double>(at[columns])};
}

}  // namespace

// Every radix and their mixtures: powers of two, three, primes, those beyond which a convolution is taken, and products of all.
TEST_CASE("fft: is the sum that defines it, for lengths of every kind") {
  on_every_isa([] {
    for (const index_t n : {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 25, 27, 35, 60, 61, 64, 67, 97, 121, 128, 134, 201, 210, 256, 509}) {
      WorkspacePlan plan(1);
      const Fft fft(n, plan);
      const Workspace workspace(plan);
      CHECK(fft.size() == n);
      for (const index_t columns : {1, 3, 16, 17}) {
        if (n > 256 && columns != 3) continue;
        INFO("n=" << n << " columns=" << columns);
        const std::vector<float> before = block(n, columns);
        std::vector<float> values = before, scratch(static_cast<std::size_t>(fft.rows() * 2 * columns), unset);
        values.resize(scratch.size(), unset);
        const float* result = fft.run(columns, values.data(), scratch.data(), workspace);
        CHECK((result == values.data() || result == scratch.data()));
        double error2 = 0, size2 = 0;
        for (index_t c = 0; c < columns; ++c) {
          for (index_t k = 0; k < n; ++k) {
            Complex sum = 0;
            for (index_t t = 0; t < n; ++t) {
              const double angle = -2 * std::numbers::pi * static_cast<double>(k * t % n) / static_cast<double>(n);
              sum += element(before.data(), columns, t, c) * std::polar(1.0, angle);
            }
            error2 += std::norm(element(result, columns, k, c) - sum);
            size2 += std::norm(sum);
          }
        }
        CHECK(std::sqrt(error2 / size2) < 3e-7 * std::log2(static_cast<double>(n) + 1) + 1e-7);
      }
    }
  });
}

TEST_CASE("fft: large primes take a convolution of some two lengths, and are the sum that defines them") {
  on_every_isa([] {
    for (const index_t n : {1009, 4099, 65537, 2 * 4099}) {
      WorkspacePlan plan(1);
      const Fft fft(n, plan);
      const Workspace workspace(plan);
      CHECK(fft.rows() >= 2 * n - 1);
      CHECK(fft.rows() <= 2.5 * static_cast<double>(n));
      CHECK(Fft(n - 1, plan).rows() == (n == 4099 || n == 2 * 4099 ? fft.rows() : n - 1));  // 4098 = 6 * 683, 8197 = 7 * 1171
      const std::vector<float> before = block(n, 1);
      std::vector<float> values = before, scratch(static_cast<std::size_t>(2 * fft.rows()), unset);
      values.resize(scratch.size(), unset);
      const float* result = fft.run(1, values.data(), scratch.data(), workspace);
      for (const index_t k : {index_t{0}, index_t{1}, n / 2, n - 1}) {
        Complex sum = 0;
        for (index_t t = 0; t < n; ++t)
          sum += element(before.data(), 1, t, 0) *
                 std::polar(1.0, -2 * std::numbers::pi * static_cast<double>(k * t % n) / static_cast<double>(n));
        INFO("n=" << n << " k=" << k);
        CHECK(std::abs(element(result, 1, k, 0) - sum) < 2e-6 * std::sqrt(static_cast<double>(2 * n)));
      }
    }
  });
}

// Parseval: sum |y|^2 = n sum |x|^2; a shift by one row turns output k by the angle 2 pi k / n.
TEST_CASE("fft: keeps energy, and a shift of the rows is a turn of each output") {
  on_every_isa([] {
    for (const index_t n : {2048, 1000, 1021}) {
      WorkspacePlan plan(1);
      const Fft fft(n, plan);
      const Workspace workspace(plan);
      std::vector<float> x = block(n, 1), shifted = x;
      for (index_t t = 0; t < n; ++t) std::copy_n(x.begin() + t * 2, 2, shifted.begin() + (t + 1) % n * 2);
      double before = 0, after = 0, worst_turn = 0;
      for (const float value : x) before += std::pow(static_cast<double>(value), 2);
      std::vector<float> scratch(static_cast<std::size_t>(2 * fft.rows())), other(scratch.size());
      x.resize(scratch.size()), shifted.resize(scratch.size());
      const float* y = fft.run(1, x.data(), scratch.data(), workspace);
      const float* z = fft.run(1, shifted.data(), other.data(), workspace);
      for (index_t k = 0; k < n; ++k) {
        after += std::norm(element(y, 1, k, 0));
        const Complex turned =
            element(y, 1, k, 0) * std::polar(1.0, -2 * std::numbers::pi * static_cast<double>(k) / static_cast<double>(n));
        worst_turn = std::max(worst_turn, std::abs(turned - element(z, 1, k, 0)));
      }
      INFO("n=" << n);
      CHECK(after == Approx(static_cast<double>(n) * before).epsilon(1e-5));
      CHECK(worst_turn < 1e-3);  // values are about sqrt(2n) = 64 in size
    }
  });
}
