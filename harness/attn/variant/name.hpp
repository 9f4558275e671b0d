// A variant's name: id[@implementation][:name=value,...]. Read from text in one place, and printed two ways: with every option for
// files, keys and commands (text() of what a registry configured), and with what differs from the defaults for people
// (Registry::short_text).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"

namespace attn {

struct OptionValue {
  std::string name, value;
  bool operator==(const OptionValue&) const = default;
};

// Options by name, in order. The typed getters are for values that an OptionTable printed, in a configured variant; another name or a
// text of another type is a bug there.
class OptionValues {
 public:
  OptionValues() = default;
  OptionValues(std::vector<OptionValue> values) : values_(std::move(values)) {}

  // "left=3,right=4", blanks around names and values left out; "" has none. What has no '=' is refused.
  static Result<OptionValues> parse(std::string_view text);
  std::string text() const;

  const std::vector<OptionValue>& all() const { return values_; }
  bool empty() const { return values_.empty(); }
  void add(OptionValue value) { values_.push_back(std::move(value)); }
  void set(std::string_view name, std::string value);  // of an option that is there

  const std::string& operator[](std::string_view name) const;
  index_t integer(std::string_view name) const;
  double number(std::string_view name) const;
  bool flag(std::string_view name) const;

  bool operator==(const OptionValues&) const = default;

 private:
  std::vector<OptionValue> values_;
};

// The implementation that a variant's page holds.
inline constexpr std::string_view native = "native";

struct VariantName {
  std::string id;
  std::string implementation{native};
  OptionValues options;

  // The text's form is checked, not whether there is such a variant: that is a Registry's to say. "full@native" is "full".
  static Result<VariantName> parse(std::string_view text);

  bool is_native() const { return implementation == native; }
  std::string label() const;  // id[@implementation]
  std::string text() const;   // parses back
  bool operator==(const VariantName&) const = default;
};

// "full,local:left=64,right=64,full@unfused". A comma separates variants and options alike; what stands after it is an option where
// it has a '=' before any ':'.
Result<std::vector<VariantName>> parse_variant_names(std::string_view text);

}  // namespace attn
