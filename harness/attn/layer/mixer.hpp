// The door between a layer and a variant: whatever mixes tokens goes through here, and gradients flow back through it.
#pragma once

#include "attn/variant/variant.hpp"

namespace attn {

// Gradients flow back through either; `definition` alone is independent of the fast paths.
enum class Mixing { fastest, definition };

// q [B,H,N,D], k [B,Hk,M,D], v [B,Hk,M,Dv] -> [B,H,N,Dv]. A variant that reads x finds it in q (Inputs::x). The variant
// supports p; `parameters` are those it declares for p, trained ones as variables (gradient.hpp). In float, a variant with a
// backward pass of its own runs its fast path, on the threads of the arena that the caller runs in; the others run their
// definition, and so does everything in double.
Tensor<float> mix(const Variant& variant, const Problem& p, const Tensor<float>& q, const Tensor<float>& k, const Tensor<float>& v,
                  const ParameterSet<float>& parameters, Mixing mixing = Mixing::fastest);
Tensor<double> mix(const Variant& variant, const Problem& p, const Tensor<double>& q, const Tensor<double>& k,
                   const Tensor<double>& v, const ParameterSet<double>& parameters, Mixing mixing = Mixing::fastest);

// Rows first, first + 1, ... of that, as many as q [B,H,rows,D] has, by the definition: of a variant whose rows do without each other
// (VariantInfo::row_wise).
template <class T>
Tensor<T> mix_rows(const Variant& variant, const Problem& p, index_t first, const Tensor<T>& q, const Tensor<T>& k,
                   const Tensor<T>& v, const ParameterSet<T>& parameters);

}  // namespace attn
