// One variant on one problem, for tests of its properties: inputs that a test may shape, the fast path's output and the
// definition's.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "attn/core/rng.hpp"
#include "attn/exec/arena.hpp"
#include "attn/inputs/tensors.hpp"
#include "attn/variant/planned.hpp"
#include "attn/variant/variant.hpp"
#include "catch.hpp"

namespace attn::test {

inline std::unique_ptr<Variant> configure(const std::string& name) {
  Registry registry;
  register_builtin_variants(registry);
  auto variant = registry.configure(name);
  REQUIRE(variant);
  return std::move(*variant);
}

// The sentence with which a variant refuses a problem or its options; empty if it does not.
inline std::string refusal(const std::string& name, const Problem& p) {
  Registry registry;
  register_builtin_variants(registry);
  const auto variant = registry.configure(name);
  if (!variant) return variant.reason();
  const Status status = (*variant)->supports(p);
  return status ? "" : status.reason();
}

class Trial {
 public:
  Trial(const std::string& name, const Problem& problem, std::uint64_t seed = 1)
      : p(problem),
        q(random({p.batch, p.heads, p.q_len, p.head_dim}, seed, "q")),
        k(random({p.batch, p.kv_heads, p.kv_len, p.head_dim}, seed, "k")),
        v(random({p.batch, p.kv_heads, p.kv_len, p.value_dim}, seed, "v")),
        variant(configure(name)) {
    const Status status = variant->supports(p);
    INFO((status ? "" : status.reason()));
    REQUIRE(status);
    const Parameters specs = variant->parameters(p);
    parameters = make_parameters(specs, seed, fit_parameters(specs, arrays()));
    for (const InputSpec& spec : variant->inputs(p)) {
      Elements<float> drawn(Shape(spec.extents.begin(), spec.extents.end()));
      draw(spec, seed, {drawn.writable(), static_cast<std::size_t>(drawn.size())});
      more.emplace(spec.name, Tensor<float>(std::move(drawn)));
    }
  }

  static Tensor<float> random(const Shape& shape, std::uint64_t seed, const char* stream) {
    const Rng rng(seed, stream);
    return generate<float>(shape, [&](index_t i) { return static_cast<float>(rng.normal(i)); });
  }

  // By the fast path, on `threads` threads.
  Tensor<float> run(int threads = 1) const {
    Planned planned(*variant, p, threads);
    planned.equip(parameters, Workspace::Mode::checked);
    Elements<float> out({p.batch, p.heads, p.q_len, p.value_dim});
    std::fill_n(out.writable(), out.size(), std::nanf(""));
    Arrays given = arrays();
    given.out = View<float, 4>(out.writable(), {p.batch, p.heads, p.q_len, p.value_dim});
    planned.run(Arena(threads), given);
    CHECK(planned.workspace().gaps_intact());
    return Tensor<float>(std::move(out));
  }

  template <class T = double>
  Tensor<T> definition() const {
    ParameterSet<T> set;
    for (const auto& [name, tensor] : parameters.all()) set.set(name, cast<T>(tensor));
    Values<T> in{cast<T>(q), cast<T>(k), cast<T>(v), {}};
    for (index_t i = 0; i < p.q_len; ++i) in.position.push_back(p.query_position(i));
    for (const auto& [name, tensor] : more) in.more.emplace(name, cast<T>(tensor));
    return variant->definition(p, in, set);
  }

  std::string note() const { return variant->note(p, arrays()); }

  Problem p;
  Tensor<float> q, k, v;
  std::unique_ptr<Variant> variant;
  ParameterSet<float> parameters;
  std::map<std::string, Tensor<float>, std::less<>> more;  // what the variant reads beside q, k and v

 private:
  Arrays arrays() const {
    Arrays a{.q = view(q), .k = view(k), .v = view(v)};
    for (const auto& [name, tensor] : more) {
      const Shape extents = tensor.shape();
      a.more.set(name, Array(DType::f32, reinterpret_cast<std::byte*>(const_cast<float*>(tensor.data())),
                             std::span<const index_t>(extents.begin(), extents.end())));
    }
    return a;
  }
  static View<const float, 4> view(const Tensor<float>& t) {
    return {t.data(), {t.extent(0), t.extent(1), t.extent(2), t.extent(3)}};
  }
};

// |a - b| / |b| over all elements; infinite if a holds anything but numbers.
template <class A, class B>
double distance(const Tensor<A>& a, const Tensor<B>& b) {
  REQUIRE(a.shape() == b.shape());
  double difference = 0, size = 0;
  for (index_t i = 0; i < a.size(); ++i) {
    const auto x = static_cast<double>(a.data()[i]), y = static_cast<double>(b.data()[i]);
    if (!std::isfinite(x)) return INFINITY;
    difference += (x - y) * (x - y);
    size += y * y;
  }
  return std::sqrt(difference / std::max(size, 1e-300));
}

inline bool finite(const Tensor<float>& x) {
  return std::all_of(x.values().begin(), x.values().end(), [](float value) { return std::isfinite(value); });
}

inline Problem square(index_t n, index_t d = 64, bool causal = false, index_t heads = 2) {
  return {.batch = 1, .heads = heads, .kv_heads = heads, .q_len = n, .kv_len = n, .head_dim = d, .value_dim = d, .causal = causal};
}

// Queries and keys where denominators vanish or exponents end: of norm 40, all negative, all zero, opposite, one of them huge.
// Every output must be a number.
inline void check_stays_finite(const std::string& name) {
  for (const bool causal : {false, true}) {
    const Problem p = square(130, 64, causal);
    if (!configure(name)->supports(p)) continue;
    const auto check = [&](const char* what, auto change) {
      Trial t(name, p);
      change(t);
      INFO(name << (causal ? ", causal, " : ", ") << what);
      CHECK(finite(t.run()));
    };
    check("norm 40", [](Trial& t) { t.q = l2_normalize(t.q) * 40.0f, t.k = l2_normalize(t.k) * 40.0f; });
    check("query of norm 40", [](Trial& t) { t.q = l2_normalize(t.q) * 40.0f; });
    check("all negative", [](Trial& t) { t.q = t.q - 40.0f, t.k = t.k - 40.0f; });
    check("far below zero", [](Trial& t) { t.q = t.q - 300.0f, t.k = t.k - 300.0f; });
    check("far above zero", [](Trial& t) { t.q = t.q + 300.0f, t.k = t.k + 300.0f; });
    check("zero", [](Trial& t) { t.q = t.q * 0.0f, t.k = t.k * 0.0f; });
    check("opposite", [](Trial& t) { t.k = -t.q; });
    check("keys of 1e4", [](Trial& t) { t.k = t.k * 1e4f; });
    // Rounding alone moves such a logit by 64.
    check("logits of 8e8", [](Trial& t) { t.q = t.q + 1e4f, t.k = t.k + 1e4f; });
  }
}

}  // namespace attn::test
