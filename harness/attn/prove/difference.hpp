// Where an output misses its definition, in words: for who looks for the fault.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/view.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// "worst at batch 0, head 1, query 63: 0.31 instead of 0.27; queries 60..63 of that head are off; query 63 weighs keys 64..66 (0.12 in
// all), which the definition does not". The weights are those by which either side's output depends on V, found with V of zeros and
// ones; where an output is no matrix of weights times V, or there are more than 1024 queries or keys, the query alone is named.
// `in`, with floats as V: what the fast path was given; `run` runs it on others of the same shapes. `allowed`: largest difference that
// is no fault. Empty where the problem is no forward pass over sequences of one length.
std::string where_it_differs(const Variant& variant, const Problem& p, const Arrays& in, const ParameterSet<float>& parameters,
                             double allowed, const std::function<void(const Arrays&)>& run);

// "3..7, 9", of ascending numbers; of many parts the first few and how many more.
std::string ranges_text(std::span<const index_t> numbers);

// What one query's weights say, of the run and of the definition; empty where nothing sets them apart.
std::string weights_text(index_t query, std::span<const double> run, std::span<const double> definition);

}  // namespace attn
