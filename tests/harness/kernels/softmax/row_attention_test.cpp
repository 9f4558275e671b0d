#include "attn/kernels/softmax/row_attention.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "attn/core/rng.hpp"
#include "catch.hpp"

using namespace attn;
using namespace attn::kernels;

namespace {

constexpr index_t rows = 400, d = 24, dv = 20;

std::vector<float> normals(index_t count, const char* stream) {
  std::vector<float> values(static_cast<std::size_t>(count));
  const Rng rng(7, stream);
  for (index_t i = 0; i < count; ++i) values[static_cast<std::size_t>(i)] = static_cast<float>(rng.normal(i));
  return values;
}

// `count` row numbers at random, without order; some again.
std::vector<std::int32_t> numbers(index_t count, const char* stream) {
  std::vector<std::int32_t> list(static_cast<std::size_t>(count));
  const Rng rng(7, stream);
  for (index_t i = 0; i < count; ++i) list[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(rng.below(i, rows));
  return list;
}

struct Data {
  std::vector<float> q = normals(rows * d, "q"), k = normals(rows * d, "k"), v = normals(rows * dv, "v");
};

bool holds(const SightRule& rule, index_t query, index_t key) {
  const std::int32_t difference = rule.key[key] - rule.query[query];
  return (difference >= rule.from && difference <= rule.to) != rule.outside;
}

// One row in double; nothing where no key is seen.
std::vector<double> by_hand(const RowGroup& group, index_t i) {
  std::vector<double> sum(dv, 0.0);
  double total = 0;
  for (const RowKeys& keys : group.keys) {
    for (index_t j = 0; j < keys.count; ++j) {
      if (!std::all_of(keys.rules.begin(), keys.rules.end(), [&](const SightRule& rule) { return holds(rule, i, j); })) continue;
      double dot = 0;
      for (index_t x = 0; x < d; ++x) dot += static_cast<double>(group.q.row(i)[x]) * static_cast<double>(keys.k.row(j)[x]);
      const double weight = std::exp(0.3 * dot);
      total += weight;
      for (index_t x = 0; x < dv; ++x) sum[static_cast<std::size_t>(x)] += weight * static_cast<double>(keys.v.row(j)[x]);
    }
  }
  for (double& x : sum) x = total > 0 ? x / total : 0;
  return sum;
}

struct Run {
  WorkspacePlan plan{1};
  RowAttention attention{d, dv, 0.3, plan};
  Workspace workspace{plan, Workspace::Mode::checked};

  void operator()(const RowGroup& group) { attention(group, workspace, 0); }
};

}  // namespace

TEST_CASE("row attention: rows anywhere, under any rules, as by hand") {
  const Data data;
  const std::vector<std::int32_t> positions = numbers(rows, "positions"), kinds = [] {
    auto list = numbers(rows, "kinds");
    for (auto& kind : list) kind %= 3;
    return list;
  }();
  Run run;
  for (const index_t queries : {1, 16, 33, 64, 91, 130}) {
    for (const index_t first : {0, 5, 64, 170}) {
      for (const index_t second : {0, 91, 300}) {
        for (const int rules : {0, 1, 2}) {
          const auto q = numbers(queries, "own"), a = numbers(first, "first"), b = numbers(second, "second");
          const std::array cut{SightRule{positions.data(), positions.data() + 7, SightRule::lowest, 0},
                               SightRule{kinds.data(), kinds.data() + 3, 0, 0, true}};
          const auto some = std::span(cut).first(static_cast<std::size_t>(rules));
          const std::array keys{RowKeys{{data.k.data(), d, a.data()}, {data.v.data(), dv, a.data()}, first, some},
                                RowKeys{{data.k.data(), d, b.data()}, {data.v.data(), dv, b.data()}, second, {}}};
          std::vector<float> out(static_cast<std::size_t>(queries * dv), NAN);
          const RowGroup group{.q = {data.q.data(), d, q.data()}, .out = {out.data(), dv}, .count = queries, .keys = keys};
          run(group);
          double worst = 0;
          for (index_t i = 0; i < queries; ++i) {
            const auto expected = by_hand(group, i);
            for (index_t x = 0; x < dv; ++x) {
              const double difference =
                  std::abs(static_cast<double>(out[static_cast<std::size_t>(i * dv + x)]) - expected[static_cast<std::size_t>(x)]);
              if (!(difference <= worst)) worst = difference;
            }
          }
          INFO(queries << " queries, " << first << " and " << second << " keys, " << rules << " rules");
          CHECK(worst < 5e-6);
        }
      }
    }
  }
  CHECK(run.workspace.gaps_intact());
}

TEST_CASE("row attention: going on among other keys is one softmax over both") {
  const Data data;
  Run run;
  std::vector<float> once(50 * dv), twice(50 * dv, NAN), lse(50, NAN);
  const std::array all{RowKeys{{data.k.data(), d}, {data.v.data(), dv}, 90, {}},
                       RowKeys{{data.k.data() + 90 * d, d}, {data.v.data() + 90 * dv, dv}, 200, {}}};
  RowGroup group{.q = {data.q.data(), d}, .out = {once.data(), dv}, .count = 50, .keys = all};
  run(group);
  group.out.data = twice.data();
  group.lse = {lse.data(), 1};
  for (const RowKeys& part : all) {
    group.keys = {&part, 1};
    run(group);
    group.resume = true;
  }
  for (std::size_t e = 0; e < once.size(); ++e) REQUIRE(twice[e] == Approx(once[e]).margin(2e-6));
}

TEST_CASE("row attention: NaN and infinity in a value reach the queries that see it and no others") {
  Data data;
  Run run;
  std::vector<std::int32_t> positions(100);
  for (std::size_t i = 0; i < 100; ++i) positions[i] = static_cast<std::int32_t>(i);
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    data.v[60 * dv] = value;
    const SightRule causal{positions.data(), positions.data(), SightRule::lowest, 0};
    const RowKeys keys{{data.k.data(), d}, {data.v.data(), dv}, 100, {&causal, 1}};
    std::vector<float> out(100 * dv);
    run({.q = {data.q.data(), d}, .out = {out.data(), dv}, .count = 100, .keys = {&keys, 1}});
    for (index_t i = 0; i < 100; ++i) REQUIRE(std::isfinite(out[static_cast<std::size_t>(i * dv)]) == (i < 60));
  }
}

TEST_CASE("row attention: rows to fetch change nothing") {
  const Data data;
  Run run;
  const RowKeys keys{{data.k.data(), d}, {data.v.data(), dv}, 170, {}};
  std::vector<float> plain(70 * dv), fetched(70 * dv);
  RowGroup group{.q = {data.q.data(), d}, .out = {plain.data(), dv}, .count = 70, .keys = {&keys, 1}};
  run(group);
  const std::array soon_k{FetchRows{{}, 0}, FetchRows{{data.k.data(), d}, 13}, FetchRows{{data.q.data(), d}, 400}};
  const std::array soon_v{FetchRows{{data.v.data(), dv}, 1}};
  group.out.data = fetched.data();
  group.soon_k = soon_k;
  group.soon_v = soon_v;
  run(group);
  CHECK(plain == fetched);
}
