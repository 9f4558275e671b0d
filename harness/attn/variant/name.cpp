#include "attn/variant/name.hpp"

#include <algorithm>
#include <utility>

#include "attn/core/text.hpp"

namespace attn {

namespace {

Result<OptionValue> parse_option(std::string_view text) {
  const auto equals = text.find('=');
  const std::string name(trim(text.substr(0, equals)));
  if (equals == std::string_view::npos) {
    if (name.empty()) return refuse("an option is missing: write NAME=VALUE between commas");
    return refuse("option '" + name + "' lacks a value: write " + name + "=VALUE");
  }
  return OptionValue{name, std::string(trim(text.substr(equals + 1)))};
}

// id[@implementation]
Result<VariantName> parse_label(std::string_view text) {
  const auto at = text.find('@');
  VariantName name{.id = std::string(trim(text.substr(0, at)))};
  if (at == std::string_view::npos) return name;
  name.implementation = trim(text.substr(at + 1));
  if (name.implementation.empty()) return refuse("'" + std::string(text) + "' lacks the implementation's name after '@'");
  return name;
}

}  // namespace

Result<OptionValues> OptionValues::parse(std::string_view text) {
  OptionValues options;
  if (trim(text).empty()) return options;
  for (const auto item : split(text, ',')) {
    auto option = parse_option(item);
    if (!option) return option.refusal();
    options.add(*std::move(option));
  }
  return options;
}

std::string OptionValues::text() const {
  std::vector<std::string> parts;
  for (const OptionValue& option : values_) parts.push_back(option.name + "=" + option.value);
  return join(parts, ",");
}

void OptionValues::set(std::string_view name, std::string value) {
  const auto option = std::find_if(values_.begin(), values_.end(), [&](const OptionValue& o) { return o.name == name; });
  ATTN_ASSERT(option != values_.end());
  option->value = std::move(value);
}

const std::string& OptionValues::operator[](std::string_view name) const {
  const auto option = std::find_if(values_.begin(), values_.end(), [&](const OptionValue& o) { return o.name == name; });
  ATTN_ASSERT(option != values_.end());
  return option->value;
}

index_t OptionValues::integer(std::string_view name) const { return parse_integer((*this)[name]).value(); }
double OptionValues::number(std::string_view name) const { return parse_number((*this)[name]).value(); }
bool OptionValues::flag(std::string_view name) const {
  ATTN_ASSERT((*this)[name] == "yes" || (*this)[name] == "no");
  return (*this)[name] == "yes";
}

Result<VariantName> VariantName::parse(std::string_view text) {
  const auto colon = text.find(':');
  auto name = parse_label(text.substr(0, colon));
  if (!name || colon == std::string_view::npos) return name;
  auto options = OptionValues::parse(text.substr(colon + 1));
  if (!options) return refuse(name->label() + ": " + options.reason());
  name->options = *std::move(options);
  return name;
}

std::string VariantName::label() const { return is_native() ? id : id + "@" + implementation; }

std::string VariantName::text() const { return options.empty() ? label() : label() + ":" + options.text(); }

Result<std::vector<VariantName>> parse_variant_names(std::string_view text) {
  std::vector<VariantName> names;
  for (const auto raw : split(text, ',')) {
    const auto item = trim(raw);
    const auto equals = item.find('=');
    if (equals == std::string_view::npos || item.find(':') < equals) {
      auto name = VariantName::parse(item);
      if (!name) return name.refusal();
      names.push_back(*std::move(name));
      continue;
    }
    if (names.empty()) return refuse("'" + std::string(item) + "' is an option without a variant before it");
    VariantName& before = names.back();
    if (before.options.empty())
      return refuse("'" + std::string(item) + "' is an option, which a ':' parts from the variant: write " + before.label() + ":" +
                    std::string(item));
    before.options.add(parse_option(item).value());
  }
  return names;
}

}  // namespace attn
