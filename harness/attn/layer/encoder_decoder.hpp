// A sequence to a sequence (Pool::decoded): an encoder reads all of one, a decoder answers with the other and looks back at the encoder's
// tokens by cross-attention. model.hpp is the door.
//
// Body::recurrent:
//   the encoder is a gated recurrent unit in both directions, half the width each; forwards alone in a causal one
//   h_t = GRU(y_(t-1), h_(t-1)), h_0 = tanh(last Wb + b);  answer_t = head tanh(h_t Wh + bh + cross(h_t))
//   as Luong et al. 2015, arXiv:1508.04025, section 3 (global attention, without input feeding), of Cho et al. 2014, arXiv:1406.1078
//   A variant `gru` joins nothing: the recurrent model itself, of whose encoder the last state is all that the decoder is told.
// Body::layers:
//   the encoder is a stack of layers of the variant, causal or not; one of the decoder is a causal mixer, cross-attention and an MLP, each with a norm
//   before it and a residual around it, as Vaswani et al. 2017, arXiv:1706.03762, section 3.1 (there the norm comes behind)
#pragma once

#include "attn/layer/model.hpp"

namespace attn {

Status supports_decoding(const ModelShape& shape, const Variant& variant);
Parameters decoding_parameters(const ModelShape& shape, const Variant& variant);
template <class T>
Tensor<T> decoding_logits(const ModelShape& shape, const Variant& variant, const ParameterSet<T>& parameters, const Tokens& tokens);

// G gated recurrent units side by side over their own tokens: x [G,batch,N,from], first states h [G,batch,units] -> [G,batch,N,units].
Parameters recurrent_parameters(index_t units_side_by_side, index_t from, index_t units);
template <class T>
Tensor<T> recurrent(const Weights<T>& weights, const Tensor<T>& x, Tensor<T> h);

}  // namespace attn
