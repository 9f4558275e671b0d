// What definitions of recurrent variants share: products of gates, and the outputs of a state that takes up tokens one by one.
#pragma once

#include <cmath>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "attn/kernels/linear/gated_panel.hpp"
#include "attn/kernels/linear/gates.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// Products of the gates j+1 .. i for the rows' positions i, zeros for j > i; of ln g [...,kv_len]: [...,rows,kv_len]. Each is e to the sum
// of its own logarithms, so that a gate of zero, or of 1 - 1e-5, does to later tokens what it should.
template <class T>
Tensor<T> kept_between(const Problem& p, const Values<T>& in, const Tensor<T>& log_gate) {
  const Mask past = allowed_pairs(p, in, every_key);
  const Tensor<T> own = where(past, unsqueeze(log_gate, -2), T{0});
  const Tensor<T> sums = shift(flip(cumsum(flip(own, -1), -1), -1), -1, -1);
  return where(past, exp(sums), T{0});
}

// S_t = step(t, S_(t-1)) from S = 0, [B,Hk,D,Dv]; out_t = answer(q_t, S_t, t), [B,Hk,queries that share a head,.] of q_t. Rows before the
// first token are zeros.
template <class T, class Step, class Answer>
Tensor<T> answers_of_state(const Problem& p, const Values<T>& in, const Tensor<T>& q, Step step, Answer answer) {
  Tensor<T> state = zeros<T>({p.batch, p.kv_heads, p.head_dim, p.value_dim});
  std::vector<Tensor<T>> rows;
  index_t t = 0;
  for (index_t r = 0; r < q.extent(2); ++r) {
    const index_t position = in.position[static_cast<std::size_t>(r)];
    if (position < 0) {
      rows.push_back(zeros<T>({p.batch, p.heads, 1, p.value_dim}));
      continue;
    }
    for (; t <= position; ++t) state = step(t, state);
    const Tensor<T> own = reshape(slice(q, 2, r, r + 1), {p.batch, p.kv_heads, p.heads / p.kv_heads, p.head_dim});
    rows.push_back(reshape(answer(own, state, position), {p.batch, p.heads, 1, p.value_dim}));
  }
  return concat(rows, 2);
}
template <class T, class Step>
Tensor<T> answers_of_state(const Problem& p, const Values<T>& in, const Tensor<T>& q, Step step) {
  return answers_of_state(p, in, q, step, [](const Tensor<T>& own, const Tensor<T>& state, index_t) { return matmul(own, state); });
}

// Row t of [B,Hk,M,.], as [B,Hk,1,.]; of [B,Hk,M], [B,Hk,1,1].
template <class T>
Tensor<T> token(const Tensor<T>& x, index_t t) {
  const Tensor<T> row = slice(x, 2, t, t + 1);
  return x.rank() == 3 ? unsqueeze(row, -1) : row;
}

// Useful work of a state of head_dim by value_dim: so many products with it a token, of which one answers each query and the others are of
// each key.
inline Cost state_cost(const Problem& p, double products) {
  const double queries = static_cast<double>(p.batch * p.heads * p.q_len),
               keys = static_cast<double>(p.batch * p.kv_heads * p.kv_len);
  return {.flops = 2 * (queries + (products - 1) * keys) * static_cast<double>(p.head_dim * p.value_dim), .bytes = tensor_bytes(p)};
}

namespace init {
// ln u, u uniform between two positive numbers.
inline Init log_uniform(double low, double high) {
  return [=](std::span<float> values, const Shape&, const Rng& rng) {
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(std::log(low + (high - low) * rng.uniform(static_cast<index_t>(i))));
  };
}
// b with softplus(b) from 0.001 to 0.1, uniform in its logarithm: the steps of Mamba and those after it.
inline Init small_steps() {
  return [](std::span<float> values, const Shape&, const Rng& rng) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double step = 1e-3 * std::pow(100.0, rng.uniform(static_cast<index_t>(i)));
      values[i] = static_cast<float>(kernels::inverse_softplus(step));
    }
  };
}
}  // namespace init

// A number for each token, w.k_t + b with w [Hk,D] and b [Hk]: [B,Hk,M].
template <class T>
Tensor<T> read_from_keys(const Values<T>& in, const Tensor<T>& w, const Tensor<T>& b) {
  return sum(in.k * unsqueeze(w, 1), -1) + unsqueeze(b, 1);
}

// Parameters gate_w and gate_b of a gate g_t = sigmoid(gate_w.k_t + gate_b) for each head of these (`axis` names them) with its half-life at
// the start.
inline Parameters learned_gate(index_t heads, const std::string& axis, index_t head_dim, double half_life,
                               const std::string& gate = "g") {
  return {{.name = "gate_w",
           .shape = {heads, head_dim},
           .init = init::normal(1 / std::sqrt(static_cast<double>(head_dim))),
           .axes = axis + ", head_dim",
           .doc = "reads a token for its gate"},
          {.name = "gate_b",
           .shape = {heads},
           .init = init::constant(kernels::logit_of_gate(kernels::log_gate_of(half_life))),
           .axes = axis,
           .doc = gate + "_t = sigmoid(gate_w.k_t + gate_b)"}};
}

// ln g of tokens [B,Hk,M], or of tokens and channels [B,Hk,M,D]; `keeps`: what fades by it.
inline InputSpec log_decay_input(std::vector<index_t> extents, double half_life, const std::string& keeps,
                                 const std::string& gate = "g") {
  return {.name = "log_decay",
          .extents = std::move(extents),
          .low = -1e30,
          .high = 0,
          .drawn = kernels::log_gates_about(half_life),
          .doc = "ln " + gate + "_t: what is kept of " + keeps + " when token t comes"};
}

// D numbers for each token, (k_t W) U + b, by parameters NAME_in [Hk,D,rank], NAME_out [Hk,rank,D] and NAME_b [Hk,D]: [B,Hk,M,D].
inline void add_low_rank(const Problem& p, const std::string& name, index_t rank, Init bias, std::string doc, Parameters& list) {
  const auto of_fan_in = [](index_t n) { return init::normal(1 / std::sqrt(static_cast<double>(n))); };
  list.push_back({.name = name + "_in",
                  .shape = {p.kv_heads, p.head_dim, rank},
                  .init = of_fan_in(p.head_dim),
                  .axes = "kv_heads, head_dim, rank",
                  .doc = "first factor of what " + name + "_b tells"});
  list.push_back({.name = name + "_out",
                  .shape = {p.kv_heads, rank, p.head_dim},
                  .init = of_fan_in(rank),
                  .axes = "kv_heads, rank, head_dim",
                  .doc = "second factor of what " + name + "_b tells"});
  list.push_back({.name = name + "_b",
                  .shape = {p.kv_heads, p.head_dim},
                  .init = std::move(bias),
                  .axes = "kv_heads, head_dim",
                  .doc = std::move(doc)});
}
template <class T>
Tensor<T> low_rank(const Values<T>& in, const ParameterSet<T>& parameters, const std::string& name) {
  return matmul(matmul(in.k, parameters[name + "_in"]), parameters[name + "_out"]) + unsqueeze(parameters[name + "_b"], 1);
}
// The same of one head, for the fast path.
inline kernels::LowRank low_rank_of(const ParameterSet<float>& parameters, const char* in, const char* out, const char* bias,
                                    index_t head) {
  const auto w = parameters.view<3>(in);
  return {w[head].data_handle(), parameters.view<3>(out)[head].data_handle(), parameters.view<2>(bias).row(head), w.extent(2)};
}
// Its multiplications, of all tokens.
inline double low_rank_flops(const Problem& p, index_t rank) {
  return 4 * static_cast<double>(p.batch * p.kv_heads * p.kv_len * p.head_dim * rank);
}

}  // namespace attn
