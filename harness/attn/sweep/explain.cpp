#include "attn/sweep/explain.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "attn/core/text.hpp"

namespace attn {

namespace {

// Small, and with no two extents alike.
Problem probe(bool causal) {
  return {.heads = 2, .kv_heads = 2, .q_len = 48, .kv_len = 48, .head_dim = 4, .value_dim = 4, .causal = causal};
}

// The variant with one option changed at a time, and what was changed; itself first.
std::vector<std::pair<std::string, std::unique_ptr<Variant>>> neighbours(const Variant& variant, const Registry& registry) {
  std::vector<std::pair<std::string, std::unique_ptr<Variant>>> list;
  const auto add = [&](const std::string& where, const VariantName& name) {
    if (auto changed = registry.configure(name)) list.emplace_back(where, std::move(*changed));
  };
  add("", variant.name());
  const VariantType* type = registry.find(variant.name().id);
  if (type == nullptr) return list;
  for (const OptionDoc& option : type->options) {
    const std::string own = variant.name().options[option.name];
    const auto with = [&](const std::string& value, const std::string& where) {
      VariantName name = variant.name();
      name.options.set(option.name, value);
      add(where, name);
    };
    if (option.type == "choice") {
      for (const auto value : split(option.range, '|')) {
        if (value != own) with(std::string(value), option.name + "=" + std::string(value));
      }
    } else if (option.type == "integer" && own == "0") {
      with("1", option.name + " above 0");
    }
  }
  return list;
}

}  // namespace

std::vector<ExplainedTensor> explained_tensors(const Variant& variant, const Registry& registry) {
  std::vector<ExplainedTensor> tensors;
  for (const auto& [where, neighbour] : neighbours(variant, registry)) {
    bool bidirectional = false;
    for (const bool causal : {false, true}) {
      const Problem p = probe(causal);
      if (!neighbour->supports(p)) continue;
      for (const ParameterSpec& spec : neighbour->parameters(p)) {
        const auto same = [&](const ExplainedTensor& t) { return t.name == spec.name && t.axes == spec.axes; };
        if (std::ranges::any_of(tensors, same)) continue;
        const std::string and_causal = causal && bidirectional ? (where.empty() ? "causal" : ", causal") : "";
        tensors.push_back({spec.name, spec.axes, spec.doc, where + and_causal});
      }
      bidirectional = bidirectional || !causal;
    }
  }
  return tensors;
}

std::string needs(const Variant& variant) {
  const VariantInfo& info = variant.info();
  std::string text = info.reads == Reads::qkv  ? "Reads Q, K and V."
                     : info.reads == Reads::xv ? "Reads x, which is Q, and V."
                                               : "Reads x, which is Q.";
  Problem wide = probe(info.causality == Causality::always);
  wide.value_dim = 2 * wide.head_dim;
  if (!variant.supports(wide)) text += " value_dim must be head_dim.";
  if (!info.cross) text += " As many keys as queries.";
  if (info.causality == Causality::never) text += " Never causal.";
  if (variant.takes_mask()) text += " Takes a mask.";
  return text;
}

std::string explain_text(const VariantList& variants, const Registry& registry) {
  std::string text;
  for (const auto& variant : variants) {
    const VariantInfo& info = variant->info();
    text += fmt::format("{}{}: {}\n  {}\n  {}\n  {}\n", text.empty() ? "" : "\n", variant->short_name(), info.title, info.formula,
                        info.paper, needs(*variant));
    if (!info.fine_print.empty()) text += "  " + info.fine_print + "\n";
    for (const InputSpec& input : variant->inputs(probe(true))) text += fmt::format("  input {}: {}\n", input.name, input.doc);
    const auto tensors = explained_tensors(*variant, registry);
    if (tensors.empty()) continue;
    text += "  tensors, each NAME.npy of a folder for attn_apply --parameters, row-major\n";
    for (const ExplainedTensor& t : tensors) {
      const std::string where = t.where.empty() ? "" : " (" + t.where + ")";
      text += fmt::format("    {:<14} [{}]{}\n    {:<14} {}\n", t.name, t.axes, where, "", t.doc);
    }
  }
  return text;
}

std::string explain_markdown(const VariantList& variants, const Registry& registry) {
  const auto cell = [](std::string_view raw) {
    std::string escaped;
    for (const char c : raw) escaped += c == '|' ? std::string("\\|") : std::string(1, c);
    return escaped;
  };
  std::string prints, tensors;
  for (const auto& variant : variants) {
    const std::string& id = variant->name().id;
    const std::string print = variant->info().fine_print.empty() ? "" : " " + variant->info().fine_print;
    prints += fmt::format("| `{}` | {}{} |\n", id, needs(*variant), cell(print));
    for (const ExplainedTensor& t : explained_tensors(*variant, registry)) {
      tensors += fmt::format("| `{}` | `{}` | {} | {} | {} |\n", id, t.name, t.axes, cell(t.doc),
                             t.where.empty() ? "" : "`" + t.where + "`");
    }
  }
  return "| variant | what it needs, and what its formula leaves out |\n|---|---|\n" + prints +
         "\n| variant | tensor | axes | how it is read | with |\n|---|---|---|---|---|\n" + tensors;
}

std::string explain_json(const VariantList& variants, const Registry& registry) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const auto& variant : variants) {
    nlohmann::ordered_json tensors = nlohmann::ordered_json::array();
    for (const ExplainedTensor& t : explained_tensors(*variant, registry))
      tensors.push_back({{"name", t.name}, {"axes", t.axes}, {"doc", t.doc}, {"with", t.where}});
    list.push_back({{"variant", variant->name().text()},
                    {"formula", variant->info().formula},
                    {"needs", needs(*variant)},
                    {"fine_print", variant->info().fine_print},
                    {"tensors", tensors}});
  }
  return list.dump(2) + "\n";
}

}  // namespace attn
