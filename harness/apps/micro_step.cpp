// Steps of a decode through a variant's door: one token taken up and answered. With a context of one token, what a step takes beside its
// kernels. `of_update`, of a state that tokens are folded into: the time of reading and writing its memory in place, over that of a step.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <string>
#include <vector>

#include "attn/core/rng.hpp"
#include "attn/exec/arena.hpp"
#include "attn/kernels/machine/probes.hpp"
#include "attn/variant/decode.hpp"
#include "micro.hpp"

namespace attn {

namespace {

constexpr int steps_at_once = 100;

struct StepCase {
  std::string variant;
  index_t heads, kv_heads, head_dim, context;

  std::string name() const {
    return "step/" + variant + "/" + std::to_string(heads) + "/" + std::to_string(kv_heads) + "/D=" + std::to_string(head_dim) +
           "/M=" + std::to_string(context);
  }
  Problem problem() const {
    return {.heads = heads,
            .kv_heads = kv_heads,
            .q_len = 1,
            .kv_len = context,
            .head_dim = head_dim,
            .value_dim = head_dim,
            .causal = true,
            .pass = Pass::decode};
  }
};

template <class F>
double seconds_of(F f) {
  const double start = now_s(1);
  for (int i = 0; i < steps_at_once; ++i) f();
  return (now_s(1) - start) / steps_at_once;
}

void run_step(benchmark::State& state, const Registry& registry, const StepCase& c) {
  const Problem p = c.problem();
  const auto variant = registry.configure(c.variant).value();
  Planned planned(*variant, planned_step(*variant, p), 1);
  planned.equip(make_parameters(variant->parameters(whole_sequence(p)), 1));
  const Floats q = normals(p.heads * p.head_dim, 1), k = normals(p.kv_heads * p.head_dim, 2),
               v = normals(p.kv_heads * p.head_dim, 3);
  const Floats out(p.heads * p.head_dim);
  const Arrays token{.q = View<const float, 4>(q.data(), {1, p.heads, 1, p.head_dim}),
                     .k = View<const float, 4>(k.data(), {1, p.kv_heads, 1, p.head_dim}),
                     .v = View<const float, 4>(v.data(), {1, p.kv_heads, 1, p.head_dim}),
                     .out = View<float, 4>(out.data(), {1, p.heads, 1, p.head_dim})};
  State kept(variant->state(planned_step(*variant, p)), 1);
  const bool folds = !kept.spec().of_tokens;
  if (!folds) {
    for (const StateTensor& tensor : kept.spec().tensors) Rng(4, tensor.name).normals(kept.elements(tensor.name));
  }
  kept.advance(p.kv_len - 1);
  std::vector<double> fractions;
  Arena(1).execute([&] {
    const auto step = [&] {
      take_step(planned, token, planned.parameters(), kept);
      kept.rewind(1);
    };
    step();
    for (auto _ : state) {
      double update_s = 0;
      if (folds) {
        update_s = seconds_of([&] {
          for (const StateTensor& tensor : kept.spec().tensors) kernels::probe_update(kept.elements(tensor.name));
        });
        kept.clear();
        kept.advance(p.kv_len - 1);
      }
      const double seconds = seconds_of(step);
      fractions.push_back(update_s / seconds);
      state.SetIterationTime(seconds);
    }
  });
  if (!folds) return;
  std::nth_element(fractions.begin(), fractions.begin() + static_cast<std::ptrdiff_t>(fractions.size() / 2), fractions.end());
  state.counters["of_update"] = fractions[fractions.size() / 2];
}

}  // namespace

void register_step_cases() {
  static const Registry registry = [] {
    Registry all;
    register_builtin_variants(all);
    return all;
  }();
  std::vector<StepCase> cases;
  for (const char* variant :
       {"full", "local:left=1024", "linear", "performer", "cosformer", "rfa", "rfa:gate=yes", "aft:form=simple", "gru"})
    cases.push_back({variant, 8, 8, 64, 1});
  for (const char* variant : {"linear", "performer"}) {
    for (const index_t context : {1024, 65536}) cases.push_back({variant, 8, 8, 64, context});
    cases.push_back({variant, 32, 8, 128, 65536});
  }
  cases.push_back({"full", 1, 1, 64, 1});
  for (const StepCase& c : cases) {
    benchmark::RegisterBenchmark(c.name().c_str(), [c](benchmark::State& state) { run_step(state, registry, c); })
        ->UseManualTime()
        ->Iterations(31)
        ->Unit(benchmark::kMicrosecond);
  }
}

}  // namespace attn
