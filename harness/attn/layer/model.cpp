#include "attn/layer/model.hpp"

namespace attn {

namespace {

// Large beside the usual 0.02: at widths of 32 to 128 associative recall leaves its plateau sooner.
constexpr double embedding_std = 0.5;

std::string layer_name(index_t l) { return "layer" + std::to_string(l); }

}  // namespace

Status supports(const ModelShape& shape, const Variant& variant) { return supports(shape.layer, variant, shape.length); }

Parameters model_parameters(const ModelShape& shape, const Variant& variant) {
  const index_t width = shape.layer.width;
  Parameters all{{.name = "embedding", .shape = {shape.symbols, width}, .init = init::normal(embedding_std)}};
  if (shape.layer.positions == Positions::learned)
    all.push_back({.name = "positions", .shape = {shape.length, width}, .init = init::normal(embedding_std)});
  for (index_t l = 0; l < shape.layers; ++l) declare(all, layer_name(l), layer_parameters(shape.layer, variant, shape.length));
  declare(all, "norm", norm_parameters(width));
  all.push_back({.name = "head", .shape = {width, shape.classes}, .init = scaled_normal(width)});
  all.push_back({.name = "head_bias", .shape = {shape.classes}, .init = init::zeros()});
  return all;
}

template <class T>
Tensor<T> logits(const ModelShape& shape, const Variant& variant, const ParameterSet<T>& parameters, const Tokens& tokens) {
  const Weights<T> weights(parameters);
  Tensor<T> x = sum(take(weights["embedding"], tokens.symbols, 0), 2);
  if (shape.layer.positions == Positions::learned) x = x + weights["positions"];
  if (shape.layer.positions == Positions::sinusoidal) x = x + sinusoids<T>(shape.length, shape.layer.width);
  for (index_t l = 0; l < shape.layers; ++l) x = layer(shape.layer, variant, weights.of(layer_name(l)), x);
  const Tensor<T> read = shape.pool == Pool::mean ? mean(norm(weights.of("norm"), x), 1, Keep::yes)
                                                  : norm(weights.of("norm"), gather_rows(x, tokens.at));
  return matmul(read, weights["head"]) + weights["head_bias"];
}

#define ATTN_INSTANTIATE(T) template Tensor<T> logits(const ModelShape&, const Variant&, const ParameterSet<T>&, const Tokens&);
ATTN_INSTANTIATE(float)
ATTN_INSTANTIATE(double)
#undef ATTN_INSTANTIATE

}  // namespace attn
