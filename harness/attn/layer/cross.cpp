#include "attn/layer/cross.hpp"

namespace attn {

Problem cross_problem(const LayerShape& shape, index_t batch, index_t queries, index_t keys) {
  const index_t head_dim = shape.width / shape.heads;
  return {.batch = batch,
          .heads = shape.heads,
          .kv_heads = shape.heads,
          .q_len = queries,
          .kv_len = keys,
          .head_dim = head_dim,
          .value_dim = head_dim};
}

Status supports_cross(const LayerShape& shape, const Variant& variant, index_t queries, index_t keys) {
  const std::string name = variant.name().label();
  if (shape.width < 1 || shape.heads < 1 || shape.width % shape.heads != 0)
    return refuse("width=" + std::to_string(shape.width) + " is no multiple of heads=" + std::to_string(shape.heads));
  if (!variant.info().cross || !reads_values(variant))
    return refuse(name + " has no cross form: it mixes the tokens of one sequence");
  if (!variant.info().row_wise)
    return refuse(name + " makes no row without all others, and a decoder has those before an answer only");
  const Problem p = cross_problem(shape, 1, queries, keys);
  if (Status status = variant.supports(p); !status) return status;
  if (Status status = supports_unseen(variant, p); !status) return refuse(name + " " + status.reason());
  return {};
}

Parameters cross_parameters(const LayerShape& shape, const Variant& variant, index_t queries, index_t keys) {
  Parameters all;
  for (const char* name : {"Wq", "Wk", "Wv", "Wo"}) {
    if (reads_queries(variant) || name[1] == 'v' || name[1] == 'o')
      all.push_back({.name = name, .shape = {shape.width, shape.width}, .init = scaled_normal(shape.width)});
  }
  declare(all, "mixer", variant.parameters(cross_problem(shape, 1, queries, keys)));
  return all;
}

template <class T>
CrossMemory<T> cross_memory(const LayerShape& shape, const Variant& variant, const Weights<T>& weights, const Tensor<T>& others) {
  const Tensor<T> v = to_heads(matmul(others, weights["Wv"]), shape.heads);
  return {reads_queries(variant) ? to_heads(matmul(others, weights["Wk"]), shape.heads) : v, v};
}

template <class T>
Tensor<T> cross(const LayerShape& shape, const Variant& variant, const Weights<T>& weights, const Tensor<T>& x,
                const CrossMemory<T>& memory, index_t queries, index_t first) {
  const Problem p = cross_problem(shape, x.extent(0), queries, memory.k.extent(2));
  const Tensor<T> q = to_heads(reads_queries(variant) ? matmul(x, weights["Wq"]) : x, shape.heads);
  const ParameterSet<T> own = weights.of("mixer").set();
  const Tensor<T> mixed = q.extent(2) == queries ? mix(variant, p, q, memory.k, memory.v, own)
                                                 : mix_rows(variant, p, first, q, memory.k, memory.v, own);
  return matmul(from_heads(mixed), weights["Wo"]);
}

#define ATTN_INSTANTIATE(T)                                                                                                        \
  template CrossMemory<T> cross_memory(const LayerShape&, const Variant&, const Weights<T>&, const Tensor<T>&);                    \
  template Tensor<T> cross(const LayerShape&, const Variant&, const Weights<T>&, const Tensor<T>&, const CrossMemory<T>&, index_t, \
                           index_t);
ATTN_INSTANTIATE(float)
ATTN_INSTANTIATE(double)
#undef ATTN_INSTANTIATE

}  // namespace attn
