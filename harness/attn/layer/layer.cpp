#include "attn/layer/layer.hpp"

#include <cmath>

namespace attn {

namespace {

// Outputs that are added to the residual start at half their size, so that a layer starts near the identity.
constexpr double residual_gain = 0.5;

// Starts as the identity with a little of the neighbours.
Init near_identity(index_t taps) {
  return [taps](std::span<float> values, const Shape& shape, const Rng& rng) {
    init::normal(0.1)(values, shape, rng);
    const index_t width = shape.back();
    for (index_t c = 0; c < width; ++c) values[static_cast<std::size_t>((taps - 1) * width + c)] += 1;
  };
}

}  // namespace

bool reads_queries(const Variant& variant) { return variant.info().reads == Reads::qkv; }
bool reads_values(const Variant& variant) { return variant.info().reads != Reads::x; }

template <class T>
Tensor<T> to_heads(const Tensor<T>& x, index_t heads) {
  return swap_axes(reshape(x, {x.extent(0), x.extent(1), heads, -1}), 1, 2);
}

template <class T>
Tensor<T> from_heads(const Tensor<T>& x) {
  return flatten(swap_axes(x, 1, 2), 2, 3);
}

Init scaled_normal(index_t from, double gain) { return init::normal(gain / std::sqrt(static_cast<double>(from))); }

Problem mixer_problem(const LayerShape& shape, index_t batch, index_t length) {
  const index_t head_dim = shape.width / shape.heads;
  return {.batch = batch,
          .heads = shape.heads,
          .kv_heads = shape.heads,
          .q_len = length,
          .kv_len = length,
          .head_dim = head_dim + (shape.positions == Positions::alibi ? 1 : 0),
          .value_dim = head_dim,
          .causal = shape.causal};
}

Status supports(const LayerShape& shape, const Variant& variant, index_t length) {
  const auto given = [](const char* name, index_t value) { return std::string(name) + "=" + std::to_string(value); };
  if (shape.width < 1 || shape.heads < 1 || shape.width % shape.heads != 0)
    return refuse(given("width", shape.width) + " is no multiple of " + given("heads", shape.heads));
  const index_t head_dim = shape.width / shape.heads;
  if (shape.positions == Positions::rotary || shape.positions == Positions::alibi) {
    const std::string name(to_string(shape.positions));
    if (!reads_queries(variant))
      return refuse(name + " positions act on queries and keys, which " + variant.name().label() + " does not read");
    if (shape.positions == Positions::rotary && head_dim % 2 != 0)
      return refuse("rotary positions need an even head_dim, given " + std::to_string(head_dim));
    if (shape.positions == Positions::alibi && (!shape.causal || variant.info().exactness == Exactness::different))
      return refuse("alibi positions are for causal softmax attention, given " + variant.name().label() +
                    (shape.causal ? "" : " in a bidirectional layer"));
  }
  const Problem p = mixer_problem(shape, 1, length);
  if (Status status = variant.supports(p); !status) return status;
  if (Status status = supports_unseen(variant, p); !status) return refuse(variant.name().label() + " " + status.reason());
  return {};
}

Status supports_unseen(const Variant& variant, const Problem& p) {
  for (const InputSpec& spec : variant.inputs(p)) return refuse("reads '" + spec.name + "', which no layer makes");
  for (const ParameterSpec& spec : variant.parameters(p)) {
    if (spec.fit) return refuse("fits " + spec.name + " to one Q, K and V, and those of a layer are not known before it runs");
  }
  return {};
}

Parameters norm_parameters(index_t width) {
  return {{.name = "gain", .shape = {width}, .init = init::constant(1)}, {.name = "bias", .shape = {width}, .init = init::zeros()}};
}

template <class T>
Tensor<T> norm(const Weights<T>& weights, const Tensor<T>& x) {
  return layer_norm(x) * weights["gain"] + weights["bias"];
}

Parameters layer_parameters(const LayerShape& shape, const Variant& variant, index_t length) {
  const index_t width = shape.width;
  const auto square = [&](const char* name, double gain) -> ParameterSpec {
    return {.name = name, .shape = {width, width}, .init = scaled_normal(width, gain)};
  };
  Parameters all;
  declare(all, "norm", norm_parameters(width));
  if (shape.conv > 0) all.push_back({.name = "conv", .shape = {shape.conv, width}, .init = near_identity(shape.conv)});
  if (reads_queries(variant)) {
    all.push_back(square("Wq", 1));
    all.push_back(square("Wk", 1));
  }
  if (reads_values(variant)) all.push_back(square("Wv", 1));
  all.push_back(square("Wo", residual_gain));
  declare(all, "mixer", variant.parameters(mixer_problem(shape, 1, length)));
  declare_mlp(all, shape);
  return all;
}

void declare_mlp(Parameters& all, const LayerShape& shape) {
  if (shape.mlp == 0) return;
  declare(all, "mlp_norm", norm_parameters(shape.width));
  all.push_back({.name = "W1", .shape = {shape.width, shape.mlp}, .init = scaled_normal(shape.width)});
  all.push_back({.name = "b1", .shape = {shape.mlp}, .init = init::zeros()});
  all.push_back({.name = "W2", .shape = {shape.mlp, shape.width}, .init = scaled_normal(shape.mlp, residual_gain)});
  all.push_back({.name = "b2", .shape = {shape.width}, .init = init::zeros()});
}

template <class T>
Tensor<T> plus_mlp(const LayerShape& shape, const Weights<T>& weights, const Tensor<T>& x) {
  if (shape.mlp == 0) return x;
  const Tensor<T> hidden = relu(matmul(norm(weights.of("mlp_norm"), x), weights["W1"]) + weights["b1"]);
  return x + matmul(hidden, weights["W2"]) + weights["b2"];
}

template <class T>
Tensor<T> layer(const LayerShape& shape, const Variant& variant, const Weights<T>& weights, const Tensor<T>& x, Mixing mixing) {
  const Problem p = mixer_problem(shape, x.extent(0), x.extent(1));
  Tensor<T> y = norm(weights.of("norm"), x);
  if (shape.conv > 0) y = depthwise_conv(y, weights["conv"], shape.conv - 1);
  const auto projected = [&](const char* name) { return to_heads(matmul(y, weights[name]), shape.heads); };
  Tensor<T> q, k;
  if (reads_queries(variant)) {
    q = projected("Wq");
    k = projected("Wk");
    if (shape.positions == Positions::rotary) {
      q = rotate(q);
      k = rotate(k);
    }
    if (shape.positions == Positions::alibi) add_alibi(q, k);
  } else {
    q = k = to_heads(y, shape.heads);
  }
  const Tensor<T> v = reads_values(variant) ? projected("Wv") : q;
  const Tensor<T> mixed = from_heads(mix(variant, p, q, k, v, weights.of("mixer").set(), mixing));
  return plus_mlp(shape, weights, x + matmul(mixed, weights["Wo"]));
}

#define ATTN_INSTANTIATE(T)                                                            \
  template Tensor<T> plus_mlp(const LayerShape&, const Weights<T>&, const Tensor<T>&); \
  template Tensor<T> to_heads(const Tensor<T>&, index_t);                              \
  template Tensor<T> from_heads(const Tensor<T>&);                                     \
  template Tensor<T> norm(const Weights<T>&, const Tensor<T>&);                        \
  template Tensor<T> layer(const LayerShape&, const Variant&, const Weights<T>&, const Tensor<T>&, Mixing);
ATTN_INSTANTIATE(float)
ATTN_INSTANTIATE(double)
#undef ATTN_INSTANTIATE

}  // namespace attn
