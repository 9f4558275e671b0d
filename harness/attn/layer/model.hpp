// A small model: embedding, layers of one variant, a head that classifies; or an encoder and a decoder that answers in a sequence.
#pragma once

#include "attn/layer/layer.hpp"

namespace attn {

// Where the answers are read off.
enum class Pool {
  mean,     // one answer a sequence, from the mean over its tokens
  chosen,   // one answer for each token chosen (Tokens::at): the class token, or every token with a label
  decoded,  // a sequence of answers, each after those before it
};

// What carries the tokens.
enum class Body {
  layers,     // of the variant; with Pool::decoded it also joins the decoder's layers to the encoder: Vaswani et al. 2017
  recurrent,  // Pool::decoded alone: gated recurrent units read and answer, and the variant joins them: Luong et al. 2015
};
std::string_view to_string(Body body);
Result<Body> parse_body(std::string_view text);  // layers, recurrent

struct ModelShape {
  LayerShape layer;
  index_t layers = 1;
  Body body = Body::layers;
  index_t length = 64;   // tokens of a sequence
  index_t symbols = 16;  // rows of the embedding
  index_t classes = 10;
  Pool pool = Pool::mean;
  // Of Pool::decoded:
  index_t answers = 1;
  index_t end = -1;  // the class behind which nothing is answered; -1: there is none
  index_t beam = 1;  // hypotheses that decode() goes on with; 1: greedy
};

// What a model reads.
struct Tokens {
  Indices symbols;  // [batch, length, n]: a token is the sum of the embeddings of its n symbols; -1 is no symbol
  Indices at;       // [batch, answers], for Pool::chosen
  Indices before;   // [batch, answers], for Pool::decoded: what was answered before each; `classes` before the first, -1: nothing
};

Status supports(const ModelShape& shape, const Variant& variant);
Parameters model_parameters(const ModelShape& shape, const Variant& variant);

// [batch, answers, classes]; one answer with Pool::mean. With Pool::decoded an answer depends on those that Tokens::before has up to it, and on
// none behind it (teacher forcing).
template <class T>
Tensor<T> logits(const ModelShape& shape, const Variant& variant, const ParameterSet<T>& parameters, const Tokens& tokens);

// Of Pool::decoded: what the model answers when it is told its own answers, [batch, answers]: the likeliest of shape.beam hypotheses. Behind its end
// an answer repeats it. Tokens::before is not read.
template <class T>
Indices decode(const ModelShape& shape, const Variant& variant, const ParameterSet<T>& parameters, const Tokens& tokens);

// The pieces of both kinds of model: tokens with their positions added, [batch, count, width], and what a head makes of them.
Parameters embedding_parameters(const LayerShape& shape, index_t symbols, index_t length);
template <class T>
Tensor<T> embed(const LayerShape& shape, const Weights<T>& weights, const Indices& symbols,
                index_t first = 0);  // [batch, count, n]
Parameters head_parameters(index_t width, index_t classes);
template <class T>
Tensor<T> head(const Weights<T>& weights, const Tensor<T>& x);

}  // namespace attn
