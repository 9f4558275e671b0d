// Properties of gradients: the definition's against differences, the backward pass against the definition's.
#include "attn/core/rng.hpp"
#include "attn/prove/conformance_checker.hpp"
#include "attn/prove/gradient_check.hpp"

namespace attn::conformance {

namespace {

void fill_normal(const View<float, 4>& view) {
  const Rng rng(7, "gradient of the output");
  index_t next = 0;
  for_each_element(view, 0, 0, 0, [&](float& x) { x = static_cast<float>(rng.normal(next++)); });
}

// The smallest, ends that no block divides, unlike lengths and grouped heads; the last is longer than default windows and blocks.
std::vector<Problem> gradient_problems(bool thorough) {
  std::vector<Problem> list = {{.batch = 1, .heads = 1, .kv_heads = 1, .q_len = 1, .kv_len = 1, .head_dim = 3, .value_dim = 3},
                               {.batch = 2, .heads = 2, .kv_heads = 2, .q_len = 13, .kv_len = 13, .head_dim = 5, .value_dim = 5},
                               {.batch = 1, .heads = 1, .kv_heads = 1, .q_len = 9, .kv_len = 14, .head_dim = 6, .value_dim = 3},
                               {.batch = 1, .heads = 4, .kv_heads = 2, .q_len = 11, .kv_len = 11, .head_dim = 4, .value_dim = 4},
                               {.batch = 1, .heads = 1, .kv_heads = 1, .q_len = 150, .kv_len = 150, .head_dim = 4, .value_dim = 4}};
  if (thorough) {
    list.push_back({.batch = 1, .heads = 2, .kv_heads = 1, .q_len = 20, .kv_len = 6, .head_dim = 8, .value_dim = 8});
    list.push_back({.batch = 1, .heads = 2, .kv_heads = 2, .q_len = 260, .kv_len = 260, .head_dim = 8, .value_dim = 8});
  }
  const std::size_t shapes = list.size();
  for (std::size_t i = 0; i < shapes; ++i) {
    Problem causal = list[i];
    causal.causal = true;
    list.push_back(causal);
  }
  return list;
}

}  // namespace

void Checker::gradient() {
  if (!options_.gradient) return none("left out");
  for (const Problem& p : gradient_problems(options_.thorough)) {
    if (!variant_.supports(p)) continue;
    begin(p);
    if (const std::string failure = compare_tape_with_differences(variant_, p); !failure.empty()) fail(p, failure);
  }
}

// Against the tape in double; besides, every element is written, a second pass gives the same bits, nothing is allocated.
void Checker::backward() {
  const Arena arena(options_.threads);
  start_threads(arena);
  for_each_supported([&](Problem p) {
    if (!variant_.supports_backward(p)) return;
    p.pass = Pass::forward_backward;
    for (const Layout layout : {Layout::dense, Layout::interleaved}) {
      begin(p, to_string(layout));
      const Case c = case_of(p, layout);
      const Planned planned = plan(p, options_.threads, Workspace::Mode::checked);
      planned.run(arena, c.arrays());
      const bool gaps_were_intact = planned.workspace().gaps_intact();
      c.make_inputs_read_only();

      const Case gradients(p, layout, Border::guard_after);
      ParameterGradients of_parameters(variant_.parameters(p));
      const Gradients arrays{{.d_out = gradients.out, .d_q = gradients.q, .d_k = gradients.k, .d_v = gradients.v}, of_parameters};
      fill_normal(gradients.out);
      const auto pass = [&] {
        for (const auto* view : {&gradients.q, &gradients.k, &gradients.v})
          for_each_element(*view, 0, 0, 0, [](float& x) { x = nan; });
        if (options_.meter != nullptr) options_.meter->start();
        arena.execute([&] { planned.backward(c.arrays(), arrays); });
        return options_.meter != nullptr ? options_.meter->stop() : OutsideCalls{};
      };
      pass();
      for (const auto& [argument, error, norm, allowed] :
           compare_backward_with_tape(variant_, p, c.arrays(), planned.parameters(), arrays)) {
        if (!(error <= allowed)) fail(p, "the gradient of " + argument + " is off by " + brief(error) + " of " + brief(norm));
      }
      const auto written = [&] {
        std::vector<std::vector<float>> list;
        for (const auto* view : {&gradients.q, &gradients.k, &gradients.v}) {
          const Tensor<float> copy = Tensor<float>::from(*view);
          list.emplace_back(copy.values().begin(), copy.values().end());
        }
        return list;
      };
      const auto first = written();
      const OutsideCalls calls = pass();
      if (calls.allocations != 0) fail(p, "allocations in a backward pass, the first by " + calls.first_allocation_by);
      const auto second = written();
      for (std::size_t i = 0; i < first.size(); ++i) {
        if (!same_bits(first[i], second[i])) fail(p, "a second backward pass gave other bits");
      }
      if (gaps_were_intact && !planned.workspace().gaps_intact()) fail(p, "a booked array was overrun in a backward pass");
    }
  });
  if (finding_.cases == 0) none("has no backward pass");
}

}  // namespace attn::conformance
