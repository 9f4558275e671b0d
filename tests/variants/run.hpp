// Runs a variant's fast path by name, for tests that state properties.
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "attn/core/rng.hpp"
#include "attn/prove/conformance.hpp"
#include "attn/prove/gate.hpp"
#include "attn/variant/planned.hpp"
#include "attn/variant/variant.hpp"
#include "catch.hpp"
#include "harness/variant_of.hpp"

namespace attn::test {

inline std::unique_ptr<Variant> variant(std::string_view name) {
  auto v = registry().configure(name);
  INFO((v ? std::string() : v.reason()));
  REQUIRE(v);
  return *std::move(v);
}

// Self-attention of one batch item.
inline Problem problem(index_t n, index_t head_dim = 16, bool causal = false, index_t heads = 2) {
  return {
      .heads = heads, .kv_heads = heads, .q_len = n, .kv_len = n, .head_dim = head_dim, .value_dim = head_dim, .causal = causal};
}

struct Qkv {
  Tensor<float> q, k, v;
};

inline Tensor<float> normal(const Shape& shape, std::string_view stream, double std = 1) {
  const Rng rng(1, stream);
  return generate<float>(shape, [&](index_t i) { return static_cast<float>(std * rng.normal(i)); });
}

inline Qkv arrays(const Problem& p, double std = 1) {
  return {normal({p.batch, p.heads, p.q_len, p.head_dim}, "q", std), normal({p.batch, p.kv_heads, p.kv_len, p.head_dim}, "k", std),
          normal({p.batch, p.kv_heads, p.kv_len, p.value_dim}, "v")};
}

inline View<const float, 4> view(const Tensor<float>& t) {
  return {t.data(), {t.extent(0), t.extent(1), t.extent(2), t.extent(3)}};
}

struct RunOptions {
  int threads = 2;
  std::uint64_t seed = 1;
  const ParameterSet<float>* parameters = nullptr;  // drawn from the seed otherwise
};

inline Tensor<float> run(const Variant& variant, const Problem& p, const Qkv& in, const RunOptions& o = {}) {
  const Status supported = variant.supports(p);
  INFO((supported ? std::string() : supported.reason()));
  REQUIRE(supported);
  const ParameterSet<float> drawn = o.parameters != nullptr ? *o.parameters : make_parameters(variant.parameters(p), o.seed);
  Planned planned(variant, p, o.threads);
  planned.equip(drawn, Workspace::Mode::checked);
  std::vector<float> out(static_cast<std::size_t>(p.batch * p.heads * p.q_len * p.value_dim), std::nanf(""));
  const View<float, 4> output(out.data(), {p.batch, p.heads, p.q_len, p.value_dim});
  planned.run(Arena(o.threads), {.q = view(in.q), .k = view(in.k), .v = view(in.v), .out = output});
  CHECK(planned.workspace().gaps_intact());
  return Tensor<float>({p.batch, p.heads, p.q_len, p.value_dim}, out);
}

inline Tensor<float> run(std::string_view name, const Problem& p, const Qkv& in, const RunOptions& o = {}) {
  return run(*variant(name), p, in, o);
}

inline double largest_difference(const Tensor<float>& a, const Tensor<float>& b) {
  REQUIRE(a.shape() == b.shape());
  double largest = 0;
  for (index_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a.data()[i]) - static_cast<double>(b.data()[i]));
    if (!(difference <= largest)) largest = difference;  // a NaN stays
  }
  return largest;
}

inline void check_equal(const Tensor<float>& a, const Tensor<float>& b, double within = 3e-6) {
  CHECK(largest_difference(a, b) <= within);
}

// All properties of attn/prove/conformance.hpp for one set of options. The default ones are test_conformance's.
inline void check_conforms(std::string_view name, const ConformanceOptions& options = {.threads = 2}) {
  const auto v = variant(name);
  REQUIRE(v->short_name() != v->name().label());
  for (const Finding& finding : check_conformance(*v, options)) {
    INFO(name << ": " << finding.property);
    CHECK(finding.failure == "");
  }
}

// The cost's pair count, for variants that are softmax attention over pairs: exps are one a pair.
inline double pairs_of_head(std::string_view name, const Problem& p) {
  return variant(name)->cost(p).exps / static_cast<double>(p.batch * p.heads);
}

// The matrix of weights, [B,H,N,M]: of keys and queries that are zero, and with V the identity. kv_len <= 256.
inline Tensor<double> weights_by_definition(std::string_view name, Problem p) {
  p.value_dim = p.kv_len;
  const auto v = variant(name);
  Values<double> in{zeros<double>({p.batch, p.heads, p.q_len, p.head_dim}),
                    zeros<double>({p.batch, p.kv_heads, p.kv_len, p.head_dim}),
                    broadcast_to(identity<double>(p.kv_len), {p.batch, p.kv_heads, p.kv_len, p.kv_len}),
                    {}};
  for (index_t i = 0; i < p.q_len; ++i) in.position.push_back(p.query_position(i));
  return v->definition(p, in, widen(make_parameters(v->parameters(p), 1)));
}

// Which pairs count is counted on the definition itself.
inline double pairs_by_definition(std::string_view name, const Problem& p) {
  const Tensor<double> weights = weights_by_definition(name, p);
  double pairs = 0;
  for (index_t i = 0; i < weights.size(); ++i) pairs += weights.data()[i] > 0;
  return pairs / static_cast<double>(p.batch * p.heads);
}

// Keys of all kv heads that some query sees.
inline index_t keys_by_definition(std::string_view name, const Problem& p) {
  const Tensor<double> weights = weights_by_definition(name, p);
  index_t keys = 0;
  for (index_t kv_head = 0; kv_head < p.kv_heads; ++kv_head) {
    for (index_t j = 0; j < p.kv_len; ++j) {
      bool seen = false;
      for (index_t h = 0; h < p.heads; ++h)
        for (index_t i = 0; i < p.q_len; ++i) seen = seen || (p.kv_head(h) == kv_head && weights(0, h, i, j) > 0);
      keys += seen;
    }
  }
  return keys;
}

inline void check_pair_count(std::string_view name) {
  for (const index_t n : {1, 5, 64, 129, 200}) {
    for (const index_t keys : {n, index_t{77}, index_t{201}}) {
      for (const bool causal : {false, true}) {
        Problem p = problem(n, 4, causal);
        p.kv_len = keys;
        INFO(name << " at " << to_string(p));
        if (variant(name)->supports(p)) CHECK(pairs_of_head(name, p) == pairs_by_definition(name, p));
      }
    }
  }
}

// The cost's bytes: of self-attention those of all tensors, else of the keys that some query sees.
inline void check_bytes(std::string_view name) {
  for (const index_t n : {1, 3, 40, 77, 90}) {
    for (const bool causal : {false, true}) {
      Problem p = problem(n, 4, causal, 4);
      p.kv_len = 77;
      p.kv_heads = 2;
      if (!variant(name)->supports(p)) p.kv_heads = 4;
      if (!variant(name)->supports(p)) continue;
      const index_t unread = p.self_attention() ? 0 : p.kv_heads * p.kv_len - keys_by_definition(name, p);
      INFO(name << " at " << to_string(p));
      CHECK(variant(name)->cost(p).bytes == tensor_bytes(p) - static_cast<double>(unread * 4 * (p.head_dim + p.value_dim)));
    }
  }
}

// The bytes of a sequence's state in a decode of steps of `step` tokens.
inline index_t state_rows(std::string_view name, index_t context, index_t step = 1) {
  Problem p = problem(context, 16, true);
  p.q_len = step;
  p.pass = Pass::decode;
  return variant(name)->state(p).rows();
}

}  // namespace attn::test
