#include "attn/kernels/softmax/engine.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "attn/core/rng.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "catch.hpp"

using namespace attn;
using namespace attn::kernels;

namespace {

constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

using Allowed = std::function<int(index_t row, index_t position, index_t key)>;  // how often the query sees the key

std::vector<float> normals(index_t count, std::uint64_t stream, double scale = 1) {
  const Rng rng(7, stream);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (index_t i = 0; i < count; ++i) values[static_cast<std::size_t>(i)] = static_cast<float>(scale * rng.normal(i));
  return values;
}

struct Case {
  Problem p;
  std::vector<float> q, k, v;
  int threads = 1;
  EngineOptions options = {};

  explicit Case(const Problem& problem, double logit_scale = 1)
      : p(problem),
        q(normals(p.batch * p.heads * p.q_len * p.head_dim, 1, logit_scale)),
        k(normals(p.batch * p.kv_heads * p.kv_len * p.head_dim, 2)),
        v(normals(p.batch * p.kv_heads * p.kv_len * p.value_dim, 3)) {}

  float* k_row(index_t j) { return k.data() + j * p.head_dim; }
  float* v_row(index_t j) { return v.data() + j * p.value_dim; }
};

struct Output {
  std::vector<float> out, lse;
};

using Run = std::function<void(const SoftmaxEngine&, EngineArrays, const Workspace&)>;

// Runs passes one after the other; all but the first resume.
Output run_passes(const Case& c, const std::vector<EngineOptions>& passes, const Run& run) {
  const Problem& p = c.p;
  const auto size = static_cast<std::size_t>(p.batch * p.heads * p.q_len);
  Output result{std::vector<float>(size * static_cast<std::size_t>(p.value_dim), nan_value), std::vector<float>(size, nan_value)};
  EngineArrays arrays(
      {c.q.data(), {p.batch, p.heads, p.q_len, p.head_dim}}, {c.k.data(), {p.batch, p.kv_heads, p.kv_len, p.head_dim}},
      {c.v.data(), {p.batch, p.kv_heads, p.kv_len, p.value_dim}}, {result.out.data(), {p.batch, p.heads, p.q_len, p.value_dim}},
      {result.lse.data(), {p.batch, p.heads, p.q_len}});
  for (const EngineOptions& options : passes) {
    WorkspacePlan plan(c.threads);
    const SoftmaxEngine engine(p, options, plan);
    const Workspace workspace(plan, Workspace::Mode::checked);
    Arena(c.threads).execute([&] { run(engine, arrays, workspace); });
    CHECK(workspace.gaps_intact());
    arrays.resume = true;
  }
  return result;
}

Output run(const Case& c, KeySchedule schedule) {
  return run_passes(c, {c.options}, [&](const SoftmaxEngine& engine, EngineArrays arrays, const Workspace& workspace) {
    engine.run(arrays, workspace, schedule);
  });
}

struct Reference {
  std::vector<double> out, lse;
};

Reference reference(const Case& c, const Allowed& allowed) {
  const Problem& p = c.p;
  Reference r;
  for (index_t b = 0; b < p.batch; ++b) {
    for (index_t h = 0; h < p.heads; ++h) {
      const index_t kv = (b * p.kv_heads + p.kv_head(h)) * p.kv_len;
      for (index_t i = 0; i < p.q_len; ++i) {
        const float* q = c.q.data() + ((b * p.heads + h) * p.q_len + i) * p.head_dim;
        std::vector<double> logit(static_cast<std::size_t>(p.kv_len)), out(static_cast<std::size_t>(p.value_dim));
        double top = -std::numeric_limits<double>::infinity(), sum = 0;
        for (index_t j = 0; j < p.kv_len; ++j) {
          double dot = 0;
          for (index_t x = 0; x < p.head_dim; ++x)
            dot += double{q[x]} * double{c.k[static_cast<std::size_t>((kv + j) * p.head_dim + x)]};
          logit[static_cast<std::size_t>(j)] = dot * p.scale();
          if (allowed(i, p.query_position(i), j) && (!p.causal || j <= p.query_position(i))) top = std::max(top, dot * p.scale());
        }
        bool any = false;
        for (index_t j = 0; j < p.kv_len; ++j) {
          const int times = p.causal && j > p.query_position(i) ? 0 : allowed(i, p.query_position(i), j);
          if (times == 0) continue;
          any = true;
          const double w = times * std::exp(logit[static_cast<std::size_t>(j)] - top);
          sum += w;
          for (index_t x = 0; x < p.value_dim; ++x)
            out[static_cast<std::size_t>(x)] += w * double{c.v[static_cast<std::size_t>((kv + j) * p.value_dim + x)]};
        }
        for (double& o : out) r.out.push_back(any ? o / sum : 0);
        r.lse.push_back(any ? top + std::log(sum) : -std::numeric_limits<double>::infinity());
      }
    }
  }
  return r;
}

// Largest difference; NaN and infinity must stand in the same places.
double distance(const std::vector<float>& got, const std::vector<double>& want) {
  REQUIRE(got.size() == want.size());
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(want[i]) && std::isnan(got[i])) continue;
    if (double{got[i]} == want[i]) continue;
    const double error = std::fabs(double{got[i]} - want[i]);
    worst = std::isfinite(error) ? std::max(worst, error) : std::numeric_limits<double>::infinity();
  }
  return worst;
}

void check(const Case& c, KeySchedule schedule, const Allowed& allowed, double tolerance = 3e-6) {
  const Output got = run(c, schedule);
  const Reference want = reference(c, allowed);
  INFO(to_string(c.p) << " isa=" << active_isa() << " threads=" << c.threads);
  CHECK(distance(got.out, want.out) < tolerance);
  CHECK(distance(got.lse, want.lse) < 4 * tolerance);
}

Problem shape(index_t q_len, index_t kv_len, index_t head_dim, index_t value_dim, bool causal = false) {
  return {.batch = 1,
          .heads = 2,
          .kv_heads = 2,
          .q_len = q_len,
          .kv_len = kv_len,
          .head_dim = head_dim,
          .value_dim = value_dim,
          .causal = causal};
}

int always(index_t, index_t, index_t) { return 1; }

// Runs the body once for each instruction set of this machine.
template <class F>
void on_every_isa(F&& body) {
  for (const std::string& isa : available_isas()) {
    REQUIRE(force_isa(isa));
    REQUIRE(active_isa() == isa);
    body();
  }
  REQUIRE(force_isa(""));
}

}  // namespace

TEST_CASE("full attention agrees with the definition in double at odd lengths") {
  on_every_isa([] {
    for (const index_t n : {1, 2, 7, 8, 15, 16, 17, 47, 48, 49, 63, 64, 65, 113, 500}) {
      check(Case(shape(n, n, 16, 16)), all_keys, always);
      check(Case(shape(n, n, 24, 24, true)), all_keys, always);
    }
  });
}

TEST_CASE("every head and value dimension is exact to float") {
  on_every_isa([] {
    for (const index_t d : {1, 2, 3, 5, 16, 33, 40, 64, 80, 96, 128, 255, 256}) check(Case(shape(65, 70, d, d)), all_keys, always);
    for (const auto& [d, dv] : {std::pair{64, 1}, {1, 64}, {33, 7}, {40, 80}, {7, 13}, {256, 12}, {16, 252}}) {
      check(Case(shape(50, 90, d, dv, true)), all_keys, always);
    }
  });
}

TEST_CASE("queries end where keys end") {
  on_every_isa([] {
    check(Case(shape(1, 500, 32, 32, true)), all_keys, always);
    check(Case(shape(63, 200, 32, 32, true)), all_keys, always);
    check(Case(shape(130, 65, 32, 32)), all_keys, always);
  });
}

TEST_CASE("a query before every key gets zeros and an lse of minus infinity") {
  on_every_isa([] {
    const Case c(shape(70, 40, 16, 16, true));
    check(c, all_keys, always);
    const Output got = run(c, all_keys);
    CHECK(got.out[0] == 0.0f);
    CHECK(got.lse[0] == -infinity);
    const Output none = run(c, [](const QueryBlock&, KeyList&) {});
    CHECK(std::all_of(none.out.begin(), none.out.end(), [](float x) { return x == 0.0f; }));
  });
}

TEST_CASE("grouped query heads read their group's keys") {
  Problem p = shape(65, 130, 32, 32, true);
  p.batch = 2, p.heads = 6, p.kv_heads = 2;
  check(Case(p), all_keys, always);
}

TEST_CASE("bands are cut lane by lane") {
  on_every_isa([] {
    for (const auto& [left, right] : {std::pair{0, 0}, {3, 5}, {64, 0}, {0, 17}, {100, 100}, {1000, 1000}, {-3, 9}}) {
      const auto allowed = [left = left, right = right](index_t, index_t i, index_t j) {
        return int{j >= i - left && j <= i + right};
      };
      const auto schedule = [left = left, right = right](const QueryBlock&, KeyList& keys) { keys.all().band(left, right); };
      for (const bool causal : {false, true}) {
        for (const index_t width : {index_t{1}, index_t{200}, anywhere}) {
          Case c(shape(260, 260, 16, 16, causal));
          c.options.keys_per_query = width;
          check(c, schedule, allowed);
        }
      }
      check(Case(shape(100, 260, 16, 16)), schedule, allowed);
    }
  });
}

TEST_CASE("residue classes serve dilated windows") {
  on_every_isa([] {
    for (const index_t step : {2, 3, 7, 64, 500}) {
      Case c(shape(230, 230, 16, 16));
      c.options.queries = QueryBlocks::classes(step);
      const index_t reach = 5 * step;
      const auto schedule = [&](const QueryBlock& block, KeyList& keys) {
        keys.strided(block.first % step, step, c.p.kv_len).band(reach, reach);
      };
      const auto allowed = [&](index_t, index_t i, index_t j) {
        return int{(i - j) % step == 0 && j >= i - reach && j <= i + reach};
      };
      check(c, schedule, allowed);
      c.p.causal = true;
      check(c, schedule, allowed);
    }
  });
}

TEST_CASE("aligned blocks never cross a multiple") {
  on_every_isa([] {
    for (const index_t b : {1, 5, 16, 48, 64, 128, 500}) {
      Case c(shape(300, 300, 16, 16));
      c.options.queries = QueryBlocks::aligned(b);
      check(
          c,
          [&](const QueryBlock& block, KeyList& keys) {
            CHECK((block.first + block.count - 1) / b == block.first / b);
            keys.range((block.first / b - 1) * b, 3 * b);
          },
          [&](index_t, index_t i, index_t j) { return int{std::abs(i / b - j / b) <= 1}; });
    }
  });
}

TEST_CASE("runs may list, repeat, stride, exclude and filter") {
  on_every_isa([] {
    const Case c(shape(150, 150, 16, 16));
    const std::vector<std::int32_t> chosen = {140, 3, 77, 3, 12};
    const auto in_list = [&](index_t j) { return static_cast<int>(std::count(chosen.begin(), chosen.end(), j)); };
    check(
        c, [&](const QueryBlock&, KeyList& keys) { keys.listed(chosen.data(), 5); },
        [&](index_t, index_t, index_t j) { return in_list(j); });
    check(
        c,
        [&](const QueryBlock&, KeyList& keys) {
          keys.all().band(10, 10);
          keys.listed(chosen.data(), 5).outside(10, 10);
        },
        [&](index_t, index_t i, index_t j) { return std::abs(i - j) <= 10 ? 1 : in_list(j); });
    const std::vector<std::int32_t> blocks = {9, 0, 4};
    check(
        c,
        [&](const QueryBlock&, KeyList& keys) {
          keys.listed_blocks(blocks.data(), 3, 16);
          keys.blocks(5, 32, 100, 3);
        },
        [&](index_t, index_t, index_t j) {
          return int{j / 16 == 9 || j / 16 == 0 || j / 16 == 4} + int{j >= 5 && (j - 5) % 32 < 3};
        });
    const auto odd = [](index_t i, index_t j) { return (i * 7 + j * 3) % 5 < 2; };
    check(
        c, [&](const QueryBlock&, KeyList& keys) { keys.all().where(odd); },
        [&](index_t i, index_t, index_t j) { return int{odd(i, j)}; });
  });
}

TEST_CASE("pairs may be excepted bit by bit") {
  on_every_isa([] {
    for (const index_t n : {5, 64, 150}) {  // rows of 48 and of 16 lanes, across words and into the last
      const Case c(shape(n, 150, 16, 16));
      const index_t words = (n + 63) / 64;
      // Whole steps of keys that every query sees, that none does, and that some do.
      const auto hidden = [](index_t i, index_t j) { return j / 16 % 3 == 1 || (j / 16 % 3 == 2 && (i * 7 + j * 3) % 5 < 2); };
      std::vector<std::uint64_t> bits(static_cast<std::size_t>(150 * words));
      for (index_t i = 0; i < n; ++i) {
        for (index_t j = 0; j < 150; ++j)
          bits[static_cast<std::size_t>(j * words + i / 64)] |= std::uint64_t{hidden(i, j)} << (i % 64);
      }
      check(
          c, [&](const QueryBlock&, KeyList& keys) { keys.all().except(bits.data(), words); },
          [&](index_t i, index_t, index_t j) { return int{!hidden(i, j)}; });
      check(
          c, [&](const QueryBlock&, KeyList& keys) { keys.all().except(bits.data(), words).band(20, 10); },
          [&](index_t i, index_t position, index_t j) { return int{!hidden(i, j) && j >= position - 20 && j <= position + 10}; });
    }
  });
}

TEST_CASE("queries may come as lists of rows") {
  on_every_isa([] {
    for (const bool causal : {false, true}) {
      Case c(shape(200, 200, 16, 16, causal));
      std::vector<std::int32_t> order(200);
      for (index_t i = 0; i < 200; ++i) order[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i * 77 % 200);
      c.options.queries = QueryBlocks::listed(3, 90);
      const Output got =
          run_passes(c, {c.options}, [&](const SoftmaxEngine& engine, EngineArrays arrays, const Workspace& workspace) {
            engine.run(
                arrays, workspace,
                [&](index_t, index_t, index_t block) {
                  return std::span<const std::int32_t>(order).subspan(static_cast<std::size_t>(90 * block), block == 2 ? 20 : 90);
                },
                [](const QueryBlock&, KeyList& keys) { keys.all().band(30, 50); });
          });
      const Reference want = reference(c, [](index_t, index_t i, index_t j) { return int{j >= i - 30 && j <= i + 50}; });
      CHECK(distance(got.out, want.out) < 3e-6);
      CHECK(distance(got.lse, want.lse) < 1e-5);
    }
  });
}

TEST_CASE("passes add up by lse") {
  on_every_isa([] {
    Case c(shape(200, 200, 16, 16, true));
    constexpr index_t step = 16;
    EngineOptions columns;
    columns.queries = QueryBlocks::classes(step);
    int pass = 0;
    const Output got = run_passes(
        c, {EngineOptions{}, columns}, [&](const SoftmaxEngine& engine, EngineArrays arrays, const Workspace& workspace) {
          if (pass++ == 0) {
            engine.run(arrays, workspace, [](const QueryBlock&, KeyList& keys) { keys.all().band(12, -2); });
          } else {
            engine.run(arrays, workspace,
                       [](const QueryBlock& block, KeyList& keys) { keys.strided(block.first % step, step, 200).outside(12, -2); });
          }
        });
    const Reference want =
        reference(c, [](index_t, index_t i, index_t j) { return int{(j >= i - 12 && j <= i - 2) || (i - j) % step == 0}; });
    CHECK(distance(got.out, want.out) < 3e-6);
    CHECK(distance(got.lse, want.lse) < 1e-5);
  });
}

TEST_CASE("keys are split where queries are few, with the same bits every time") {
  on_every_isa([] {
    for (const index_t q_len : {1, 5, 100}) {
      for (const int threads : {2, 3, 8}) {
        Case c({.batch = 1,
                .heads = 1,
                .kv_heads = 1,
                .q_len = q_len,
                .kv_len = 2100,
                .head_dim = 16,
                .value_dim = 16,
                .causal = true});
        c.threads = threads;
        check(c, all_keys, always);
        const Output first = run(c, all_keys);
        for (int repeat = 0; repeat < 3; ++repeat) {
          const Output again = run(c, all_keys);
          CHECK(std::memcmp(first.out.data(), again.out.data(), first.out.size() * sizeof(float)) == 0);
          CHECK(std::memcmp(first.lse.data(), again.lse.data(), first.lse.size() * sizeof(float)) == 0);
        }
      }
    }
  });
}

TEST_CASE("threads do not change the result") {
  Case c({.batch = 2, .heads = 3, .kv_heads = 3, .q_len = 700, .kv_len = 700, .head_dim = 32, .value_dim = 32, .causal = true});
  for (const int threads : {1, 2, 5}) {
    c.threads = threads;
    check(c, all_keys, always);
  }
}

TEST_CASE("large logits stay exact") {
  on_every_isa([] {
    for (const double scale : {0.0, 1e-3, 20.0, 80.0, 400.0})
      check(Case(shape(100, 300, 16, 16), scale), all_keys, always, 2e-5 * std::max(1.0, scale / 20));
    // The largest logit last, first, or rising by 200 a key: the reference has to move.
    for (const double slope : {-200.0, -3.0, 3.0, 30.0, 200.0}) {
      Case c(shape(60, 300, 1, 4));
      std::fill(c.q.begin(), c.q.end(), 1.0f);
      for (index_t j = 0; j < 600; ++j) c.k[static_cast<std::size_t>(j)] = static_cast<float>(slope * static_cast<double>(j % 300));
      check(c, all_keys, always, 1e-4);
    }
  });
}

TEST_CASE("logits of eighty either way, and masks made of huge negative logits, stay exact") {
  on_every_isa([] {
    for (const double size : {1.0, 80.0, 1e4, 1e9}) {
      for (const bool some_positive : {false, true}) {
        Case c(shape(70, 300, 1, 4));
        std::fill(c.q.begin(), c.q.end(), 1.0f);
        // Every third key is masked, once all of the first batches are; the others lie around zero, or all are masked.
        for (index_t j = 0; j < 600; ++j) {
          float& k = c.k[static_cast<std::size_t>(j)];
          k = j % 300 < 170 || j % 3 == 0 ? static_cast<float>(-size)
              : some_positive             ? static_cast<float>(std::min(size, 80.0))
                                          : k;
        }
        check(c, all_keys, always, 1e-5);
        std::fill(c.k.begin(), c.k.end(), static_cast<float>(-size));
        check(c, all_keys, always, 1e-5 * std::max(1.0, size));
      }
    }
  });
}

TEST_CASE("a logit of minus infinity has weight zero") {
  on_every_isa([] {
    Case c(shape(70, 300, 1, 4));
    std::fill(c.q.begin(), c.q.end(), 1.0f);
    for (index_t j = 0; j < 600; j += 3) c.k[static_cast<std::size_t>(j)] = -infinity;
    std::fill_n(c.k.begin(), 170, -infinity);
    check(c, all_keys, always, 1e-5);
  });
}

TEST_CASE("a row's bits do not depend on the other rows of its tile") {
  on_every_isa([] {
    // Weights of 2^43 are scaled. The last key, which only the last row sees, takes that row's weights out of range or does not.
    for (const float first_logit : {30.0f, -30.0f}) {
      Case c({.batch = 1, .heads = 1, .kv_heads = 1, .q_len = 90, .kv_len = 90, .head_dim = 3, .value_dim = 5, .causal = true});
      std::fill(c.q.begin(), c.q.end(), 1.7f);
      for (index_t j = 0; j < 90; ++j) c.k_row(j)[0] += first_logit;
      const Output before = run(c, all_keys);
      for (const float last_logit : {1e5f, -1e5f, nan_value}) {
        std::fill_n(c.k_row(89), 3, last_logit);
        const Output after = run(c, all_keys);
        CHECK(std::memcmp(before.out.data(), after.out.data(), 89 * 5 * sizeof(float)) == 0);
        CHECK(std::memcmp(before.lse.data(), after.lse.data(), 89 * sizeof(float)) == 0);
      }
    }
  });
}

TEST_CASE("NaN and infinity reach exactly the rows that see them") {
  on_every_isa([] {
    for (const float poison : {nan_value, infinity, -infinity}) {
      for (const bool in_keys : {true, false}) {
        Case c(shape(130, 130, 16, 16));
        if (in_keys)
          std::fill_n(c.k_row(70), 16, poison);
        else
          std::fill_n(c.v_row(70), 16, poison);
        const auto schedule = [](const QueryBlock&, KeyList& keys) { keys.all().band(20, 9); };
        const Output got = run(c, schedule);
        Case clean(shape(130, 130, 16, 16));
        const Output want = run(clean, schedule);
        for (index_t i = 0; i < 130; ++i) {
          INFO(active_isa() << " keys=" << in_keys << " poison=" << poison << " i=" << i);
          const bool sees = 70 >= i - 20 && 70 <= i + 9;
          for (index_t x = 0; x < 16; ++x) {
            const auto at = static_cast<std::size_t>(i * 16 + x);
            if (!sees)
              CHECK(std::memcmp(&got.out[at], &want.out[at], sizeof(float)) == 0);
            else if (std::isnan(poison))
              CHECK(std::isnan(got.out[at]));
            else if (!in_keys)
              CHECK(got.out[at] == poison);
          }
        }
      }
    }
    Case c(shape(60, 60, 16, 16));
    c.q[5 * 16 + 3] = nan_value;
    const Output got = run(c, all_keys);
    for (index_t i = 0; i < 60; ++i) CHECK(std::isnan(got.out[static_cast<std::size_t>(i * 16)]) == (i == 5));
  });
}

TEST_CASE("denormal inputs count as zero and leave no trace in the thread") {
  on_every_isa([] {
    Case c(shape(20, 20, 16, 16));
    for (std::size_t i = 0; i < c.v.size(); i += 3) c.v[i] = 1e-41f;
    for (std::size_t i = 0; i < c.k.size(); i += 5) c.k[i] = 1e-40f;
    check(c, all_keys, always);
    volatile float tiny = 1e-30f;
    CHECK(tiny * 1e-10f != 0.0f);
  });
}

TEST_CASE("strided views are read and written in place") {
  const Case c(shape(100, 100, 32, 32, true));
  const Problem& p = c.p;
  // [B,N,H,D] in memory, seen as [B,H,N,D], with a margin after each row.
  const index_t row = p.heads * p.head_dim + 5;
  const auto spread = [&](const std::vector<float>& from) {
    std::vector<float> to(static_cast<std::size_t>(p.q_len * row), nan_value);
    for (index_t h = 0; h < p.heads; ++h)
      for (index_t i = 0; i < p.q_len; ++i)
        for (index_t x = 0; x < p.head_dim; ++x)
          to[static_cast<std::size_t>(i * row + h * p.head_dim + x)] =
              from[static_cast<std::size_t>((h * p.q_len + i) * p.head_dim + x)];
    return to;
  };
  const std::vector<float> q = spread(c.q), k = spread(c.k), v = spread(c.v);
  std::vector<float> out(q.size(), 42.0f);
  const std::array<index_t, 4> extents{1, p.heads, p.q_len, p.head_dim}, strides{p.q_len * row, p.head_dim, row, 1};
  WorkspacePlan plan(1);
  const SoftmaxEngine engine(p, {}, plan);
  const Workspace workspace(plan, Workspace::Mode::checked);
  Arena(1).execute([&] {
    engine.run(
        {{q.data(), extents, strides}, {k.data(), extents, strides}, {v.data(), extents, strides}, {out.data(), extents, strides}},
        workspace, all_keys);
  });
  std::vector<float> want = spread(run(c, all_keys).out);
  for (std::size_t i = 0; i < out.size(); ++i) CHECK(out[i] == (std::isnan(want[i]) ? 42.0f : want[i]));
}

// Such rows all fall into the same few sets of a cache, so the engine treats them apart.
TEST_CASE("rows 4 KiB apart give the bits of dense rows") {
  on_every_isa([] {
    const Case c(shape(150, 333, 24, 40));
    const Problem& p = c.p;
    constexpr index_t row = 1024;
    const auto spread = [&](const std::vector<float>& from, index_t rows, index_t floats) {
      std::vector<float> to(static_cast<std::size_t>(p.heads * rows * row), nan_value);
      for (index_t r = 0; r < p.heads * rows; ++r) std::copy_n(from.begin() + r * floats, floats, to.begin() + r * row);
      return to;
    };
    const std::vector<float> k = spread(c.k, p.kv_len, p.head_dim), v = spread(c.v, p.kv_len, p.value_dim);
    const auto narrow = [](const QueryBlock&, KeyList& keys) { keys.all().band(40, 30); };
    const auto lists = [](const QueryBlock&, KeyList& keys) {
      keys.strided(1, 3, 50);
      keys.blocks(7, 100, 3, 11);
    };
    for (const KeySchedule schedule : {KeySchedule(all_keys), KeySchedule(narrow), KeySchedule(lists)}) {
      for (const bool k_apart : {false, true}) {
        for (const bool v_apart : {false, true}) {
          const Output dense = run(c, schedule);
          const Output apart =
              run_passes(c, {c.options}, [&](const SoftmaxEngine& engine, EngineArrays arrays, const Workspace& workspace) {
                if (k_apart)
                  arrays.k = {k.data(), {1, p.heads, p.kv_len, p.head_dim}, {p.heads * p.kv_len * row, p.kv_len * row, row, 1}};
                if (v_apart)
                  arrays.v = {v.data(), {1, p.heads, p.kv_len, p.value_dim}, {p.heads * p.kv_len * row, p.kv_len * row, row, 1}};
                engine.run(arrays, workspace, schedule);
              });
          CHECK(std::memcmp(dense.out.data(), apart.out.data(), dense.out.size() * sizeof(float)) == 0);
          CHECK(std::memcmp(dense.lse.data(), apart.lse.data(), dense.lse.size() * sizeof(float)) == 0);
        }
      }
    }
  });
}
