// Properties of outputs: that they are the definition's, whatever the problem and the values, and depend on nothing else.
#include <fmt/format.h>

#include <algorithm>
#include <cfenv>
#include <cfloat>
#include <cmath>

#include "attn/core/rng.hpp"
#include "attn/prove/conformance_checker.hpp"
#include "attn/prove/difference.hpp"
#include "attn/prove/sampled_rows.hpp"

namespace attn::conformance {

namespace {

void scale(const View<float, 4>& view, float factor) {
  for_each_element(view, 0, 0, 0, [&](float& x) { x *= factor; });
}

// What the floating-point unit is told to do.
struct FloatingPoint {
  int rounding = std::fegetround();
  bool denormals = [] {
    volatile float smallest = FLT_MIN;
    return smallest / 2 > 0;
  }();
  bool operator==(const FloatingPoint&) const = default;
};

std::vector<Problem> small_problems() {
  std::vector<Problem> list;
  for (const bool causal : {false, true}) {
    list.push_back(
        {.batch = 2, .heads = 2, .kv_heads = 2, .q_len = 65, .kv_len = 65, .head_dim = 16, .value_dim = 16, .causal = causal});
    list.push_back(
        {.batch = 1, .heads = 2, .kv_heads = 2, .q_len = 192, .kv_len = 192, .head_dim = 64, .value_dim = 64, .causal = causal});
  }
  return list;
}

std::vector<Problem> random_problems(index_t count) {
  std::vector<Problem> list;
  const Rng rng(5, "random problems");
  index_t drawn = 0;
  const auto below = [&](index_t n) { return rng.below(drawn++, n); };
  const auto one_of = [&](std::initializer_list<index_t> values) {
    return values.begin()[below(static_cast<index_t>(values.size()))];
  };
  for (index_t i = 0; i < count; ++i) {
    Problem p{};
    p.batch = 1 + below(3);
    p.heads = 1 + below(6);
    p.kv_heads = below(3) > 0 ? p.heads : 1 + below(p.heads);
    p.q_len = one_of({1, 2, 16, 64, 128, 1 + below(20), 1 + below(200), 1 + below(200)});
    p.kv_len = below(3) > 0 ? p.q_len : 1 + below(200);
    p.head_dim = one_of({8, 16, 32, 64, 1 + below(96), 250 + below(12)});
    p.value_dim = below(3) > 0 ? p.head_dim : 1 + below(96);
    p.causal = below(2) == 0;
    list.push_back(p);
  }
  return list;
}

Tensor<float> multiples(const Tensor<float>& t) {
  return tabulate<float>(t.shape(),
                         [&](index_t b, index_t h, index_t i, index_t d) { return std::round(t(b, h, i, d) * 64) / 64; });
}

}  // namespace

index_t Checker::groups_of(const Problem& p) const { return p.batch * (variant_.info().heads_independent ? p.kv_heads : 1); }

bool Checker::linear_in_v(const Problem& p) {
  const Case c = case_of(p);
  const ParameterSet<double> parameters = widen(parameters_of(p));
  Values<double> in = take_values<double>(p, c.arrays(), all_rows(p.q_len));
  const Tensor<double> v = in.v, w = flip(v, 2);
  const auto of = [&](const Tensor<double>& values) {
    in.v = values;
    return variant_.definition(p, in, parameters);
  };
  const Tensor<double> together = of(v * 3.0 - w * 2.0), apart = of(v) * 3.0 - of(w) * 2.0;
  double largest = 0, difference = 0;
  for (index_t i = 0; i < together.size(); ++i) {
    largest = std::max(largest, std::abs(together.data()[i]));
    difference = std::max(difference, std::abs(together.data()[i] - apart.data()[i]));
  }
  return difference <= 1e-9 * largest;
}

// Against the definition at inputs of this case, wherever the definition in float is finite. Rounding a logit of 300 moves
// its weight by some 1e-5, and the definition in float is one draw of that, of six binary orders: hence the thousandth of
// the largest output. Below the smallest normal number nothing is asked but that it is finite.
void Checker::compare_where_defined(const Problem& p, const Case& c, const Planned& planned, const std::string& words) {
  const Reference truth = evaluate_definition(variant_, p, c.arrays(), planned.parameters());
  double largest = 0;
  for (const double x : truth.exact.values()) largest = std::isfinite(x) ? std::max(largest, std::abs(x)) : largest;
  const double allowed = std::max(compare_with_reference(truth, c.out).allowance_abs, 1e-3 * largest) + FLT_MIN;
  const std::vector<float> out = c.output();
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double exact = truth.exact.data()[i];
    if (!std::isfinite(truth.rounded.data()[i]) || !std::isfinite(exact)) continue;
    const double error = std::abs(out[i] - exact);
    if (!(error <= allowed)) return fail(p, words + ": " + brief(out[i]) + " instead of " + brief(exact));
  }
}

// V of NaN: every output that V has a part in is NaN. V of ones tells which those are.
void Checker::nan_shows(const Problem& p, const Arena& arena) {
  begin(p, "V of NaN");
  const Case c = case_of(p);
  const Planned planned = plan(p, options_.threads);
  for_each_element(c.v, 0, 0, 0, [](float& x) { x = 1; });
  const std::vector<float> weight = output_of_run(planned, arena, c);
  for_each_element(c.v, 0, 0, 0, [](float& x) { x = nan; });
  const std::vector<float> out = output_of_run(planned, arena, c);
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (std::abs(weight[i]) > 1e-3f && !std::isnan(out[i])) return fail(p, "NaN in V is answered by " + brief(out[i]));
  }
}

std::function<std::string()> Checker::where(const Problem& p, const Case& c, const Planned& planned, const Arena& arena,
                                            const GateResult& result) const {
  return [&, allowed = result.allowance_abs] {
    return where_it_differs(variant_, p, c.arrays(), planned.parameters(), allowed,
                            [&](const Arrays& arrays) { planned.run(arena, arrays); });
  };
}

void Checker::agreement() {
  const Arena arena(options_.threads);
  for_each_supported([&](const Problem& p) {
    for (const Layout layout : {Layout::dense, Layout::interleaved, Layout::padded}) {
      begin(p, to_string(layout));
      const Case c = case_of(p, layout);
      const Planned planned = plan(p, options_.threads);
      c.fill_output(0);
      planned.run(arena, c.arrays());
      const GateResult result = compare_with_reference(reference(p), c.out);
      judge(p, result, std::string(to_string(layout)), where(p, c, planned, arena, result));
    }
  });
  if (finding_.cases == 0) finding_.failure = variant_.name().text() + " supports none of the problems tried";
}

// Rows from t on change in Q, K and V; outputs before t must keep their bits. Where Q and K of later rows may decide who
// attends to whom, only V changes: the decision then stands, and V shows every weight that a later row has.
void Checker::causality() {
  if (variant_.info().causality == Causality::never) return none("has no causal form");
  const Arena arena(options_.threads);
  for_each_supported([&](const Problem& p) {
    if (!p.causal) return;
    const Case c = case_of(p);
    const Planned planned = plan(p, options_.threads);
    std::vector<float> before;
    for (const index_t t : {p.q_len - 1, p.q_len / 2, p.q_len / 3}) {  // from the end: earlier rows are still as they were
      const index_t position = p.query_position(t);
      if (t < 1 || position < 0) continue;
      begin(p, "rows from " + std::to_string(t) + " on changed");
      if (before.empty()) before = output_of_run(planned, arena, c);
      const auto disturb = [](float& x) { x = -1.5f * x + 0.25f; };
      if (!variant_.info().membership_sees_future) {
        for_each_element(c.q, 0, 0, t, disturb);
        for_each_element(c.k, 0, 0, position, disturb);
      }
      for_each_element(c.v, 0, 0, position, disturb);
      const std::vector<float> after = output_of_run(planned, arena, c);
      for (index_t head = 0; head < p.batch * p.heads; ++head) {
        const auto rows = [&](const std::vector<float>& all) {
          return std::span(all).subspan(static_cast<std::size_t>(head * p.q_len * p.value_dim),
                                        static_cast<std::size_t>(t * p.value_dim));
        };
        if (same_bits(rows(before), rows(after))) continue;
        std::vector<index_t> queries;
        for (index_t i = 0; i < t; ++i) {
          const auto at = [&](const std::vector<float>& all) {
            return rows(all).subspan(static_cast<std::size_t>(i * p.value_dim), static_cast<std::size_t>(p.value_dim));
          };
          if (!same_bits(at(before), at(after))) queries.push_back(i);
        }
        fail(p, fmt::format("of head {} quer{} {} changed with queries from {} and keys from {} on", head,
                            queries.size() == 1 ? "y" : "ies", ranges_text(queries), t, position));
      }
    }
  });
}

// The last batch item and kv head group change; outputs of the others must keep their bits.
void Checker::heads() {
  const Arena arena(options_.threads);
  for_each_supported([&](const Problem& p) {
    if (groups_of(p) < 2) return;
    begin(p);
    const Case c = case_of(p);
    const Planned planned = plan(p, options_.threads);
    const std::vector<float> before = output_of_run(planned, arena, c);
    for (const auto* tensor : {&c.q, &c.k, &c.v}) for_each_in_last_group(p, *tensor, [](float& x) { x = 0.5f - x; });
    const std::vector<float> after = output_of_run(planned, arena, c);
    const std::size_t kept = before.size() - before.size() / static_cast<std::size_t>(groups_of(p));
    if (!same_bits(std::span(before).first(kept), std::span(after).first(kept)))
      fail(p, "another head's inputs changed this head's output");
  });
  if (finding_.cases == 0 && finding_.failure.empty()) none("supports no problem of several heads or batch items");
}

// f(a V + b W) = a f(V) + b f(W), where the definition says so. V and W are multiples of 1/64 and a and b powers of two, so
// that a V + b W is exact; a is large, so that a bound on values shows.
void Checker::linearity() {
  if (variant_.info().reads == Reads::x) return none("reads no V");
  const Arena arena(options_.threads);
  for (const Problem& p : small_problems()) {
    if (!variant_.supports(p) || !linear_in_v(p)) continue;
    begin(p);
    constexpr float a = 256, b = -2;
    Case c = case_of(p);
    const Planned planned = plan(p, options_.threads);
    const Tensor<float> first = multiples(Tensor<float>::from(c.v)), second = flip(first, 2);
    const auto run_with = [&](const Tensor<float>& v, double& allowed) {
      v.copy_to(c.v);
      std::vector<float> out = output_of_run(planned, arena, c);
      allowed = compare_with_reference(evaluate_definition(variant_, p, c.arrays(), planned.parameters()), c.out).allowance_abs;
      return out;
    };
    double of_first = 0, of_second = 0, of_both = 0;
    const auto f = run_with(first, of_first), g = run_with(second, of_second), both = run_with(first * a + second * b, of_both);
    const double allowed = std::abs(a) * of_first + std::abs(b) * of_second + of_both;
    double largest = 0;
    for (std::size_t i = 0; i < f.size(); ++i) {
      const double difference = std::abs(double{both[i]} - (double{a} * f[i] + double{b} * g[i]));
      if (!(difference <= largest)) largest = difference;
    }
    if (!(largest <= allowed))
      fail(p, "f(aV + bW) differs from a f(V) + b f(W) by " + brief(largest) + ", allowed " + brief(allowed));
  }
  if (finding_.cases == 0) none("its definition is not linear in V");
}

// Problems drawn at random: what is not refused is planned, run and right.
void Checker::supports() {
  const Arena arena(options_.threads);
  index_t refused = 0;
  for (const Problem& p : random_problems(options_.thorough ? 200 : 60)) {
    if (!variant_.supports(p)) {
      ++refused;
      continue;
    }
    begin(p);
    try {
      const Case c = case_of(p);
      const Planned planned = plan(p, options_.threads);
      c.fill_output(0);
      planned.run(arena, c.arrays());
      judge(p, compare_with_reference(reference(p), c.out), "not refused, yet");
    } catch (const std::exception& e) {
      fail(p, std::string("not refused, yet: ") + e.what());
    }
  }
  finding_.note = std::to_string(refused) + " problems more were refused";
}

void Checker::values() {
  const Arena arena(options_.threads);
  for (const Problem& p : small_problems()) {
    if (!variant_.supports(p)) continue;
    struct Scaled {
      const char* words;
      float qk, v;
    };
    for (const auto& [words, qk, v] : {Scaled{"queries and keys of zeros", 0, 1}, Scaled{"denormal queries and keys", 1e-40f, 1},
                                       Scaled{"denormal values", 1, 1e-40f}, Scaled{"logits of some hundreds", 8, 1}}) {
      begin(p, words);
      const Case c = case_of(p);
      scale(c.q, qk);
      scale(c.k, qk);
      scale(c.v, v);
      const Planned planned = plan(p, options_.threads);
      const FloatingPoint mode;
      c.fill_output(0);
      planned.run(arena, c.arrays());
      if (!(mode == FloatingPoint())) fail(p, "the run leaves another rounding mode, or flushes denormals");
      compare_where_defined(p, c, planned, words);
    }
    for (const auto& [name, poison] : {std::pair{"NaN", nan}, {"infinity", infinity}, {"minus infinity", -infinity}}) {
      for (const int which : {0, 1, 2}) {
        const std::string words = std::string(name) + " in " + "QKV"[which];
        begin(p, words);
        const Case c = case_of(p);
        const auto& tensor = which == 0 ? c.q : which == 1 ? c.k : c.v;
        for_each_in_last_group(p, tensor, [n = 0, poison = poison](float& x) mutable { x = n++ % 7 == 3 ? poison : x; });
        const Planned planned = plan(p, options_.threads);
        const std::vector<float> out = output_of_run(planned, arena, c);
        const std::size_t others = out.size() - out.size() / static_cast<std::size_t>(groups_of(p));
        if (!std::all_of(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(others), [](float x) { return std::isfinite(x); }))
          fail(p, words + " of one head reaches another head's output");
      }
    }
    if (variant_.info().reads != Reads::x && linear_in_v(p)) nan_shows(p, arena);
  }
}

}  // namespace attn::conformance
