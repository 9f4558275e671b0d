// How a model knows where a token stands.
#pragma once

#include <string>
#include <string_view>

#include "attn/algebra/algebra.hpp"
#include "attn/core/result.hpp"

namespace attn {

enum class Positions {
  none,
  sinusoidal,  // added to the embedding: Vaswani et al. 2017, arXiv:1706.03762, section 3.5
  learned,     // added to the embedding: a trained table, one row a position
  rotary,      // turns queries and keys: Su et al. 2021, arXiv:2104.09864, section 3.4
  alibi,       // -m (i - j) on the logits: Press et al. 2021, arXiv:2108.12409, section 3
};

std::string_view to_string(Positions positions);
Result<Positions> parse_positions(std::string_view text);  // none, sinusoidal, learned, rotary, alibi

// [length, width]: sines in the first half of each row, cosines in the second, wavelengths 2 pi .. 20,000 pi.
template <class T>
Tensor<T> sinusoids(index_t length, index_t width);

// x [...,N,D] with the pair (c, c + D/2) of row i turned by the angle i 10000^(-2c/D). D is even.
template <class T>
Tensor<T> rotate(const Tensor<T>& x);

// ALiBi without touching the mixer, for causal softmax attention: -m (i - j) and +m j differ by a constant in each row, which
// softmax ignores, so one more coordinate of q and k carries it. q, k [B,H,N,D] -> [B,H,N,D+1], scaled so that a mixer that
// divides by sqrt(D+1) gets q.k / sqrt(D) + m_h j, with m_h = 2^(-8 (h+1) / H).
template <class T>
void add_alibi(Tensor<T>& q, Tensor<T>& k);

}  // namespace attn
