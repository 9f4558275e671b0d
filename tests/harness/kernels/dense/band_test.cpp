#include "attn/kernels/dense/band.hpp"

#include <vector>

#include "catch.hpp"
#include "harness/kernels/matrix.hpp"

using namespace attn;
using namespace attn::kernels;
using namespace attn::kernels::test;

namespace {

constexpr index_t length = 37;  // of the sequence

// Windows inside the sequence, over either end, wholly beside it, and longer than it.
template <class F>
void on_windows(F f) {
  for (const index_t n : {1, 16, 17, 64, 70, 130}) {
    Matrix x = random(length, n, 1, 1);
    for (const index_t taps : {1, 2, 7, 50}) {
      for (const index_t left : {index_t{0}, taps / 2, taps - 1, taps + 3}) {
        for (const auto& [first, m] : {std::pair<index_t, index_t>{0, length}, {3, 5}, {30, 7}, {0, 1}}) {
          for (const bool add : {false, true}) {
            INFO("channels=" << n << " taps=" << taps << " left=" << left << " first=" << first << " rows=" << m << " add=" << add);
            Matrix to = random(m, n, 1, 2);
            f(x, to, n, taps, left, first, m, add);
          }
        }
      }
    }
  }
}

// sum_u weight(i, u, c) x_(first + i + u - left), over rows that exist.
template <class Weight>
double window(Matrix& x, index_t i, index_t c, index_t taps, index_t left, index_t first, Weight weight) {
  double sum = 0;
  for (index_t u = 0; u < taps; ++u) {
    const index_t row = first + i + u - left;
    if (row >= 0 && row < length) sum += weight(i, u, c) * at(x, row, c);
  }
  return sum;
}

}  // namespace

TEST_CASE("band: each row's weights, or the same for all") {
  on_every_isa([] {
    on_windows([](Matrix& x, Matrix& to, index_t n, index_t taps, index_t left, index_t first, index_t m, bool add) {
      Matrix weights = random(m, taps, 1, 3);
      for (const bool shared : {false, true}) {
        Matrix result = to;
        band(m, n, {weights.values.data(), shared ? 0 : weights.stride}, taps, first, left, {x.rows(), length}, add, result.into());
        const auto weight = [&](index_t i, index_t u, index_t) { return at(weights, shared ? 0 : i, u); };
        CHECK(worst(
                  m, n, result,
                  [&](index_t i, index_t c) { return (add ? at(to, i, c) : 0) + window(x, i, c, taps, left, first, weight); },
                  true) < 1e-5);
      }
    });
  });
}

TEST_CASE("depthwise: a weight for each channel") {
  on_every_isa([] {
    on_windows([](Matrix& x, Matrix& to, index_t n, index_t taps, index_t left, index_t first, index_t m, bool add) {
      Matrix weights = random(taps, n, 1, 3), result = to;
      depthwise(m, n, weights.rows(), taps, first, left, {x.rows(), length}, add, result.into());
      CHECK(worst(
                m, n, result,
                [&](index_t i, index_t c) {
                  return (add ? at(to, i, c) : 0) + window(x, i, c, taps, left, first, [&](index_t, index_t u, index_t channel) {
                           return at(weights, u, channel);
                         });
                },
                true) < 1e-5);
    });
  });
}
