#include "attn/layer/mixer.hpp"

namespace attn {

namespace {

template <class T>
Tensor<T> by_definition(const Variant& variant, const Problem& p, const Tensor<T>& q, const Tensor<T>& k, const Tensor<T>& v,
                        const ParameterSet<T>& parameters) {
  Inputs<T> in{q, k, v, {}};
  for (index_t row = 0; row < p.q_len; ++row) in.position.push_back(p.query_position(row));
  return variant.definition(p, in, parameters);
}

}  // namespace

Tensor<float> mix(const Variant& variant, const Problem& p, const Tensor<float>& q, const Tensor<float>& k, const Tensor<float>& v,
                  const ParameterSet<float>& parameters) {
  return by_definition(variant, p, q, k, v, parameters);
}

Tensor<double> mix(const Variant& variant, const Problem& p, const Tensor<double>& q, const Tensor<double>& k,
                   const Tensor<double>& v, const ParameterSet<double>& parameters) {
  return by_definition(variant, p, q, k, v, parameters);
}

}  // namespace attn
