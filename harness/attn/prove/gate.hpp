// Correctness before time: a fast path's output against the variant's definition in double.
#pragma once

#include <cstdint>
#include <optional>

#include "attn/cell/cell.hpp"
#include "attn/exec/arena.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// Compares `output`, which the planned fast path just wrote for `p`, with the definition.
//
// Up to 1024 queries and keys the whole output is compared. Above, sampled rows of this problem where the variant is
// row-wise; otherwise a twin of 1024 queries and keys is planned and run. The allowance is twice the largest error
// that the definition makes in float (the factor is that of FlashAttention's tests), plus 16 float epsilons of the largest value:
// what rounding an exponent of 16 does to a weight, which a definition of few elements may happen to escape; and the least
// normal float, below which the kernels flush to zero. Rows beyond it are allowed twice the largest of several
// errors that the definition makes in float, of inputs that are a rounding away from the given ones.
// The inputs are those that the fast path is given, as rounded to their number types. Of a path that rounds the operands of its products
// (Variant::compute), the definition in float rounds them too, and the floor is such a rounding of the weighted sum of |v|.
// Call outside an arena: the definition is serial, the twin runs in `arena`.
GateResult check_against_definition(const Variant& variant, const Problem& p, const Arrays& in,
                                    const ParameterSet<float>& parameters, std::uint64_t parameter_seed,
                                    View<const float, 4> output, const Arena& arena);

// The same of a decode (Pass::decode), whose step just wrote `output`: rows of the causal definition at the last positions of the sequence.
// `sequence` holds k and v of all tokens, and q of the step; of all tokens for what is not row-wise, which is evaluated whole up to
// 1024 tokens and above that on a twin that decodes the last of the first 1024.
GateResult check_step_against_definition(const Variant& variant, const Problem& p, const Arrays& sequence,
                                         const ParameterSet<float>& parameters, std::uint64_t parameter_seed,
                                         View<const float, 4> output, const Arena& arena);

// The same in two steps, for several outputs of one problem: all rows, whatever the length.
struct Reference {
  Tensor<double> exact;   // the definition in double
  Tensor<float> rounded;  // and in float: the yardstick of rounding
  double floor = 0;       // what is allowed beyond twice its error
};
Reference evaluate_definition(const Variant& variant, const Problem& p, const Arrays& in, const ParameterSet<float>& parameters);
GateResult compare_with_reference(const Reference& reference, View<const float, 4> output);

// What rounding the inputs to their number types does to the definition: the Frobenius norm of the difference in the output over that of the
// definition, at the rows that check_against_definition or check_step_against_definition would compare. `stored` and `given`: the inputs
// as rounded and as they were, of a decode those of the sequence. Nothing where the definition is judged on a twin.
std::optional<double> storage_error(const Variant& variant, const Problem& p, const Arrays& stored, const Arrays& given,
                                    const ParameterSet<float>& parameters);

inline bool passed(const GateResult& gate) { return gate.max_abs <= gate.allowance_abs; }

}  // namespace attn
