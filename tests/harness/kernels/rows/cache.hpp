// Queries against a cache of keys and values for tests of the rows engine: strided, with NaN wherever nothing must be read, and
// the same attention in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "attn/core/rng.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "attn/kernels/rows/rows_engine.hpp"
#include "catch.hpp"

namespace attn::kernels::test {

inline constexpr float unset = std::numeric_limits<float>::quiet_NaN();

struct Decode {
  // sees(batch, kv head, query, key): besides causality.
  using Sees = std::function<bool(index_t, index_t, index_t, index_t)>;

  explicit Decode(const Problem& problem, std::vector<index_t> of_each = {}, float size = 1.0f)
      : p(problem), lengths(std::move(of_each)) {
    if (lengths.empty()) lengths.assign(static_cast<std::size_t>(p.batch), p.kv_len);
    q = random(p.batch * p.heads * p.q_len, p.head_dim, size, 1);
    k = random(p.batch * p.kv_heads * p.kv_len, p.head_dim, 1, 2);
    v = random(p.batch * p.kv_heads * p.kv_len, p.value_dim, 1, 3);
    out.assign(static_cast<std::size_t>(p.batch * p.heads * p.q_len * (p.value_dim + gap)), unset);
    lse.assign(static_cast<std::size_t>(p.batch * p.heads * p.q_len), unset);
    for (index_t b = 0; b < p.batch; ++b) {
      for (index_t h = 0; h < p.kv_heads; ++h) {
        for (index_t j = length(b); j < p.kv_len; ++j) {
          std::fill_n(key(b, h, j), p.head_dim, unset);
          std::fill_n(value(b, h, j), p.value_dim, unset);
        }
      }
    }
  }

  index_t length(index_t b) const { return lengths[static_cast<std::size_t>(b)]; }
  float* query(index_t b, index_t h, index_t i) { return q.data() + ((b * p.heads + h) * p.q_len + i) * (p.head_dim + gap); }
  float* key(index_t b, index_t h, index_t j) { return k.data() + ((b * p.kv_heads + h) * p.kv_len + j) * (p.head_dim + gap); }
  float* value(index_t b, index_t h, index_t j) { return v.data() + ((b * p.kv_heads + h) * p.kv_len + j) * (p.value_dim + gap); }
  float* result(index_t b, index_t h, index_t i) { return out.data() + ((b * p.heads + h) * p.q_len + i) * (p.value_dim + gap); }

  RowsArrays arrays() {
    const auto view = [&](std::vector<float>& x, index_t heads, index_t rows, index_t width) {
      const index_t stride = width + gap;
      return View<float, 4>(x.data(), {p.batch, heads, rows, width}, {heads * rows * stride, rows * stride, stride, 1});
    };
    return {.q = view(q, p.heads, p.q_len, p.head_dim),
            .k = view(k, p.kv_heads, p.kv_len, p.head_dim),
            .v = view(v, p.kv_heads, p.kv_len, p.value_dim),
            .out = view(out, p.heads, p.q_len, p.value_dim),
            .lse = {lse.data(), {p.batch, p.heads, p.q_len}}};
  }

  // Runs on so many threads, in memory that is NaN before. `arrays` and `schedule` where not the plain ones.
  void run(int threads = 1, const RowsArrays* other = nullptr, const RowsEngine::Schedule* schedule = nullptr,
           const RowsOptions& options = {}) {
    std::fill(out.begin(), out.end(), unset);
    std::fill(lse.begin(), lse.end(), unset);
    WorkspacePlan plan(threads);
    const RowsEngine engine(p, options, plan);
    const Workspace workspace(plan, Workspace::Mode::checked);
    const RowsArrays own = arrays();
    Arena(threads).execute([&] {
      if (schedule != nullptr)
        engine.run(other != nullptr ? *other : own, lengths, workspace, *schedule);
      else
        engine.run(other != nullptr ? *other : own, lengths, workspace);
    });
    CHECK(workspace.gaps_intact());
  }

  // The largest difference from the same in double, over the largest value; infinite where zeros or NaN are not where they belong.
  double error(const Sees& sees = {}) {
    double worst = 0, top = 1e-30;
    for (index_t b = 0; b < p.batch; ++b) {
      for (index_t h = 0; h < p.heads; ++h) {
        for (index_t i = 0; i < p.q_len; ++i) {
          double log_sum = 0;
          const std::vector<double> expected = by_hand(b, h, i, sees, log_sum);
          const float found = lse[static_cast<std::size_t>((b * p.heads + h) * p.q_len + i)];
          if (std::isinf(log_sum) ? static_cast<double>(found) != log_sum
                                  : !(std::abs(static_cast<double>(found) - log_sum) < 1e-5 * (1 + std::abs(log_sum))))
            return INFINITY;
          for (index_t c = 0; c < p.value_dim + gap; ++c) {
            const auto x = static_cast<double>(result(b, h, i)[c]);
            if (c >= p.value_dim) {
              if (!std::isnan(x)) return INFINITY;
              continue;
            }
            const double e = expected[static_cast<std::size_t>(c)];
            if (std::isinf(log_sum) && x != 0) return INFINITY;
            if (!(std::abs(x - e) <= worst)) worst = std::abs(x - e);
            top = std::max(top, std::abs(e));
          }
        }
      }
    }
    return worst / top;
  }

  Problem p;
  std::vector<index_t> lengths;
  std::vector<float> q, k, v, out, lse;
  double scale = p.scale();

  static constexpr index_t gap = 3;  // NaN between rows

 private:
  static std::vector<float> random(index_t rows, index_t width, float size, std::uint64_t stream) {
    std::vector<float> x(static_cast<std::size_t>(rows * (width + gap)), unset);
    const Rng rng(11, stream);
    for (index_t i = 0; i < rows; ++i) {
      for (index_t c = 0; c < width; ++c)
        x[static_cast<std::size_t>(i * (width + gap) + c)] = size * static_cast<float>(rng.normal(i * width + c));
    }
    return x;
  }

  std::vector<double> by_hand(index_t b, index_t h, index_t i, const Sees& sees, double& log_sum) {
    const index_t kv_head = p.kv_head(h);
    std::vector<std::pair<index_t, double>> logits;
    double most = -INFINITY;
    for (index_t j = 0; j < length(b); ++j) {
      if (p.causal && j > length(b) - p.q_len + i) continue;
      if (sees && !sees(b, kv_head, i, j)) continue;
      double dot = 0;
      for (index_t c = 0; c < p.head_dim; ++c)
        dot += static_cast<double>(query(b, h, i)[c]) * static_cast<double>(key(b, kv_head, j)[c]);
      logits.emplace_back(j, dot * scale);
      most = std::max(most, dot * scale);
    }
    std::vector<double> sum(static_cast<std::size_t>(p.value_dim));
    double total = 0;
    for (const auto& [j, logit] : logits) {
      const double weight = std::exp(logit - most);
      total += weight;
      for (index_t c = 0; c < p.value_dim; ++c)
        sum[static_cast<std::size_t>(c)] += weight * static_cast<double>(value(b, kv_head, j)[c]);
    }
    for (double& x : sum) x = logits.empty() ? 0 : x / total;
    log_sum = logits.empty() ? -INFINITY : most + std::log(total);
    return sum;
  }
};

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

template <class F>
void on_every_isa(F f) {
  for (const auto& isa : available_isas()) {
    DYNAMIC_SECTION(isa) {
      REQUIRE(force_isa(isa));
      f();
      REQUIRE(force_isa(""));
    }
  }
}

}  // namespace attn::kernels::test
