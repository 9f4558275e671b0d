#include "attn/kernels/dense/weighted_sum.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "attn/kernels/softmax/additive.hpp"
#include "catch.hpp"
#include "harness/kernels/matrix.hpp"

using namespace attn;
using namespace attn::kernels;
using namespace attn::kernels::test;

namespace {

struct Heads {
  Heads(index_t batch, index_t heads, index_t n, index_t d, std::uint64_t stream)
      : extents{batch, heads, n, d}, values(static_cast<std::size_t>(batch * heads * n * d)) {
    const Rng rng(5, stream);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(rng.normal(static_cast<index_t>(i)));
  }
  View<const float, 4> view() const { return {values.data(), extents}; }
  View<float, 4> writable() { return {values.data(), extents}; }
  std::array<index_t, 4> extents;
  std::vector<float> values;
};

Problem problem(index_t batch, index_t heads, index_t kv_heads, index_t n, index_t m, index_t dv, bool causal) {
  return {.batch = batch,
          .heads = heads,
          .kv_heads = kv_heads,
          .q_len = n,
          .kv_len = m,
          .head_dim = 1,
          .value_dim = dv,
          .causal = causal};
}

// Weights of row i from what the caller gave for its keys: as documented.
std::vector<double> row_of(WeightedSum::Kind kind, const Problem& p, index_t i, const float* given) {
  const index_t seen = p.causal ? std::clamp<index_t>(p.query_position(i) + 1, 0, p.kv_len) : p.kv_len;
  std::vector<double> row(static_cast<std::size_t>(p.kv_len), 0.0);
  std::copy_n(given, seen, row.begin());
  if (kind != WeightedSum::Kind::softmax) return row;
  double sum = 0;
  for (index_t j = 0; j < seen; ++j) sum += row[static_cast<std::size_t>(j)] = std::exp(row[static_cast<std::size_t>(j)]);
  for (double& w : row) w /= std::max(sum, 1e-300);
  return row;
}

double worst_sum(const Problem& p, WeightedSum::Kind kind, WeightedSum::Sharing sharing, int threads) {
  const bool per_batch = sharing == WeightedSum::Sharing::none, per_head = sharing != WeightedSum::Sharing::all;
  Heads table(per_batch ? p.batch : 1, per_head ? p.heads : 1, p.q_len, p.kv_len, 1);
  const Heads values(p.batch, p.kv_heads, p.kv_len, p.value_dim, 2);
  Heads out(p.batch, p.heads, p.q_len, p.value_dim, 3);
  std::fill(out.values.begin(), out.values.end(), unset);
  const auto weights_of = [&](index_t b, index_t h, index_t i) {
    return table.writable()[per_batch ? b : 0][per_head ? h : 0].row(i);
  };
  if (kind == WeightedSum::Kind::table) {  // holds zeros itself
    for (index_t i = 0; i < p.q_len && p.causal; ++i) {
      const index_t seen = std::clamp<index_t>(p.query_position(i) + 1, 0, p.kv_len);
      for (index_t b = 0; b < table.extents[0]; ++b)
        for (index_t h = 0; h < table.extents[1]; ++h) std::fill_n(weights_of(b, h, i) + seen, p.kv_len - seen, 0.0f);
    }
  }
  WorkspacePlan booked(threads);
  const WeightedSum engine(p, kind, sharing, booked);
  const Workspace workspace(booked, Workspace::Mode::checked);
  Arena(threads).execute([&] {
    engine.run(values.view(), out.writable(), workspace, [&](const WeightBlock& block) -> Rows {
      if (kind == WeightedSum::Kind::table) return {weights_of(block.batch, block.head, block.first), p.kv_len};
      for (index_t r = 0; r < block.rows; ++r)
        std::copy_n(weights_of(block.batch, block.head, block.first + r), block.keys, block.to.data + r * block.to.stride);
      return block.to;
    });
  });
  CHECK(workspace.gaps_intact());
  double error = 0;
  for (index_t b = 0; b < p.batch; ++b) {
    for (index_t h = 0; h < p.heads; ++h) {
      for (index_t i = 0; i < p.q_len; ++i) {
        const std::vector<double> row = row_of(kind, p, i, weights_of(b, h, i));
        for (index_t c = 0; c < p.value_dim; ++c) {
          double sum = 0;
          for (index_t j = 0; j < p.kv_len; ++j)
            sum += row[static_cast<std::size_t>(j)] * static_cast<double>(values.view()(b, p.kv_head(h), j, c));
          const double difference = std::abs(static_cast<double>(out.view()(b, h, i, c)) - sum);
          error = std::isfinite(difference) ? std::max(error, difference) : INFINITY;
        }
      }
    }
  }
  return error;
}

}  // namespace

TEST_CASE("weighted_sum: the weights that were given times the values, for every kind and sharing") {
  on_every_isa([] {
    for (const auto kind : {WeightedSum::Kind::softmax, WeightedSum::Kind::weights, WeightedSum::Kind::table}) {
      for (const auto sharing : {WeightedSum::Sharing::none, WeightedSum::Sharing::batch, WeightedSum::Sharing::all}) {
        for (const bool causal : {false, true}) {
          for (const auto& [n, m] : {std::pair<index_t, index_t>{1, 1}, {65, 130}, {200, 97}, {97, 257}}) {
            INFO("kind=" << static_cast<int>(kind) << " sharing=" << static_cast<int>(sharing) << " causal=" << causal << " N=" << n
                         << " M=" << m);
            const index_t kv_heads = sharing == WeightedSum::Sharing::all ? 4 : 2;
            CHECK(worst_sum(problem(2, 4, kv_heads, n, m, n == 65 ? 24 : 64, causal), kind, sharing, n == 97 ? 3 : 1) < 2e-4);
          }
        }
      }
    }
  });
}

TEST_CASE("weighted_sum: queries before the first key see none, and give zeros") {
  for (const auto kind : {WeightedSum::Kind::softmax, WeightedSum::Kind::weights}) {
    CHECK(worst_sum(problem(1, 1, 1, 300, 50, 16, true), kind, WeightedSum::Sharing::none, 1) < 1e-4);
  }
}

TEST_CASE("transpose_heads: element (d, m) is element (m, d)") {
  on_every_isa([] {
    for (const index_t m : {1, 100, 256, 300}) {
      const Heads x(2, 3, m, 20, 1);
      Heads to(2, 3, 20, m, 2);
      Arena(2).execute([&] { transpose_heads(x.view(), to.writable()); });
      bool same = true;
      for (index_t h = 0; h < 6; ++h)
        for (index_t i = 0; i < m; ++i)
          for (index_t d = 0; d < 20; ++d) same = same && to.view()(h / 3, h % 3, d, i) == x.view()(h / 3, h % 3, i, d);
      CHECK(same);
    }
  });
}

// Sizes that are no multiple of four are padded with weights of zero.
TEST_CASE("additive: softmax of w.tanh(q W + k U), whatever the size of the layer") {
  on_every_isa([] {
    for (const index_t size : {1, 4, 7, 64}) {
      for (const bool causal : {false, true}) {
        Problem p = problem(2, 4, 2, 33, 70, 20, causal);
        p.head_dim = 16;
        const Heads q(2, 4, 33, 16, 1), k(2, 2, 70, 16, 2), v(2, 2, 70, 20, 3), w(1, 4, 16, size, 4), u(1, 4, 16, size, 5);
        const Heads weights(1, 1, 4, size, 6);
        Heads out(2, 4, 33, 20, 7);
        std::fill(out.values.begin(), out.values.end(), unset);
        WorkspacePlan booked(2);
        const AdditiveAttention engine(p, size, booked);
        const Workspace workspace(booked, Workspace::Mode::checked);
        Arena(2).execute([&] {
          engine.run({{.q = q.view(), .k = k.view(), .v = v.view(), .out = out.writable()},
                      w.view()[0],
                      u.view()[0],
                      weights.view()[0][0]},
                     workspace);
        });
        CHECK(workspace.gaps_intact());
        const auto project = [&](const Heads& x, const Heads& by, index_t b, index_t head, index_t h, index_t i, index_t c) {
          double sum = 0;
          for (index_t d = 0; d < 16; ++d)
            sum += static_cast<double>(x.view()(b, head, i, d)) * static_cast<double>(by.view()(0, h, d, c));
          return sum;
        };
        double error = 0;
        for (index_t b = 0; b < 2; ++b) {
          for (index_t h = 0; h < 4; ++h) {
            for (const index_t i : {0, 17, 32}) {
              const index_t seen = causal ? p.query_position(i) + 1 : p.kv_len;
              std::vector<double> row(static_cast<std::size_t>(seen), 0.0);
              double total = 0;
              for (index_t j = 0; j < seen; ++j) {
                double& logit = row[static_cast<std::size_t>(j)];
                for (index_t c = 0; c < size; ++c)
                  logit += static_cast<double>(weights.view()(0, 0, h, c)) *
                           std::tanh(project(q, w, b, h, h, i, c) + project(k, u, b, p.kv_head(h), h, j, c));
                total += logit = std::exp(logit);
              }
              for (index_t c = 0; c < 20; ++c) {
                double sum = 0;
                for (index_t j = 0; j < seen; ++j)
                  sum += row[static_cast<std::size_t>(j)] / total * static_cast<double>(v.view()(b, p.kv_head(h), j, c));
                const double difference = std::abs(static_cast<double>(out.view()(b, h, i, c)) - sum);
                error = std::isfinite(difference) ? std::max(error, difference) : INFINITY;
              }
            }
          }
        }
        INFO("size=" << size << " causal=" << causal);
        CHECK(error < 1e-4);
      }
    }
  });
}
