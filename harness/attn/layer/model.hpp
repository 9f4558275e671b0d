// A small model: embedding, layers of one variant, a head that classifies.
#pragma once

#include "attn/layer/layer.hpp"

namespace attn {

// Where the answers are read off.
enum class Pool {
  mean,    // one answer a sequence, from the mean over its tokens
  chosen,  // one answer for each token chosen (Tokens::at): the class token, or every token with a label
};

struct ModelShape {
  LayerShape layer;
  index_t layers = 1;
  index_t length = 64;   // tokens of a sequence
  index_t symbols = 16;  // rows of the embedding
  index_t classes = 10;
  Pool pool = Pool::mean;
};

// What a model reads.
struct Tokens {
  Indices symbols;  // [batch, length, n]: a token is the sum of the embeddings of its n symbols; -1 is no symbol
  Indices at;       // [batch, answers], for Pool::chosen
};

Status supports(const ModelShape& shape, const Variant& variant);
Parameters model_parameters(const ModelShape& shape, const Variant& variant);

// [batch, answers, classes]; one answer with Pool::mean.
template <class T>
Tensor<T> logits(const ModelShape& shape, const Variant& variant, const ParameterSet<T>& parameters, const Tokens& tokens);

}  // namespace attn
