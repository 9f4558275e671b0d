// The engine's backward pass against the formulas of softmax attention in double, over lists of keys that no variant has.
#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "attn/core/rng.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "attn/kernels/softmax/engine.hpp"
#include "catch.hpp"

using namespace attn;
using namespace attn::kernels;

namespace {

using Times = std::function<int(index_t row, index_t position, index_t key)>;  // how often the query sees the key
using Schedule = std::function<void(const QueryBlock&, KeyList&)>;

struct Sample {
  Problem p;
  std::vector<float> q, k, v, d_out, out, d_q, d_k, d_v;

  explicit Sample(const Problem& problem) : p(problem) {
    const index_t queries = p.batch * p.heads * p.q_len, keys = p.batch * p.kv_heads * p.kv_len;
    q = normals(queries * p.head_dim, 1);
    k = normals(keys * p.head_dim, 2);
    v = normals(keys * p.value_dim, 3);
    d_out = normals(queries * p.value_dim, 4);
    out.assign(d_out.size(), std::nanf(""));
    d_q.assign(q.size(), std::nanf(""));
    d_k.assign(k.size(), std::nanf(""));
    d_v.assign(v.size(), std::nanf(""));
  }
  static std::vector<float> normals(index_t count, std::uint64_t stream) {
    const Rng rng(7, stream);
    std::vector<float> values(static_cast<std::size_t>(count));
    for (index_t i = 0; i < count; ++i) values[static_cast<std::size_t>(i)] = static_cast<float>(rng.normal(i));
    return values;
  }
  View<float, 4> queries(std::vector<float>& x, index_t d) const { return {x.data(), {p.batch, p.heads, p.q_len, d}}; }
  View<float, 4> keys(std::vector<float>& x, index_t d) const { return {x.data(), {p.batch, p.kv_heads, p.kv_len, d}}; }
  EngineArrays forward() { return {queries(q, p.head_dim), keys(k, p.head_dim), keys(v, p.value_dim), queries(out, p.value_dim)}; }
  EngineGradients gradients() {
    return {queries(out, p.value_dim), queries(d_out, p.value_dim), queries(d_q, p.head_dim), keys(d_k, p.head_dim),
            keys(d_v, p.value_dim)};
  }
};

struct Expected {
  std::vector<double> d_q, d_k, d_v;
};

Expected expected(const Sample& a, const Times& times) {
  const Problem& p = a.p;
  Expected e{std::vector<double>(a.q.size()), std::vector<double>(a.k.size()), std::vector<double>(a.v.size())};
  const auto at = [](index_t row, index_t width, index_t x) { return static_cast<std::size_t>(row * width + x); };
  for (index_t head = 0; head < p.batch * p.heads; ++head) {
    const index_t kv = (head / p.heads * p.kv_heads + p.kv_head(head % p.heads)) * p.kv_len;
    for (index_t i = 0; i < p.q_len; ++i) {
      const index_t row = head * p.q_len + i, position = p.query_position(i);
      std::vector<double> w(static_cast<std::size_t>(p.kv_len)), dw(w.size());
      double sum = 0, mean = 0;
      for (index_t j = 0; j < p.kv_len; ++j) {
        const auto at_j = static_cast<std::size_t>(j);
        double dot = 0;
        for (index_t x = 0; x < p.head_dim; ++x)
          dot += double{a.q[at(row, p.head_dim, x)]} * double{a.k[at(kv + j, p.head_dim, x)]};
        for (index_t x = 0; x < p.value_dim; ++x) {
          dw[at_j] += double{a.d_out[at(row, p.value_dim, x)]} * double{a.v[at(kv + j, p.value_dim, x)]};
        }
        w[at_j] = p.causal && j > position ? 0 : times(i, position, j) * std::exp(dot * p.scale());
        sum += w[at_j];
      }
      if (sum == 0) continue;
      for (double& weight : w) weight /= sum;
      for (std::size_t j = 0; j < w.size(); ++j) mean += w[j] * dw[j];
      for (index_t j = 0; j < p.kv_len; ++j) {
        const auto at_j = static_cast<std::size_t>(j);
        const double ds = w[at_j] * (dw[at_j] - mean) * p.scale();
        for (index_t x = 0; x < p.head_dim; ++x) {
          e.d_q[at(row, p.head_dim, x)] += ds * double{a.k[at(kv + j, p.head_dim, x)]};
          e.d_k[at(kv + j, p.head_dim, x)] += ds * double{a.q[at(row, p.head_dim, x)]};
        }
        for (index_t x = 0; x < p.value_dim; ++x)
          e.d_v[at(kv + j, p.value_dim, x)] += w[at_j] * double{a.d_out[at(row, p.value_dim, x)]};
      }
    }
  }
  return e;
}

void check_near(const std::vector<float>& got, const std::vector<double>& want) {
  double error = 0, size = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    error += std::pow(double{got[i]} - want[i], 2);
    size += want[i] * want[i];
  }
  CHECK(std::sqrt(error) <= 1e-5 * std::sqrt(size));
}

std::vector<std::pair<std::string, int>> isas_and_threads() {
  std::vector<std::pair<std::string, int>> list;
  for (const std::string& isa : available_isas()) list.insert(list.end(), {{isa, 1}, {isa, 3}});
  return list;
}

void check(const Problem& p, const EngineOptions& options, const Schedule& schedule, const Times& times) {
  for (const auto& [isa, threads] : isas_and_threads()) {
    REQUIRE(force_isa(isa));
    INFO(to_string(p) << " isa=" << active_isa() << " threads=" << threads);
    Sample a(p);
    WorkspacePlan plan(threads, Pass::forward_backward);
    const SoftmaxEngine engine(p, options, plan);
    const Workspace workspace(plan, Workspace::Mode::checked);
    Arena(threads).execute([&] {
      engine.run(a.forward(), workspace, schedule);
      engine.backward(a.forward(), a.gradients(), workspace, schedule);
    });
    CHECK(workspace.gaps_intact());
    const Expected e = expected(a, times);
    check_near(a.d_q, e.d_q);
    check_near(a.d_k, e.d_k);
    check_near(a.d_v, e.d_v);
  }
  REQUIRE(force_isa(""));
}

Problem shape(index_t n, index_t m, index_t d, index_t dv, bool causal = false) {
  return {.batch = 2, .heads = 2, .kv_heads = 1, .q_len = n, .kv_len = m, .head_dim = d, .value_dim = dv, .causal = causal};
}

}  // namespace

TEST_CASE("A key listed twice counts twice on the way back", "[kernels]") {
  check(
      shape(90, 70, 16, 24), {},
      [](const QueryBlock&, KeyList& keys) {
        keys.all();
        keys.range(10, 21);
      },
      [](index_t, index_t, index_t j) { return 1 + (j >= 10 && j < 31); });
}

TEST_CASE("Gradients flow through bands, scattered keys and predicates", "[kernels]") {
  static const std::int32_t listed[] = {61, 3, 40, 17, 5};
  const auto odd = [](index_t row, index_t key) { return (row + key) % 3 != 0; };
  for (const bool causal : {false, true}) {
    check(
        shape(130, 130, 33, 7, causal), {.keys_per_query = 20},
        [&](const QueryBlock&, KeyList& keys) {
          keys.all().band(9, 4);
          keys.listed(listed, 5).outside(9, 4);
          keys.strided(1, 11, 12).where(odd);
        },
        [&](index_t i, index_t at, index_t j) {
          const bool near = at - j <= 9 && j - at <= 4;
          const bool far = !near && std::find(std::begin(listed), std::end(listed), j) != std::end(listed);
          return static_cast<int>(near) + far + (j % 11 == 1 && odd(i, j));
        });
  }
}

TEST_CASE("Queries that see nothing have no gradient and give none", "[kernels]") {
  check(
      shape(40, 25, 8, 8, true), {}, [](const QueryBlock&, KeyList& keys) { keys.range(6, 9); },
      [](index_t, index_t, index_t j) { return j >= 6 && j < 15; });
}

TEST_CASE("Rows left out give no gradient, and what follows is added", "[kernels]") {
  const Problem p = shape(100, 100, 16, 16);
  const std::vector<std::int32_t> others = {0, 7, 50, 99};
  const auto few = [](const QueryBlock&, KeyList& keys) { keys.range(20, 30); };
  const auto list = [&](index_t, index_t, index_t) { return std::span<const std::int32_t>(others); };
  Sample a(p);
  WorkspacePlan plan(2, Pass::forward_backward);
  const SoftmaxEngine most(p, {}, plan), rest(p, {.queries = QueryBlocks::listed(1, 4)}, plan);
  const Workspace workspace(plan, Workspace::Mode::checked);
  Arena(2).execute([&] {
    most.run(a.forward(), workspace, few);
    rest.run(a.forward(), workspace, list, all_keys);
    most.leave_out(others, workspace);
    EngineGradients gradients = a.gradients();
    most.backward(a.forward(), gradients, workspace, few);
    gradients.add = true;
    rest.backward(a.forward(), gradients, workspace, list, all_keys);
  });
  CHECK(workspace.gaps_intact());
  const Expected e = expected(a, [&](index_t i, index_t, index_t j) {
    return std::find(others.begin(), others.end(), i) != others.end() || (j >= 20 && j < 50);
  });
  check_near(a.d_q, e.d_q);
  check_near(a.d_k, e.d_k);
  check_near(a.d_v, e.d_v);
}

TEST_CASE("The backward pass books memory that grows with the length, not with its square", "[kernels]") {
  const auto booked = [](index_t n) {
    WorkspacePlan plan(2, Pass::forward_backward);
    const SoftmaxEngine engine({.batch = 1, .heads = 1, .kv_heads = 1, .q_len = n, .kv_len = n}, {}, plan);
    return plan.bytes();
  };
  const double grown = static_cast<double>(booked(16384) - booked(8192)) / static_cast<double>(booked(32768) - booked(16384));
  CHECK(grown == Approx(0.5).margin(0.01));
  CHECK(booked(16384) < index_t{16384} * 16384 * 4 / 16);
}
