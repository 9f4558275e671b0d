#include "attn/kernels/dense/gemm_of_pairs.hpp"

#include <cmath>
#include <vector>

#include "../matrix.hpp"
#include "attn/kernels/machine/compute.hpp"
#include "attn/kernels/softmax/tile_bf16.hpp"

using namespace attn;
using namespace attn::kernels;
using kernels::test::random;

namespace {

// Of bf16, rows a few elements further apart than they are long; and the pairs that a product reads.
struct Halves {
  Halves(test::Matrix from, index_t m, index_t n) : stride(round_up(n + 4, 2)), values(static_cast<std::size_t>(m * stride)) {
    round_to_bf16(m, n, from.rows(), values.data(), stride);
  }
  static index_t round_up(index_t n, index_t step) { return (n + step - 1) / step * step; }
  double at(index_t i, index_t j) const { return to_float(values[static_cast<std::size_t>(i * stride + j)]); }
  std::vector<std::uint32_t> pairs(index_t m, index_t n) const {
    std::vector<const std::byte*> rows;
    for (index_t i = 0; i < m; ++i) rows.push_back(reinterpret_cast<const std::byte*>(values.data() + i * stride));
    std::vector<std::uint32_t> packed(static_cast<std::size_t>(m / 2 * n));
    pack_pairs(rows.data(), m, n, packed.data(), n);
    return packed;
  }
  index_t stride;
  std::vector<bf16> values;
};

struct Size {
  index_t m, n, k;
};
constexpr Size sizes[] = {{1, 16, 2}, {7, 48, 6}, {13, 64, 128}, {6, 80, 30}, {5, 144, 66}};

}  // namespace

TEST_CASE("products of pairs are sums of products of the bf16 numbers, set or added") {
  for (const auto& [m, n, k] : sizes) {
    const Halves a(random(m, k, 1, 1), m, k), b(random(k, n, 1, 2), k, n);
    const auto pairs = b.pairs(k, n);
    for (const bool add : {false, true}) {
      test::Matrix c = random(m, n, 1, 3), before = c;
      gemm_of_pairs(m, n, k, a.values.data(), a.stride, pairs.data(), n, c.into(), add);
      for (index_t i = 0; i < m; ++i) {
        for (index_t j = 0; j < n; ++j) {
          double expected = add ? double{before.at(i, j)} : 0, size = std::abs(expected);
          for (index_t x = 0; x < k; ++x) expected += a.at(i, x) * b.at(x, j), size += std::abs(a.at(i, x) * b.at(x, j));
          CHECK(std::abs(double{c.at(i, j)} - expected) <= static_cast<double>(k) * 0x1p-24 * size);
        }
        CHECK(std::isnan(c.at(i, n)));  // nothing beside the rows
      }
    }
  }
}

TEST_CASE("products of pairs have the same bits by the instruction and without it") {
  if (!has_bf16_dot()) return;
  for (const auto& [m, n, k] : sizes) {
    const Halves a(random(m, k, 1e-20f, 1), m, k), b(random(k, n, 1e-18f, 2), k, n);  // of products that are denormal, too
    const auto pairs = b.pairs(k, n);
    test::Matrix by_instruction(m, n), plain(m, n);
    gemm_of_pairs(m, n, k, a.values.data(), a.stride, pairs.data(), n, by_instruction.into(), false);
    emulated_gemm_of_pairs(m, n, k, a.values.data(), a.stride, pairs.data(), n, plain.into(), false);
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < n; ++j) CHECK(by_instruction.at(i, j) == plain.at(i, j));
  }
}

TEST_CASE("rows are rounded to bf16 as numbers are, and denormal ones are zero") {
  test::Matrix from = random(3, 37, 1);
  from.at(1, 5) = from.at(1, 36) = 1e-40f;
  from.at(2, 3) = from.at(2, 35) = std::numeric_limits<float>::infinity();
  std::vector<bf16> to(3 * 40);
  round_to_bf16(3, 37, from.rows(), to.data(), 40);
  for (index_t i = 0; i < 3; ++i) {
    for (index_t j = 0; j < 37; ++j) {
      const bool denormal = i == 1 && (j == 5 || j == 36);
      CHECK(to[static_cast<std::size_t>(i * 40 + j)].bits == (denormal ? 0 : to_bf16(from.at(i, j)).bits));
    }
  }
}
