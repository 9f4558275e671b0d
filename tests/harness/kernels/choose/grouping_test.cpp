#include "attn/kernels/choose/grouping.hpp"

#include <vector>

#include "attn/core/rng.hpp"
#include "catch.hpp"

using namespace attn;
using namespace attn::kernels;

TEST_CASE("sort_by_group: stable, with empty groups") {
  const std::vector<std::int32_t> group = {3, 0, 3, 1, 0, 3};
  std::vector<std::int32_t> order(6), begin(6);
  sort_by_group(group, order, begin);
  CHECK(order == std::vector<std::int32_t>{1, 4, 3, 0, 2, 5});
  CHECK(begin == std::vector<std::int32_t>{0, 2, 3, 3, 6, 6});
}

TEST_CASE("sort_by_group: one group keeps the order, no items are no problem") {
  std::vector<std::int32_t> order(3), begin(2);
  sort_by_group(std::vector<std::int32_t>{0, 0, 0}, order, begin);
  CHECK(order == std::vector<std::int32_t>{0, 1, 2});
  CHECK(begin == std::vector<std::int32_t>{0, 3});
  sort_by_group({}, {}, begin);
  CHECK(begin == std::vector<std::int32_t>{0, 0});
}

namespace {

std::vector<float> normals(index_t count, std::uint64_t stream) {
  std::vector<float> values(static_cast<std::size_t>(count));
  const Rng rng(3, stream);
  for (index_t i = 0; i < count; ++i) values[static_cast<std::size_t>(i)] = static_cast<float>(rng.normal(i));
  return values;
}

std::vector<std::int32_t> hash(const AngularHash& h, index_t n, index_t d, const std::vector<float>& x,
                               const std::vector<float>& m) {
  std::vector<float> scratch(static_cast<std::size_t>(h.scratch_floats()));
  std::vector<std::int32_t> bucket(static_cast<std::size_t>(h.rounds * n));
  h(n, d, {x.data(), d}, m.data(), scratch.data(), bucket.data(), n);
  return bucket;
}

}  // namespace

TEST_CASE("AngularHash: the largest of [x M; -x M], in double, round by round") {
  constexpr index_t n = 300, d = 24;
  for (const AngularHash h : {AngularHash{3, 10, 0}, AngularHash{2, 8, 6}, AngularHash{1, 2, 0}}) {
    const index_t all = h.rounds * h.columns();
    const std::vector<float> x = normals(n * d, 1), m = normals(d * all, 2);
    const auto bucket = hash(h, n, d, x, m);
    const auto largest = [&](index_t i, index_t first, index_t count) {
      index_t best = 0;
      double most = -1e300;
      for (index_t c = 0; c < 2 * count; ++c) {
        double y = 0;
        for (index_t k = 0; k < d; ++k)
          y += static_cast<double>(x[static_cast<std::size_t>(i * d + k)]) *
               static_cast<double>(m[static_cast<std::size_t>(k * all + first + c % count)]);
        if (c >= count) y = -y;
        if (y > most) most = y, best = c;
      }
      return best;
    };
    for (index_t r = 0; r < h.rounds; ++r) {
      for (index_t i = 0; i < n; ++i) {
        index_t expected = largest(i, r * h.columns(), h.first / 2);
        if (h.second > 0) expected += h.first * largest(i, r * h.columns() + h.first / 2, h.second / 2);
        REQUIRE(bucket[static_cast<std::size_t>(r * n + i)] == expected);
      }
    }
  }
}

TEST_CASE("AngularHash: ties and NaN go to the first bucket") {
  const AngularHash h{1, 8, 4};
  const std::vector<float> m = normals(8 * h.columns(), 2);
  for (const float value : {0.0f, std::numeric_limits<float>::quiet_NaN()}) {
    for (const std::int32_t b : hash(h, 5, 8, std::vector<float>(40, value), m)) CHECK(b == 0);
  }
}
