#include "attn/layer/model.hpp"

#include <array>

#include "attn/layer/encoder_decoder.hpp"

namespace attn {

namespace {

// Large beside the usual 0.02: at widths of 32 to 128 associative recall leaves its plateau sooner.
constexpr double embedding_std = 0.5;

constexpr std::array bodies = {std::pair{Body::layers, "layers"}, std::pair{Body::recurrent, "recurrent"}};

}  // namespace

std::string_view to_string(Body body) { return bodies[body == Body::recurrent ? 1 : 0].second; }

Result<Body> parse_body(std::string_view text) {
  for (const auto& [body, name] : bodies) {
    if (name == text) return body;
  }
  return refuse("'" + std::string(text) + "' is not one of layers, recurrent");
}

Status supports(const ModelShape& shape, const Variant& variant) {
  if (shape.pool == Pool::decoded) return supports_decoding(shape, variant);
  if (shape.beam != 1) return refuse("a beam is for answers in a sequence, and this task asks for none");
  if (shape.body == Body::recurrent) return refuse("a recurrent encoder and decoder answer in sequences, and this task does not");
  return supports(shape.layer, variant, shape.length);
}

Parameters embedding_parameters(const LayerShape& shape, index_t symbols, index_t length) {
  Parameters all{{.name = "embedding", .shape = {symbols, shape.width}, .init = init::normal(embedding_std)}};
  if (shape.positions == Positions::learned)
    all.push_back({.name = "positions", .shape = {length, shape.width}, .init = init::normal(embedding_std)});
  return all;
}

template <class T>
Tensor<T> embed(const LayerShape& shape, const Weights<T>& weights, const Indices& symbols, index_t first) {
  const index_t end = first + symbols.extent(1);
  const Tensor<T> x = sum(take(weights["embedding"], symbols, 0), 2);
  if (shape.positions == Positions::learned) return x + slice(weights["positions"], 0, first, end);
  if (shape.positions == Positions::sinusoidal) return x + slice(sinusoids<T>(end, shape.width), 0, first, end);
  return x;
}

Parameters head_parameters(index_t width, index_t classes) {
  return {{.name = "head", .shape = {width, classes}, .init = scaled_normal(width)},
          {.name = "head_bias", .shape = {classes}, .init = init::zeros()}};
}

template <class T>
Tensor<T> head(const Weights<T>& weights, const Tensor<T>& x) {
  return matmul(x, weights["head"]) + weights["head_bias"];
}

Parameters model_parameters(const ModelShape& shape, const Variant& variant) {
  if (shape.pool == Pool::decoded) return decoding_parameters(shape, variant);
  Parameters all = embedding_parameters(shape.layer, shape.symbols, shape.length);
  for (index_t l = 0; l < shape.layers; ++l)
    declare(all, numbered("layer", l), layer_parameters(shape.layer, variant, shape.length));
  declare(all, "norm", norm_parameters(shape.layer.width));
  for (ParameterSpec& spec : head_parameters(shape.layer.width, shape.classes)) all.push_back(std::move(spec));
  return all;
}

template <class T>
Tensor<T> logits(const ModelShape& shape, const Variant& variant, const ParameterSet<T>& parameters, const Tokens& tokens) {
  if (shape.pool == Pool::decoded) return decoding_logits(shape, variant, parameters, tokens);
  const Weights<T> weights(parameters);
  Tensor<T> x = embed(shape.layer, weights, tokens.symbols);
  for (index_t l = 0; l < shape.layers; ++l) x = layer(shape.layer, variant, weights.of(numbered("layer", l)), x);
  return head(weights, shape.pool == Pool::mean ? mean(norm(weights.of("norm"), x), 1, Keep::yes)
                                                : norm(weights.of("norm"), gather_rows(x, tokens.at)));
}

#define ATTN_INSTANTIATE(T)                                                                \
  template Tensor<T> embed(const LayerShape&, const Weights<T>&, const Indices&, index_t); \
  template Tensor<T> head(const Weights<T>&, const Tensor<T>&);                            \
  template Tensor<T> logits(const ModelShape&, const Variant&, const ParameterSet<T>&, const Tokens&);
ATTN_INSTANTIATE(float)
ATTN_INSTANTIATE(double)
#undef ATTN_INSTANTIATE

}  // namespace attn
