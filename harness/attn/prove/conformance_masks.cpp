// The property of problems that have a mask.
#include <algorithm>
#include <utility>
#include <vector>

#include "attn/prove/conformance_checker.hpp"

namespace attn::conformance {

namespace {

// Masks of keys and of pairs, the same for all heads and sequences or not; over grouped heads where that is defined, few queries too.
std::vector<Problem> masked_problems(const Variant& variant) {
  std::vector<Problem> list;
  const auto add = [&](index_t queries, index_t keys, index_t head_dim, std::vector<MaskExtents> masks) {
    for (const bool causal : {false, true}) {
      for (const MaskExtents& mask : masks) {
        Problem p{.batch = 2,
                  .heads = 4,
                  .kv_heads = 2,
                  .q_len = queries,
                  .kv_len = keys,
                  .head_dim = head_dim,
                  .value_dim = 24,
                  .causal = causal,
                  .mask = mask};
        if (!variant.supports(p)) p.kv_heads = p.heads;
        if (variant.supports(p)) list.push_back(p);
      }
    }
  };
  add(70, 70, 32, {{1, 1, 1}, {2, 1, 1}, {1, 4, 1}, {1, 1, 70}, {1, 4, 70}, {2, 4, 70}});
  add(300, 300, 8, {{1, 1, 1}, {1, 1, 300}});
  add(50, 211, 7, {{2, 1, 1}, {1, 4, 50}});
  add(5, 211, 32, {{1, 1, 1}, {1, 1, 5}});
  return list;
}

}  // namespace

void Checker::mask() {
  if (!variant_.takes_mask()) return none("takes no mask");
  const Arena arena(options_.threads);
  for (const Problem& p : masked_problems(variant_)) {
    begin(p);
    NamedTensors named = named_for(variant_, p);
    const View<float, 4> numbers = named.arrays["mask"].f32_out();
    if (numbers.size() > p.kv_len) std::fill_n(numbers.data_handle(), p.kv_len, -infinity);  // all of the first row
    const Case c(p, Layout::dense, Border::soft, std::move(named));
    const Planned planned = plan(p, options_.threads, Workspace::Mode::checked);
    c.fill_output(nan);
    planned.run(arena, c.arrays());
    if (!planned.workspace().gaps_intact()) fail(p, "a booked scratch array was overrun");
    judge(p, compare_with_reference(evaluate_definition(variant_, p, c.arrays(), parameters_of(p)), c.out), "");
  }
}

}  // namespace attn::conformance
