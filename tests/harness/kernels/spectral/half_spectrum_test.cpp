#include "attn/kernels/spectral/half_spectrum.hpp"

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

Complex root(index_t power, index_t order) {
  return std::polar(1.0, -2 * std::numbers::pi * static_cast<double>(power % order) / static_cast<double>(order));
}

// Frequency of a column: folded ones have even l first.
index_t frequency(index_t column, index_t d) {
  if (d % 4 != 0 || d < 64) return column;
  return column < d / 4 ? 2 * column : 2 * (column - d / 4) + 1;
}

constexpr index_t widths[] = {1, 2, 3, 8, 33, 60, 64, 66, 68, 72, 96, 128, 256};

}  // namespace

TEST_CASE("half spectrum: columns are the sums that define them, the first with that of D/2 beside it") {
  on_every_isa([] {
    for (const index_t d : widths) {
      WorkspacePlan plan(1);
      const HalfSpectrum spectrum(d, plan);
      const Workspace workspace(plan);
      const index_t n = 70;  // a panel, and part of one
      Matrix x = random(n, d, 1);
      CHECK(spectrum.columns() == (d + 1) / 2);
      for (index_t first = 0; first < spectrum.columns(); first += HalfSpectrum::most_width) {
        const index_t width = spectrum.width(first);
        Matrix to(n, 2 * width);
        spectrum.run(n, x.rows(), first, to.into(), workspace, 0);
        double worst = 0;
        for (index_t i = 0; i < n; ++i) {
          const auto z = [&](index_t l) {
            Complex sum = 0;
            for (index_t c = 0; c < d; ++c) sum += static_cast<double>(x.at(i, c)) * root(c * l, d);
            return sum;
          };
          for (index_t j = 0; j < width; ++j) {
            const index_t l = frequency(first + j, d);
            const Complex expected = l == 0 && d % 2 == 0 ? Complex(z(0).real(), z(d / 2).real()) : z(l);
            const Complex got(static_cast<double>(to.at(i, j)), static_cast<double>(to.at(i, width + j)));
            worst = std::max(worst, std::abs(got - expected));
          }
        }
        INFO("d=" << d << " first=" << first);
        CHECK(worst < 1e-5 * std::sqrt(static_cast<double>(d)));
      }
    }
  });
}

TEST_CASE("half spectrum: unfolding finds both halves of every row, whatever its neighbours hold") {
  on_every_isa([] {
    for (const index_t d : widths) {
      for (const index_t n : {1, 2, 5, 8}) {
        WorkspacePlan plan(1);
        const HalfSpectrum spectrum(d, plan);
        const Workspace workspace(plan);
        Matrix x = random(n, d, 1), out(n, d), expected(n, d);
        const auto z = [&](index_t k, index_t l) {
          Complex sum = 0;
          for (index_t i = 0; i < n; ++i)
            for (index_t c = 0; c < d; ++c) sum += static_cast<double>(x.at(i, c)) * root(c * l, d) * root(i * k, n);
          return sum;
        };
        for (index_t k = 0; k < n; ++k) {
          for (index_t l = 0; l < d; ++l) expected.at(k, l) = static_cast<float>(z(k, l).real());
          for (index_t j = 0; j < spectrum.columns(); ++j) out.at(k, j) = static_cast<float>(z(k, frequency(j, d)).real());
          if (d % 2 != 0) continue;
          const Complex shared = z(k, 0) + Complex(0, 1) * z(k, d / 2);
          out.at(k, 0) = static_cast<float>(shared.real());
          out.at(k, d / 2) = static_cast<float>(shared.imag());
        }
        spectrum.unfold(0, n / 2 + 1, {out.values.data(), {n, d}, {out.stride, 1}}, workspace, 0);
        double worst = 0;
        for (index_t k = 0; k < n; ++k)
          for (index_t l = 0; l < d; ++l) worst = std::max(worst, std::abs(static_cast<double>(out.at(k, l) - expected.at(k, l))));
        INFO("d=" << d << " n=" << n);
        CHECK(worst < 2e-6 * static_cast<double>(n * d));
        for (index_t k = 0; k < n; ++k) CHECK(std::isnan(out.at(k, d)));
      }
    }
  });
}
