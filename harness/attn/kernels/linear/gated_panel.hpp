// What gates do to a panel of some tokens, and what a panel does to a state: products of gates, forward substitution, fading sums. On the
// calling thread, without allocation.
#pragma once

#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

// Tokens of a panel at most: what it touches stays in L1 beside a state of 64 by 64, and a triangle is one tile.
inline constexpr index_t gated_panel = 16;

// Of one gate g_t a token, given as ln g_t <= 0, minus infinity included: a gate of zero makes zeros and nothing else, one near one keeps
// its digits, as a state fades by e to the sum of the panel's logarithms.
struct PanelDecay {
  float* between;  // [gated_panel, gated_panel]: (i, j) is g_(j+1) .. g_i for j < i, 1 where j = i, 0 above
  float* upto;     // [gated_panel]: g_0 .. g_i
  float* after;    // [gated_panel]: g_(j+1) .. g_(count-1)
  float* all;      // [2]: g_0 .. g_(count-1), and what a float has no digits for: a state fades by it thousands of times
};
void decay_of(index_t count, const float* log_gate, const PanelDecay& decay);

// Of one gate a token and channel, rows of n channels. upto (i, c) = g_0 .. g_i; since (i, c) = g_1 .. g_i, by which keys can be
// divided. The number of tokens for which no quotient of `since` leaves what floats hold: at least one of the `most`, so that any gates
// will do. It does not depend on later tokens.
index_t gate_products(index_t most, index_t n, Rows gates, Into upto, Into since);
// to (j, c) = from (j, c) g_(j+1) .. g_(count-1)
void fade_to_end(index_t count, index_t n, Rows gates, Rows from, Into to);

// Rows that depend on those before them, solved in their order, as stable as the recurrence is. z holds r.
//   delta:     z_i = factor_i (v_i - r_i - sum over j < i of weights_ij z_j)
//   otherwise: z_i = r_i + sum over j < i of weights_ij z_j
void substitute_delta(index_t count, index_t n, Rows weights, const float* factor, Rows v, Into z);
void substitute(index_t count, index_t n, Rows weights, Into z);

// sums [m,n] = fade sums + keys^T values over `count` rows [count,m] and [count,n]. The next rows that the caller will read are fetched
// meanwhile.
struct Fade {
  const float* factor;  // PanelDecay::all or, `by_row`, m numbers
  bool by_row;
};
void fade_and_add(index_t m, index_t n, index_t count, Rows keys, Rows values, const Fade& fade, Into sums,
                  const Fetch& next_keys = {}, const Fetch& next_values = {});

// Of rows x: factor / sqrt(|x|^2 + 1e-6), or x by that with a factor of one.
void unit_factors(index_t m, index_t n, Rows from, float factor, float* to);
void unit_rows(index_t m, index_t n, Rows from, Into to);

// What RWKV-7 makes of keys k and rates a: c = k key_scale / max(its norm, 1e-12); read = -c, add = c a, written = k (1 + (a - 1) rate_scale).
struct RemovalRows {
  Into written, read, add;
};
void removal_rows(index_t m, index_t n, Rows k, Rows a, const float* key_scale, const float* rate_scale, const RemovalRows& to);
void triple_dots(index_t m, index_t n, Rows x, Rows y, const float* weights, float* to);  // sum of x y weights[column]

// Gates of what projections give, and what they leave room for.
void decays_of_softplus(index_t m, index_t n, Rows x, float sign, float rate, Into to);  // e^(-rate softplus(sign x))
void exp_of_gates(index_t m, index_t n, Rows x, float factor, Into to);   // e^(factor x) <= 1, to the last digit near 1
void rest_of_gates(index_t m, index_t n, Rows x, float factor, Into to);  // 1 - e^(factor x), likewise near 0
void softplus(index_t m, index_t n, Rows x, float sign, Into to);         // ln(1 + e^(sign x))

// x in and out of `rank` numbers, and a bias: (x W) U + b of one head, row by row. W [n,rank], U [rank,n]; hidden: room for m rows of rank.
struct LowRank {
  const float *w, *u, *bias;
  index_t rank;
};
void project(index_t m, index_t n, Rows x, const LowRank& by, float* hidden, Into to);

}  // namespace attn::kernels
