#include "attn/layer/mixer.hpp"

#include <memory>

#include "attn/algebra/given_gradient.hpp"
#include "attn/exec/arena.hpp"
#include "attn/variant/planned.hpp"

namespace attn {

namespace {

template <class T>
Tensor<T> by_definition(const Variant& variant, const Problem& p, const Tensor<T>& q, const Tensor<T>& k, const Tensor<T>& v,
                        const ParameterSet<T>& parameters, index_t first = 0) {
  Values<T> in{q, k, v, {}};
  for (index_t row = first; row < first + q.extent(2); ++row) in.position.push_back(p.query_position(row));
  return variant.definition(p, in, parameters);
}

View<const float, 4> view(const Tensor<float>& x) { return {x.data(), {x.extent(0), x.extent(1), x.extent(2), x.extent(3)}}; }

// An array to be filled, and the view to fill it through.
struct Filled {
  Elements<float> array;
  View<float, 4> view;

  explicit Filled(const Shape& shape) : array(shape), view(array.writable(), {shape[0], shape[1], shape[2], shape[3]}) {}
};

// One forward pass by the fast path, and what its backward pass needs.
struct FastPass {
  Planned planned;
  Tensor<float> q, k, v, out;
  Arrays arrays;
  Parameters specs;

  FastPass(const Variant& variant, const Problem& p, const Tensor<float>& q_, const Tensor<float>& k_, const Tensor<float>& v_,
           const ParameterSet<float>& given)
      : planned(variant, p, arena_threads()), q(detach(q_)), k(detach(k_)), v(detach(v_)), specs(variant.parameters(p)) {
    ParameterSet<float> parameters;
    for (const auto& [name, tensor] : given.all()) parameters.set(name, detach(tensor));
    planned.equip(std::move(parameters));
    const Filled made({p.batch, p.heads, p.q_len, p.value_dim});
    arrays = {.q = view(q), .k = view(k), .v = view(v), .out = made.view};
    planned.run(arrays);
    out = Tensor<float>(made.array);
  }

  // Gradients of q, k, v and the trainable parameters, in this order.
  std::vector<Tensor<float>> pull(const Tensor<float>& d_out) {
    const Filled d_q(q.shape()), d_k(k.shape()), d_v(v.shape());
    const ParameterGradients d_parameters(specs);
    planned.backward(arrays, {{.d_out = view(d_out), .d_q = d_q.view, .d_k = d_k.view, .d_v = d_v.view}, d_parameters});
    std::vector<Tensor<float>> list;
    for (const Filled* filled : {&d_q, &d_k, &d_v}) list.emplace_back(filled->array);
    for (const auto& spec : specs) {
      if (spec.trainable) list.push_back(d_parameters[spec.name]);
    }
    return list;
  }
};

}  // namespace

Tensor<float> mix(const Variant& variant, const Problem& p, const Tensor<float>& q, const Tensor<float>& k, const Tensor<float>& v,
                  const ParameterSet<float>& parameters, Mixing mixing) {
  if (mixing == Mixing::definition || !variant.supports_backward(p)) return by_definition(variant, p, q, k, v, parameters);
  Problem both = p;
  both.pass = Pass::forward_backward;
  const auto pass = std::make_shared<FastPass>(variant, both, q, k, v, parameters);
  std::vector<Tensor<float>> from = {q, k, v};
  for (const auto& spec : pass->specs) {
    if (spec.trainable) from.push_back(parameters[spec.name]);
  }
  return with_gradient<float>(pass->out, from, [pass](const Tensor<float>& gradient) { return pass->pull(gradient); });
}

Tensor<double> mix(const Variant& variant, const Problem& p, const Tensor<double>& q, const Tensor<double>& k,
                   const Tensor<double>& v, const ParameterSet<double>& parameters, Mixing) {
  return by_definition(variant, p, q, k, v, parameters);
}

template <class T>
Tensor<T> mix_rows(const Variant& variant, const Problem& p, index_t first, const Tensor<T>& q, const Tensor<T>& k,
                   const Tensor<T>& v, const ParameterSet<T>& parameters) {
  ATTN_ASSERT(variant.info().row_wise && 0 <= first && first + q.extent(2) <= p.q_len);
  return by_definition(variant, p, q, k, v, parameters, first);
}

#define ATTN_INSTANTIATE(T)                                                                                                  \
  template Tensor<T> mix_rows(const Variant&, const Problem&, index_t, const Tensor<T>&, const Tensor<T>&, const Tensor<T>&, \
                              const ParameterSet<T>&);
ATTN_INSTANTIATE(float)
ATTN_INSTANTIATE(double)
#undef ATTN_INSTANTIATE

}  // namespace attn
