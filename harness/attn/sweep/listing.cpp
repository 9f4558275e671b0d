#include "attn/sweep/listing.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "attn/cell/shapes.hpp"
#include "attn/inputs/input.hpp"
#include "attn/record/row.hpp"

namespace attn {

std::string list_text(const Registry& registry) {
  std::string text;
  std::string family;
  for (const auto& type : registry.all()) {
    if (type->family != family) text += (text.empty() ? "" : "\n") + type->family + "\n";
    family = type->family;
    const VariantInfo& i = type->info;
    text += fmt::format("  {:<22} {}\n", type->id, i.title);
    text += fmt::format("  {:<22} {}; {}; reads {}; causal: {}; {}\n", "", to_string(i.exactness), i.cost_in_n, to_string(i.reads),
                        to_string(i.causality), i.paper);
    for (const auto& o : type->options) {
      text += fmt::format("  {:<22}   {}={}  ({} {}{}) {}\n", "", o.name, o.default_value, o.type, o.range,
                          o.budget ? ", budget" : "", o.doc);
    }
    for (const auto& other : registry.implementations(type->id))
      text += fmt::format("  {:<22}   {}\n", type->id + "@" + other->name, other->info.title);
  }
  text += "\ninputs\n";
  for (const auto& doc : input_docs()) text += fmt::format("  {:<22} {}\n", doc.syntax, doc.doc);
  return text;
}

std::string list_markdown(const Registry& registry) {
  std::string text =
      "| family | variant | output of a query | source | cost in N | kind | causal | options (defaults) "
      "|\n|---|---|---|---|---|---|---|---|\n";
  const auto cell = [](std::string_view raw) {
    std::string escaped;
    for (const char c : raw) escaped += c == '|' ? std::string("\\|") : std::string(1, c);
    return escaped;
  };
  for (const auto& type : registry.all()) {
    const VariantInfo& i = type->info;
    std::string options;
    for (const auto& o : type->options) options += (options.empty() ? "`" : ", `") + o.name + "=" + o.default_value + "`";
    const std::string causal =
        std::string(to_string(i.causality)) + (i.membership_sees_future ? ", membership sees the future" : "");
    text += fmt::format("| {} | `{}` | {} | {} | {} | {} | {} | {} |\n", type->family, type->id, cell(i.formula), cell(i.paper),
                        cell(i.cost_in_n), to_string(i.exactness), causal, options);
    for (const auto& other : registry.implementations(type->id)) {
      if (other->is_guest()) continue;  // not of the tree
      text += fmt::format("| {} | `{}@{}` | as `{}`: {} | | | | | |\n", type->family, type->id, other->name, type->id,
                          cell(other->info.title));
    }
  }
  return text;
}

std::string list_json(const Registry& registry) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const auto& type : registry.all()) {
    const VariantInfo& i = type->info;
    nlohmann::ordered_json options = nlohmann::ordered_json::array();
    for (const auto& o : type->options) {
      options.push_back({{"name", o.name},
                         {"type", o.type},
                         {"range", o.range},
                         {"default", o.default_value},
                         {"budget", o.budget},
                         {"doc", o.doc}});
    }
    nlohmann::ordered_json implementations = nlohmann::ordered_json::array();
    for (const auto& other : registry.implementations(type->id))
      implementations.push_back({{"name", other->name}, {"title", other->info.title}, {"guest", other->is_guest()}});
    list.push_back({{"id", type->id},
                    {"family", type->family},
                    {"title", i.title},
                    {"formula", i.formula},
                    {"paper", i.paper},
                    {"cost_in_n", i.cost_in_n},
                    {"time_exponent", i.time_exponent},
                    {"exactness", to_string(i.exactness)},
                    {"causal", to_string(i.causality)},
                    {"reads", to_string(i.reads)},
                    {"cross", i.cross},
                    {"grouped_heads", i.grouped_heads},
                    {"randomised", i.randomised},
                    {"membership_sees_future", i.membership_sees_future},
                    {"options", options},
                    {"implementations", implementations}});
  }
  return list.dump(2) + "\n";
}

std::string shapes_text() {
  std::string text = fmt::format("{:<22} {:>5} {:>8} {:>8} {:>6} {:>6}  layers; source\n", "shape", "heads", "kv_heads", "head_dim",
                                 "causal", "window");
  for (const ModelShape& s : shapes())
    text += fmt::format("{:<22} {:>5} {:>8} {:>8} {:>6} {:>6}  {}; {}\n", s.name, s.heads, s.kv_heads, s.head_dim,
                        s.causal ? "yes" : "no", s.window > 0 ? std::to_string(s.window) : "-", s.layers, s.source);
  return text;
}

std::string columns_text() { return columns_text(row_schema().infos()); }

}  // namespace attn
