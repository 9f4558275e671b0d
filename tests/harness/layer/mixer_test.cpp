#include "attn/layer/mixer.hpp"

#include "harness/algebra/samples.hpp"
#include "harness/variant_of.hpp"

using namespace attn;
using namespace attn::test;

namespace {

// d sum(weights * mix) with respect to q, k, v and the trainable parameters.
template <class T>
std::vector<Tensor<double>> gradients_of(const Variant& variant, const Problem& p) {
  const Shape shape{p.batch, p.heads, p.q_len, p.head_dim};
  std::vector<Tensor<T>> leaves;
  for (const char* name : {"q", "k", "v"}) leaves.push_back(variable(cast<T>(cast<float>(random(shape, name)))));
  ParameterSet<T> parameters;
  const ParameterSet<float> drawn = make_parameters(variant.parameters(p), 3);
  for (const auto& spec : variant.parameters(p)) {
    const Tensor<T> value = cast<T>(drawn[spec.name]);
    if (spec.trainable) leaves.push_back(variable(value));
    parameters.set(spec.name, spec.trainable ? leaves.back() : value);
  }
  const Tensor<T> mixed = mix(variant, p, leaves[0], leaves[1], leaves[2], parameters);
  std::vector<Tensor<double>> list;
  for (const auto& gradient : gradients(sum(mixed * cast<T>(random(shape, "weights"))), leaves))
    list.push_back(cast<double>(gradient));
  return list;
}

}  // namespace

TEST_CASE("What trains by the fast path has the definition's gradients", "[layer]") {
  for (const char* name : {"full", "softmax1", "longformer:window=4,tokens=2", "linear", "linformer:k=3", "synth_dense",
                           "synth_random:cached=no", "gru"}) {
    for (const bool causal : {false, true}) {
      const Problem p{
          .batch = 2, .heads = 2, .kv_heads = 2, .q_len = 19, .kv_len = 19, .head_dim = 8, .value_dim = 8, .causal = causal};
      const auto variant = variant_of(name);
      if (!variant->supports(p)) continue;
      INFO(name << (causal ? " causal" : ""));
      const auto fast = gradients_of<float>(*variant, p), slow = gradients_of<double>(*variant, p);
      REQUIRE(fast.size() == slow.size());
      for (std::size_t i = 0; i < fast.size(); ++i) {
        const double error = std::sqrt(sum(square(fast[i] - slow[i])).item()), size = std::sqrt(sum(square(slow[i])).item());
        CHECK(error <= 1e-4 * size);
      }
    }
  }
}
