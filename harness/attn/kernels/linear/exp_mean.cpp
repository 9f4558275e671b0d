#include "attn/kernels/linear/exp_mean.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "attn/core/assert.hpp"
#include "attn/kernels/dense/activations.hpp"
#include "attn/kernels/dense/rows.hpp"

namespace attn::kernels {

namespace {

// Of a key above its reference: e^8 costs its exponent 3 bits of rounding.
constexpr float margin = 8;

}  // namespace

// Those of one kv head.
struct ExpMean::Tokens {
  float* sums;       // of e^(key - reference) value, of e^(key - reference)
  float* rest;       // what the sums have no digits for
  float* reference;  // a key that none of the folded ones exceeds by more than the margin
  View<float, 2> k = {}, v = {};

  Tokens(const State& state, index_t b, index_t h)
      : sums(state["sums"].f32_out<3>()[b].row(h)),
        rest(state["rest"].f32_out<3>()[b].row(h)),
        reference(state["reference"].f32_out<3>()[b].row(h)) {
    if (state.find("k") != nullptr) k = state["k"].f32_out()[b][h], v = state["v"].f32_out()[b][h];
  }
};

ExpMean::ExpMean(const Problem& p, index_t window, bool shared, WorkspacePlan& workspace)
    : p_(p), window_(window), shared_(shared), scratch_(workspace.per_worker<float>((window + 5) * p.head_dim)) {
  ATTN_ASSERT(p.head_dim == p.value_dim);
}

StateSpec ExpMean::state(const Problem& p, index_t window) {
  const index_t d = p.head_dim;
  StateSpec spec{{{.name = "sums", .extents = {p.kv_heads, 2 * d}},
                  {.name = "rest", .extents = {p.kv_heads, 2 * d}},
                  {.name = "reference", .extents = {p.kv_heads, d}, .at_first = -std::numeric_limits<float>::infinity()}}};
  for (const char* name : {"k", "v"})
    if (window > 0) spec.tensors.push_back({.name = name, .extents = {p.kv_heads, window, d}});
  return spec;
}

void ExpMean::fold(const float* key, const float* value, const Tokens& tokens, float* scratch) const {
  const index_t d = p_.head_dim;
  const auto exceeds = [&](index_t c) { return key[c] > tokens.reference[c] + margin; };
  bool any = false;
  for (index_t c = 0; c < d; ++c) any |= exceeds(c);
  if (any) {
    for (index_t c = 0; c < d; ++c)
      scratch[c] = scratch[d + c] = exceeds(c) ? std::exp(std::exchange(tokens.reference[c], key[c]) - key[c]) : 1.0f;
    for (float* const sums : {tokens.sums, tokens.rest}) scale_columns(1, 2 * d, {sums, 0}, scratch, {sums, 0});
  }
  const Into weighted{scratch, d}, weights{scratch + d, d};
  exp_minus(1, d, {key, d}, tokens.reference, weights);
  multiply(1, d, weights, {value, d}, weighted);
  add_exactly(2 * d, scratch, tokens.sums, tokens.rest);
}

void ExpMean::absorb(const FloatArrays& arrays, const State& state, const Workspace& workspace) const {
  const index_t d = p_.head_dim;
  parallel_tasks(p_.batch * p_.kv_heads, [&](index_t task, int worker) {
    const index_t b = task / p_.kv_heads, h = task % p_.kv_heads;
    const Tokens tokens(state, b, h);
    float* const scratch = workspace.of(worker, scratch_).data();
    for (index_t i = 0; i < arrays.k.extent(2); ++i) {
      const float *key = arrays.k[b][h].row(i), *const value = arrays.v[b][h].row(i);
      if (shared_) std::fill_n(scratch + 2 * d, d, *key), key = scratch + 2 * d;
      if (window_ == 0) {
        fold(key, value, tokens, scratch);
        continue;
      }
      const index_t position = state.end() + i;
      float *const k = tokens.k.row(position % window_), *const v = tokens.v.row(position % window_);
      if (position >= window_) fold(k, v, tokens, scratch);
      std::copy_n(key, d, k);
      std::copy_n(value, d, v);
    }
  });
}

void ExpMean::answer(const State& state, const View<float, 4>& out, const Workspace& workspace, Biases biases) const {
  const index_t d = p_.head_dim, last = state.end() - 1, near = std::min(last + 1, window_);
  parallel_tasks(p_.batch * p_.heads, [&](index_t task, int worker) {
    const index_t b = task / p_.heads, h = task % p_.heads;
    const Tokens tokens(state, b, p_.kv_head(h));
    float *const top = workspace.of(worker, scratch_).data(), *const factor = top + d, *const sums = factor + d;
    const Into keys{sums + 2 * d, d};
    const float* const bias = biases(h);
    for (index_t r = 0; r < near; ++r) {
      const index_t age = (last - r) % window_;
      const float plus = bias != nullptr ? bias[window_ - 1 - age] : 0;
      for (index_t c = 0; c < d; ++c) keys.data[r * d + c] = tokens.k(r, c) + plus;
    }
    std::copy_n(tokens.reference, d, top);
    raise_column_max(near, d, keys, top);
    for (index_t c = 0; c < d; ++c) factor[c] = std::exp(tokens.reference[c] - top[c]);
    scale_columns(2, d, {tokens.sums, d}, factor, {sums, d});
    if (near > 0) {
      exp_minus(near, d, keys, top, keys);
      add_column_sums(near, d, keys, sums + d);
      multiply(near, d, keys, {tokens.v.row(0), d}, keys);
      add_column_sums(near, d, keys, sums);
    }
    divide(1, d, {sums, d}, {sums + d, d}, std::numeric_limits<float>::min(), {out[b][h].row(0), d});
  });
}

}  // namespace attn::kernels
