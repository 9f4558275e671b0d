// What `attn_sweep --explain` prints: of each variant what its formula leaves out, and its tensors in the files of attn_apply --parameters.
#pragma once

#include <string>
#include <vector>

#include "attn/variant/registry.hpp"

namespace attn {

// A tensor of a variant, with its options or others than those.
struct ExplainedTensor {
  std::string name, axes, doc;
  std::string where;  // what it takes to have it: "sharing=none", "causal"; mostly empty
};

// Those of the variant's own options first, then those that another choice, a number instead of 0, or causality adds.
std::vector<ExplainedTensor> explained_tensors(const Variant& variant, const Registry& registry);

// What it needs of a problem, in sentences: what x is, lengths, widths.
std::string needs(const Variant& variant);

std::string explain_text(const VariantList& variants, const Registry& registry);
std::string explain_markdown(const VariantList& variants, const Registry& registry);  // the end of variants/README.md
std::string explain_json(const VariantList& variants, const Registry& registry);

}  // namespace attn
