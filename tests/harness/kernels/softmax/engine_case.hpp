// Problems for the softmax engine, and what they come to in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "attn/core/rng.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "attn/kernels/softmax/engine.hpp"
#include "catch.hpp"

namespace attn::kernels::engine_case {

inline constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();
inline constexpr float infinity = std::numeric_limits<float>::infinity();

using Allowed = std::function<int(index_t row, index_t position, index_t key)>;  // how often the query sees the key

inline std::vector<float> normals(index_t count, std::uint64_t stream, double scale = 1) {
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
inline Output run_passes(const Case& c, const std::vector<EngineOptions>& passes, const Run& run) {
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

inline Output run(const Case& c, KeySchedule schedule) {
  return run_passes(c, {c.options}, [&](const SoftmaxEngine& engine, EngineArrays arrays, const Workspace& workspace) {
    engine.run(arrays, workspace, schedule);
  });
}

struct Reference {
  std::vector<double> out, lse;
};

inline Reference reference(const Case& c, const Allowed& allowed) {
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
inline double distance(const std::vector<float>& got, const std::vector<double>& want) {
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

inline void check(const Case& c, KeySchedule schedule, const Allowed& allowed, double tolerance = 3e-6) {
  const Output got = run(c, schedule);
  const Reference want = reference(c, allowed);
  INFO(to_string(c.p) << " isa=" << active_isa() << " threads=" << c.threads);
  CHECK(distance(got.out, want.out) < tolerance);
  CHECK(distance(got.lse, want.lse) < 4 * tolerance);
}

inline Problem shape(index_t q_len, index_t kv_len, index_t head_dim, index_t value_dim, bool causal = false) {
  return {.batch = 1,
          .heads = 2,
          .kv_heads = 2,
          .q_len = q_len,
          .kv_len = kv_len,
          .head_dim = head_dim,
          .value_dim = value_dim,
          .causal = causal};
}

inline int always(index_t, index_t, index_t) { return 1; }

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

}  // namespace attn::kernels::engine_case
