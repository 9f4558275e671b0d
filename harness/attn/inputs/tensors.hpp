// Q, K and V of one problem, and where they lie among inputs.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "attn/core/array.hpp"
#include "attn/core/input_spec.hpp"
#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"
#include "attn/core/view.hpp"
#include "attn/exec/buffer.hpp"

namespace attn {

// Row-major tensors of floats in one zeroed block. Bases are 64-byte aligned and lie 576 bytes apart modulo 4 KiB, so that equal
// rows of two tensors never share a cache set or alias in the store buffer.
struct Tensors {
  Buffer memory;
  View<float, 4> q;  // [batch, heads, q_len, head_dim]
  View<float, 4> k;  // [batch, kv_heads, kv_len, head_dim]
  View<float, 4> v;  // [batch, kv_heads, kv_len, value_dim]

  Arrays arrays() const { return {.q = q, .k = k, .v = v}; }

  // Throws std::bad_alloc when the system refuses.
  static Tensors allocate(const Problem& p);
};

// Where the i-th of such tensors begins, when the one before ends there.
std::size_t staggered(std::size_t end_bytes, std::size_t i);

// Arrays beside them.
struct NamedTensors {
  std::vector<Buffer> memory;
  NamedArrays arrays;

  // Row-major floats of these extents, zeros.
  std::span<float> add(const std::string& name, std::span<const index_t> extents);
};
// Elements drawn from the seed as the spec says.
void draw(const InputSpec& spec, std::uint64_t seed, std::span<float> to);

// Refuses extents below 1, heads that kv_heads does not divide, and tensors of more elements than memory addresses.
Status check_shape(const Problem& p);

// What decides how hard an input is to approximate, averaged over at most 64 sampled query rows (causal rows see the keys
// up to their own). Reading: results/reference/notes, fidelity.
struct Placement {
  double logit_std = 0;    // of q.k/sqrt(head_dim) within a row: tau
  double row_entropy = 0;  // nats
  double perplexity = 0;   // exp(row entropy) / visible keys: 1 is uniform attention
  double sink_mass = 0;    // attention on key 0
  double top32_mass = 0;   // attention on the 32 heaviest keys of the row
  double q_norm2 = 0;      // |q|^2 / sqrt(head_dim): governs random features
};

Placement place(const Problem& p, const FloatArrays& in);
inline Placement place(const Problem& p, const Tensors& tensors) { return place(p, FloatArrays(tensors.arrays())); }

std::string to_string(const Placement& x);

}  // namespace attn
