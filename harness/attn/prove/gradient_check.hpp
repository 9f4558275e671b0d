// Gradients of a variant's definition: by the tape, by differences, and against the hand-written backward pass.
#pragma once

#include <string>
#include <vector>

#include "attn/variant/registry.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// The definition in double as a function of q, k, v and the trainable parameters, the rest of the parameters held fast.
class DefinitionFunction {
 public:
  DefinitionFunction(const Variant& variant, const Problem& p, const ParameterSet<float>& parameters);

  const std::vector<std::string>& arguments() const { return names_; }  // "q", "k", "v", then names of parameters
  Tensor<double> operator()(const std::vector<Tensor<double>>& values) const;

 private:
  const Variant& variant_;
  Problem problem_;
  std::vector<std::string> names_;
  ParameterSet<double> parameters_;
  std::vector<index_t> position_;
  std::map<std::string, Tensor<double>, std::less<>> more_;  // what it reads beside q, k and v: constants
};

// The gradients of sum(weights * definition) with respect to every argument, by the tape.
std::vector<Tensor<double>> tape_gradients(const DefinitionFunction& f, const std::vector<Tensor<double>>& at,
                                           const Tensor<double>& weights);

// Compares the tape with central differences of sum(weights * definition), weights and point being random, along random
// directions of each argument in turn. Returns the first disagreement as a sentence, or nothing.
//
// Where the definition chooses by number (hashes, the largest k, clusters) or has a kink, a step may cross to another choice, and a
// difference across says nothing about the slope on either side. It shows, because the quotient then depends on the step: only
// directions in which two steps agree are compared, others are replaced by shorter ones elsewhere; running out of them is a
// failure.
std::string compare_tape_with_differences(const Variant& variant, const Problem& p);

// What a backward pass wrote for one argument, against the tape in double: Frobenius norms.
struct GradientError {
  std::string argument;
  double error, norm, allowed;
};
// Allowed is 1e-4 of the argument's own gradient, and 1e-5 of the largest one: a gradient that cancels to nothing, as that of a
// lone key's score, keeps the rounding of the others.
std::vector<GradientError> compare_backward_with_tape(const Variant& variant, const Problem& p, const Arrays& in,
                                                      const ParameterSet<float>& parameters, const Gradients& gradients);

// Plans `p`, runs both passes on its share of the inputs (the first rows of the first batch items) and compares. The variant has a
// backward pass for it. Call outside an arena.
std::vector<GradientError> check_backward(const Variant& variant, const Problem& p, const Arrays& in, std::uint64_t seed,
                                          const Arena& arena);

}  // namespace attn
