#include "attn/sweep/listing.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "attn/cell/shapes.hpp"
#include "attn/core/text.hpp"
#include "attn/inputs/input.hpp"
#include "attn/record/row.hpp"
#include "attn/record/terminal.hpp"
#include "attn/sweep/explain.hpp"

namespace attn {

namespace {

constexpr std::size_t beside = 25;  // where what is told of an id begins

// `head` at the margin, and beside it the text in lines that fit.
std::string entry(const std::string& head, std::string_view text, std::size_t columns) {
  const std::size_t width = columns == any_width ? std::string::npos : std::max(columns, beside + 24) - beside;
  auto lines = wrapped(text, width);
  if (lines.empty()) lines.emplace_back();
  const bool fits = head.size() < beside;
  std::string all = fits ? fmt::format("{:<{}}{}\n", head, beside, lines.front()) : head + "\n";
  for (std::size_t i = fits ? 1 : 0; i < lines.size(); ++i) all += std::string(beside, ' ') + lines[i] + "\n";
  return all;
}

}  // namespace

std::string fitted(const std::string& text, std::size_t columns) {
  if (columns == any_width) return text;
  std::string all;
  for (const auto line : split(std::string_view(text).substr(0, text.size() - 1), '\n')) {
    if (line.size() <= columns) {
      all += std::string(line) + "\n";
      continue;
    }
    const std::size_t margin = std::min(line.find_first_not_of(' '), columns / 2);
    const auto parts = wrapped(line, columns - margin - 2);
    for (std::size_t i = 0; i < parts.size(); ++i) all += std::string(margin + (i > 0 ? 2 : 0), ' ') + parts[i] + "\n";
  }
  return all;
}

std::string list_text(const Registry& registry, std::size_t columns) {
  std::string text;
  std::string family;
  for (const auto& type : registry.all()) {
    if (type->family != family) text += (text.empty() ? "" : "\n") + type->family + "\n";
    family = type->family;
    const VariantInfo& i = type->info;
    text += entry("  " + type->id,
                  fmt::format("{}; {}{}", i.title, i.cost_in_n,
                              i.causality == Causality::both ? "" : fmt::format("; {}", to_string(i.causality))),
                  columns);
    std::string options;
    for (const auto& o : type->options) options += fmt::format("{}{}={} ", o.budget ? "*" : "", o.name, o.default_value);
    if (!options.empty()) text += entry("", options, columns);
    for (const auto& other : registry.implementations(type->id))
      text += entry("  " + type->id + "@" + other->name, other->info.title, columns);
  }
  text += "\ninputs\n";
  for (const auto& doc : input_docs()) text += entry("  " + doc.syntax, doc.doc, columns);
  return text + "\n* the budget that --iso-error turns\n--list ID shows one variant whole\n";
}

Result<std::string> list_whole(const std::string& names, const Registry& registry, std::size_t columns) {
  auto variants = registry.configure_list(names);
  if (!variants) return variants.refusal();
  std::string text;
  for (auto& variant : *variants) {
    const VariantType& type = *registry.find(variant->name().id);
    const VariantInfo& i = type.info;
    VariantList one;
    one.push_back(std::move(variant));
    text += (text.empty() ? "" : "\n") + fitted(explain_text(one, registry), columns);
    text +=
        entry("  family", type.family, columns) + entry("  cost", i.cost_in_n, columns) +
        entry("  kind", to_string(i.exactness), columns) +
        entry("  causal",
              fmt::format("{}{}", to_string(i.causality), i.membership_sees_future ? ", membership sees the future" : ""), columns);
    for (const auto& o : type.options)
      text += entry(fmt::format("  {}={}", o.name, o.default_value),
                    fmt::format("{} {}{}: {}", o.type, o.range, o.budget ? ", the budget of --iso-error" : "", o.doc), columns);
    for (const auto& other : registry.implementations(type.id))
      text += entry("  " + type.id + "@" + other->name, other->info.title, columns);
  }
  return text;
}

std::string list_ids(const Registry& registry) {
  std::string text;
  for (const auto& type : registry.all()) {
    text += type->id + "\n";
    for (const auto& other : registry.implementations(type->id)) text += type->id + "@" + other->name + "\n";
  }
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
