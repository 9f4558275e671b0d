// The layer around a mixer: x + Wo mix(Wq y, Wk y, Wv y), y = norm(x), and then the same with an MLP. Variants differ in
// mix() alone; a variant that reads no queries and keys has no Wq and Wk.
#pragma once

#include "attn/layer/mixer.hpp"
#include "attn/layer/positions.hpp"
#include "attn/layer/weights.hpp"

namespace attn {

struct LayerShape {
  index_t width = 64;
  index_t heads = 1;
  index_t mlp = 128;  // hidden units of the MLP, ReLU; 0: no MLP
  index_t conv = 0;   // taps of a causal depthwise convolution before the mixer; 0: none
  Positions positions = Positions::learned;
  bool causal = false;
};

// What the layer asks of the mixer.
Problem mixer_problem(const LayerShape& shape, index_t batch, index_t length);

// Whether this variant can stand in this layer; if not, why.
Status supports(const LayerShape& shape, const Variant& variant, index_t length);

// Refuses a variant that fits its parameters to Q, K and V. The variant supports p.
Status supports_unseen(const Variant& variant, const Problem& p);

Parameters layer_parameters(const LayerShape& shape, const Variant& variant, index_t length);

// x [batch, length, width] -> the same shape.
template <class T>
Tensor<T> layer(const LayerShape& shape, const Variant& variant, const Weights<T>& weights, const Tensor<T>& x,
                Mixing mixing = Mixing::fastest);

// The layer's second half alone: x + W2 relu(W1 norm(x) + b1) + b2, or x where there is no MLP.
void declare_mlp(Parameters& all, const LayerShape& shape);
template <class T>
Tensor<T> plus_mlp(const LayerShape& shape, const Weights<T>& weights, const Tensor<T>& x);

// What a layer projects: Wq and Wk where the mixer reads queries and keys, Wv where it reads values.
bool reads_queries(const Variant& variant);
bool reads_values(const Variant& variant);

// [B,N,H*D] -> [B,H,N,D] and back.
template <class T>
Tensor<T> to_heads(const Tensor<T>& x, index_t heads);
template <class T>
Tensor<T> from_heads(const Tensor<T>& x);

// Learned gain and bias around layer_norm.
Parameters norm_parameters(index_t width);
template <class T>
Tensor<T> norm(const Weights<T>& weights, const Tensor<T>& x);

// Weights [from, to] that keep the variance: N(0, gain^2 / from).
Init scaled_normal(index_t from, double gain = 1);

}  // namespace attn
