#include "attn/kernels/choose/query_clusters.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <vector>

#include "catch.hpp"

using namespace attn;
using namespace attn::kernels;

namespace {

std::vector<float> normals(index_t count, std::uint64_t stream) {
  std::vector<float> values(static_cast<std::size_t>(count));
  const Rng rng(5, stream);
  for (index_t i = 0; i < count; ++i) values[static_cast<std::size_t>(i)] = static_cast<float>(rng.normal(i));
  return values;
}

std::vector<std::uint64_t> random_codes(index_t n, index_t bits) {
  std::vector<std::uint64_t> code(static_cast<std::size_t>(n));
  for (index_t i = 0; i < n; ++i) code[static_cast<std::size_t>(i)] = Rng(9, "codes").bits(i) >> (64 - bits);
  return code;
}

struct Clustering {
  std::vector<std::uint64_t> centroid;
  std::vector<std::int32_t> group;
};

Clustering by_engine(const std::vector<std::uint64_t>& code, index_t clusters, index_t iterations,
                     const std::vector<float>& starts) {
  Clustering c{std::vector<std::uint64_t>(static_cast<std::size_t>(clusters)), std::vector<std::int32_t>(code.size())};
  std::vector<std::int32_t> scratch(static_cast<std::size_t>(clusters * cluster_scratch));
  hamming_clusters(code, clusters, iterations, starts.data(), c.centroid, scratch, c.group);
  return c;
}

// The definition, in the plainest words.
Clustering by_hand(const std::vector<std::uint64_t>& code, index_t clusters, index_t iterations, const std::vector<float>& starts) {
  Clustering c{{}, std::vector<std::int32_t>(code.size())};
  for (index_t u = 0; u < clusters; ++u) c.centroid.push_back(code[static_cast<std::size_t>(starts[static_cast<std::size_t>(u)])]);
  for (index_t t = 1; t <= iterations; ++t) {
    for (std::size_t i = 0; i < code.size(); ++i) {
      int least = 65;
      for (index_t u = 0; u < clusters; ++u) {
        const int distance = std::popcount(code[i] ^ c.centroid[static_cast<std::size_t>(u)]);
        if (distance < least) least = distance, c.group[i] = static_cast<std::int32_t>(u);
      }
    }
    if (t == iterations) break;
    for (index_t u = 0; u < clusters; ++u) {
      int ones[64] = {}, members = 0;
      for (std::size_t i = 0; i < code.size(); ++i) {
        if (c.group[i] != u) continue;
        ++members;
        for (int b = 0; b < 64; ++b) ones[b] += static_cast<int>(code[i] >> b & 1);
      }
      std::uint64_t bits = 0;
      for (int b = 0; b < 64; ++b) bits |= std::uint64_t{2 * ones[b] > members} << b;
      if (members == 0) bits = code[static_cast<std::size_t>(starts[static_cast<std::size_t>(t * clusters + u)])];
      c.centroid[static_cast<std::size_t>(u)] = bits;
    }
  }
  return c;
}

}  // namespace

TEST_CASE("hamming_clusters: as by hand, whatever the sizes; few bits leave clusters empty") {
  for (const index_t n : {1, 7, 64, 333}) {
    for (const index_t bits : {1, 3, 63, 64}) {
      for (const index_t clusters : {index_t{1}, std::min<index_t>(n, 5), std::min<index_t>(n, 40)}) {
        std::vector<float> starts(static_cast<std::size_t>(6 * clusters));
        draw_starts(starts, clusters, n, Rng(1, "starts"));
        const auto code = random_codes(n, bits);
        const auto fast = by_engine(code, clusters, 6, starts), slow = by_hand(code, clusters, 6, starts);
        INFO("n=" << n << " bits=" << bits << " clusters=" << clusters);
        CHECK(fast.group == slow.group);
      }
    }
  }
}

TEST_CASE("draw_starts: distinct rows first") {
  std::vector<float> starts(3 * 10);
  draw_starts(starts, 10, 10, Rng(1, "starts"));
  CHECK(std::set<float>(starts.begin(), starts.begin() + 10).size() == 10);
  for (const float s : starts) CHECK((s >= 0 && s < 10 && s == std::floor(s)));
}

TEST_CASE("sign_codes: bits above their thresholds; none for NaN") {
  constexpr index_t n = 200, d = 24, bits = 40;
  std::vector<float> x = normals(n * d, 1);
  std::fill_n(x.begin(), d, std::numeric_limits<float>::quiet_NaN());
  const auto planes = normals((d + 1) * bits, 2);
  std::vector<std::uint64_t> code(n);
  std::vector<float> scratch(sign_scratch_floats);
  sign_codes(n, d, {x.data(), d}, bits, planes.data(), scratch.data(), code.data());
  CHECK(code[0] == 0);
  for (std::size_t i = 1; i < n; ++i) {
    std::uint64_t expected = 0;
    for (std::size_t b = 0; b < bits; ++b) {
      double y = 0;
      for (std::size_t k = 0; k < d; ++k) y += static_cast<double>(x[i * d + k]) * static_cast<double>(planes[k * bits + b]);
      expected |= std::uint64_t{y > static_cast<double>(planes[d * bits + b])} << b;
    }
    REQUIRE(code[i] == expected);
  }
}

TEST_CASE("top_rows: the largest products, the lowest row among equals, in ascending order") {
  constexpr index_t d = 8;
  for (const index_t n : {1, 5, 300, 1000, 5000}) {
    for (const index_t take : {index_t{1}, std::min<index_t>(n, 37), n / 3 + 1, n}) {
      // Coarse values make many ties.
      auto x = normals(n * d, 3), probe = normals(3 * d, 4);
      for (float& v : x) v = std::round(v);
      for (float& v : probe) v = std::round(v);
      const auto rows = top_rows(n, d, x.data(), 3, probe.data(), take);
      for (index_t c = 0; c < 3; ++c) {
        std::vector<std::int32_t> all(static_cast<std::size_t>(n));
        std::iota(all.begin(), all.end(), 0);
        const auto score = [&](std::int32_t i) {
          float s = 0;
          for (index_t k = 0; k < d; ++k) s += x[static_cast<std::size_t>(i * d + k)] * probe[static_cast<std::size_t>(c * d + k)];
          return s;
        };
        std::stable_sort(all.begin(), all.end(), [&](std::int32_t a, std::int32_t b) { return score(a) > score(b); });
        all.resize(static_cast<std::size_t>(take));
        std::sort(all.begin(), all.end());
        const std::vector<std::int32_t> got(rows.begin() + c * take, rows.begin() + (c + 1) * take);
        CHECK(got == all);
      }
    }
  }
}

TEST_CASE("top_rows: scores that rise, fall or are equal all along") {
  constexpr index_t n = 3000, take = 20;
  const float probe = 1;
  std::vector<float> x(n);
  std::vector<std::int32_t> first(take), last(take);
  std::iota(first.begin(), first.end(), 0);
  std::iota(last.begin(), last.end(), static_cast<std::int32_t>(n - take));
  for (std::size_t i = 0; i < n; ++i) x[i] = static_cast<float>(i) - 1500;
  CHECK(top_rows(n, 1, x.data(), 1, &probe, take) == last);
  for (std::size_t i = 0; i < n; ++i) x[i] = 1500 - static_cast<float>(i);
  CHECK(top_rows(n, 1, x.data(), 1, &probe, take) == first);
  for (const float value : {0.0f, -3.0f, -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    std::fill(x.begin(), x.end(), value);
    CHECK(top_rows(n, 1, x.data(), 1, &probe, take) == first);
  }
}

TEST_CASE("top_rows: where rows at even distances are no sample of the others") {
  constexpr index_t n = 5120, take = 300;
  const float probe = 1;
  for (const index_t apart : {5, 19, 20, 40}) {
    std::vector<float> x(n);
    for (std::size_t i = 0; i < n; ++i)
      x[i] = static_cast<float>(i % 97) + (i % static_cast<std::size_t>(apart) == 0 ? 1000.0f : 0.0f);
    std::vector<std::int32_t> all(n);
    std::iota(all.begin(), all.end(), 0);
    std::stable_sort(all.begin(), all.end(), [&](std::int32_t a, std::int32_t b) {
      return x[static_cast<std::size_t>(a)] > x[static_cast<std::size_t>(b)];
    });
    all.resize(take);
    std::sort(all.begin(), all.end());
    CHECK(top_rows(n, 1, x.data(), 1, &probe, take) == all);
  }
}

TEST_CASE("top_rows: of normalised rows, those of layer_norm's products") {
  constexpr index_t n = 700, d = 40, take = 30;
  const auto x = normals(n * d, 3), probe = normals(2 * d, 4);
  std::vector<float> y(n * d);
  layer_norm(n, d, {x.data(), d}, {y.data(), d});
  CHECK(top_rows(n, d, x.data(), 2, probe.data(), take, TopRows::Of::normalised_rows) ==
        top_rows(n, d, y.data(), 2, probe.data(), take));
}

TEST_CASE("top_rows: NaN comes last") {
  std::vector<float> x = {NAN, 1, NAN, 2};
  const float probe = 1;
  CHECK(top_rows(4, 1, x.data(), 1, &probe, 2) == std::vector<std::int32_t>{1, 3});
  CHECK(top_rows(4, 1, x.data(), 1, &probe, 3) == std::vector<std::int32_t>{0, 1, 3});
}

TEST_CASE("layer_norm: mean 0, variance 1; equal elements give zeros") {
  std::vector<float> x = {1, 2, 3, 4, 5, 5, 5, 5};
  layer_norm(2, 4, {x.data(), 4}, {x.data(), 4});
  const double root = std::sqrt(1.25);
  for (std::size_t j = 0; j < 4; ++j) {
    CHECK(static_cast<double>(x[j]) == Approx((static_cast<double>(j) - 1.5) / root));
    CHECK(x[4 + j] == 0);
  }
}

TEST_CASE("layer_norm: listed rows as the others, whatever the width") {
  for (const index_t n : {1, 5, 16, 64, 100, 256}) {
    const auto x = normals(9 * n, 6);
    std::vector<float> all(static_cast<std::size_t>(9 * n)), listed(static_cast<std::size_t>(3 * n));
    layer_norm(9, n, {x.data(), n}, {all.data(), n});
    const std::int32_t list[] = {7, 0, 7};
    layer_norm(3, n, {x.data(), n}, {listed.data(), n}, list);
    for (index_t i = 0; i < 3; ++i) {
      for (index_t e = 0; e < n; ++e)
        REQUIRE(listed[static_cast<std::size_t>(i * n + e)] == all[static_cast<std::size_t>(list[i] * n + e)]);
    }
  }
}

TEST_CASE("means_of_groups: the mean of the listed rows, zeros for none") {
  for (const index_t dim : {3, 64, 70}) {
    const auto x = normals(10 * dim, 8);
    const std::vector<std::int32_t> order = {4, 9, 0, 4}, begin = {0, 3, 3, 4};
    std::vector<float> to(static_cast<std::size_t>(3 * dim), NAN);
    means_of_groups(order, begin, dim, {x.data(), dim}, {to.data(), dim});
    const auto at = [&](index_t row, index_t e) { return x[static_cast<std::size_t>(row * dim + e)]; };
    for (index_t e = 0; e < dim; ++e) {
      REQUIRE(to[static_cast<std::size_t>(e)] == Approx((at(4, e) + at(9, e) + at(0, e)) / 3).margin(1e-6));
      REQUIRE(to[static_cast<std::size_t>(dim + e)] == 0);
      REQUIRE(to[static_cast<std::size_t>(2 * dim + e)] == at(4, e));
    }
  }
}

TEST_CASE("update_centroids: moving averages of the nearest rows, by hand") {
  std::vector<float> centroid = {1, 0, 0, 1}, sum = centroid, count = {0, 0};
  const std::vector<float> x = {2, 0, 4, 0, 0, 3};
  update_centroids({2, 2, centroid.data(), sum.data(), count.data()}, 3, {x.data(), 2}, 0.5);
  CHECK(count == std::vector<float>{1, 0.5});
  CHECK(sum == std::vector<float>{3.5, 0, 0, 2});
  CHECK(static_cast<double>(centroid[0]) == Approx(3.5).epsilon(1e-4));
  CHECK(static_cast<double>(centroid[3]) == Approx(4).epsilon(1e-4));
}
