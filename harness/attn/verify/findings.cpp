#include "attn/verify/findings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "attn/core/text.hpp"
#include "attn/record/context.hpp"

namespace attn {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Finding, property, cases, none, note, failure)

namespace {

using nlohmann::json;

// What this property came to over all variants.
struct Total {
  index_t cases = 0, variants = 0;  // variants that it was tried on
  std::vector<std::string> failed;
};

Total total_of(const std::string& property, const std::vector<VariantFindings>& found) {
  Total total;
  for (const VariantFindings& variant : found) {
    for (const Finding& finding : variant.findings) {
      if (finding.property != property) continue;
      total.cases += finding.cases;
      total.variants += finding.cases > 0;
      if (!finding.failure.empty()) total.failed.push_back(variant.name);
    }
  }
  return total;
}

std::string result_of(const Total& total) {
  if (!total.failed.empty()) return "FAILED by " + join(total.failed, ", ");
  return total.cases > 0 ? "holds" : "not tried";
}

std::string repeat_verify(const VariantFindings& variant, const Finding& finding, const VerifyOptions& o) {
  std::vector<std::string> arguments = {"attn_sweep", "--verify", "--variants", variant.variant, "--property", finding.property};
  if (o.threads) arguments.insert(arguments.end(), {"--threads", *o.threads});
  if (!o.memory_limit.empty()) arguments.insert(arguments.end(), {"--memory-limit", o.memory_limit});
  if (o.timeout_s != VerifyOptions().timeout_s) arguments.insert(arguments.end(), {"--timeout", format_number(o.timeout_s)});
  for (const auto& plugin : o.plugins) arguments.insert(arguments.end(), {"--plugin", plugin});
  if (!o.prefer.empty()) arguments.insert(arguments.end(), {"--prefer", o.prefer});
  for (const auto& guest : o.guests) arguments.insert(arguments.end(), {"--guest", guest});
  return shell_quoted(arguments);
}

}  // namespace

bool any_failed(const std::vector<VariantFindings>& found) {
  return std::any_of(found.begin(), found.end(), [](const VariantFindings& variant) {
    return std::any_of(variant.findings.begin(), variant.findings.end(), [](const Finding& f) { return !f.failure.empty(); });
  });
}

std::string findings_text(const std::vector<Property>& tried, const std::vector<VariantFindings>& found, const VerifyOptions& o) {
  std::string text = fmt::format("{:<12} {:>7} {:>9}  result\n", "property", "cases", "variants");
  for (const Property& property : tried) {
    const Total total = total_of(property.id, found);
    text += fmt::format("{:<12} {:>7} {:>9}  {}\n", property.id, total.cases, total.variants,
                        total.failed.size() > 3 ? fmt::format("FAILED by {} variants", total.failed.size()) : result_of(total));
  }
  if (found.size() > 1) {
    std::size_t width = 0;
    for (const VariantFindings& variant : found) width = std::max(width, variant.name.size());
    text += fmt::format("\n{:<{}} {:>7}  result\n", "variant", width, "cases");
    for (const VariantFindings& variant : found) {
      index_t cases = 0;
      std::vector<std::string> failed;
      for (const Finding& finding : variant.findings) {
        cases += finding.cases;
        if (!finding.failure.empty()) failed.push_back(finding.property);
      }
      text += fmt::format("{:<{}} {:>7}  {}\n", variant.name, width, cases,
                          failed.empty() ? "conforms" : "FAILED " + join(failed, ", "));
    }
  } else {
    for (const VariantFindings& variant : found) {
      text += "\n";
      for (const Finding& finding : variant.findings) {
        if (!finding.none.empty()) text += fmt::format("{} not tried: {}\n", finding.property, finding.none);
        if (!finding.note.empty()) text += fmt::format("{}: {}\n", finding.property, finding.note);
      }
    }
  }
  for (const VariantFindings& variant : found) {
    for (const Finding& finding : variant.findings) {
      if (finding.failure.empty()) continue;
      const auto property = std::find_if(tried.begin(), tried.end(), [&](const Property& p) { return p.id == finding.property; });
      text += fmt::format("\n{}, {}: {}\n  {}\n  repeat: {}\n", variant.variant, finding.property, property->holds, finding.failure,
                          repeat_verify(variant, finding, o));
    }
  }
  return text;
}

std::string findings_markdown(const std::vector<Property>& tried, const std::vector<VariantFindings>& found) {
  std::string text = "| property | what holds | cases | variants | result |\n|---|---|---:|---:|---|\n";
  for (const Property& property : tried) {
    const Total total = total_of(property.id, found);
    text +=
        fmt::format("| `{}` | {} | {} | {} | {} |\n", property.id, property.holds, total.cases, total.variants, result_of(total));
  }
  return text;
}

std::string findings_json(const std::vector<Property>& tried, const std::vector<VariantFindings>& found, const VerifyOptions& o) {
  nlohmann::ordered_json document = {{"properties", json::array()}, {"variants", json::array()}};
  for (const Property& property : tried) {
    const Total total = total_of(property.id, found);
    document["properties"].push_back({{"id", property.id},
                                      {"holds", property.holds},
                                      {"cases", total.cases},
                                      {"variants", total.variants},
                                      {"failed", total.failed}});
  }
  for (const VariantFindings& variant : found) {
    nlohmann::ordered_json one = {{"variant", variant.variant}, {"family", variant.family}, {"findings", json::array()}};
    for (const Finding& finding : variant.findings) {
      nlohmann::ordered_json f = json(finding);
      f["holds"] = finding.failure.empty();
      if (!finding.failure.empty()) f["repeat"] = repeat_verify(variant, finding, o);
      one["findings"].push_back(std::move(f));
    }
    document["variants"].push_back(std::move(one));
  }
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

std::string to_json(const Finding& finding) { return json(finding).dump(-1, ' ', false, json::error_handler_t::replace); }

Finding finding_from_json(const std::string& text) { return json::parse(text).get<Finding>(); }

}  // namespace attn
