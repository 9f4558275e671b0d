// Typed options of a variant: declared once, and from that one declaration come parsing, range checks, the canonical
// text, --list and the CSV.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "attn/core/result.hpp"
#include "attn/core/text.hpp"
#include "attn/variant/name.hpp"

namespace attn {

// What a user is told about one option.
struct OptionDoc {
  std::string name, type, range, default_value, doc;
  index_t low = 0, high = 0;  // of integers
  bool budget = false;
};

inline constexpr index_t unlimited = index_t{1} << 40;

// Those of canonical values that are not the defaults.
OptionValues without_defaults(const OptionValues& values, const std::vector<OptionDoc>& docs);

// Options structs are aggregates of index_t, double, bool, enum class and std::vector<index_t> (positions, written
// 0/17/33). The text form is name=value,name=value in the order of declaration, every option present.
template <class Options>
class OptionTable {
 public:
  OptionTable& integer(std::string name, index_t Options::*member, index_t low, index_t high, std::string doc) {
    const std::string range = std::to_string(low) + ".." + (high >= unlimited ? "" : std::to_string(high));
    return add(
        {name, "integer", range, "", std::move(doc), low, high},
        [=](Options& o, std::string_view text) -> Status {
          const auto value = parse_integer(text);
          if (!value) return value.refusal();
          if (*value < low || *value > high)
            return refuse(name + "=" + std::string(text) + " is outside " + std::to_string(low) + ".." + std::to_string(high));
          o.*member = *value;
          return {};
        },
        [=](const Options& o) { return std::to_string(o.*member); });
  }

  // The integer option just declared is (part of) the budget: more of it costs more and comes nearer to softmax attention.
  // Where several are marked, one number sets them all. attn_sweep --iso-error turns this knob.
  OptionTable& budget() {
    ATTN_ASSERT(!entries_.empty() && entries_.back().doc.type == "integer");
    entries_.back().doc.budget = true;
    return *this;
  }

  OptionTable& number(std::string name, double Options::*member, double low, double high, std::string doc) {
    const std::string range = format_number(low) + ".." + format_number(high);
    return add(
        {name, "number", range, "", std::move(doc)},
        [=](Options& o, std::string_view text) -> Status {
          const auto value = parse_number(text);
          if (!value) return value.refusal();
          if (!(*value >= low && *value <= high)) return refuse(name + "=" + std::string(text) + " is outside " + range);
          o.*member = *value;
          return {};
        },
        [=](const Options& o) { return format_number(o.*member); });
  }

  OptionTable& flag(std::string name, bool Options::*member, std::string doc) {
    return choice(std::move(name), member, {{"no", false}, {"yes", true}}, std::move(doc));
  }

  template <class E>
  OptionTable& choice(std::string name, E Options::*member, std::vector<std::pair<std::string, E>> names, std::string doc) {
    std::string range;
    for (const auto& [text, value] : names) range += (range.empty() ? "" : "|") + text;
    return add(
        {name, "choice", range, "", std::move(doc)},
        [=](Options& o, std::string_view text) -> Status {
          for (const auto& [candidate, value] : names) {
            if (candidate == text) {
              o.*member = value;
              return {};
            }
          }
          return refuse(name + "=" + std::string(text) + " is not one of " + range);
        },
        [=](const Options& o) {
          for (const auto& [candidate, value] : names) {
            if (value == o.*member) return candidate;
          }
          return std::string("?");
        });
  }

  OptionTable& positions(std::string name, std::vector<index_t> Options::*member, std::string doc) {
    return add(
        {name, "positions", "0/5/17", "", std::move(doc)},
        [=](Options& o, std::string_view text) -> Status {
          std::vector<index_t> list;
          for (const auto part : text.empty() ? std::vector<std::string_view>{} : split(text, '/')) {
            const auto value = parse_integer(part);
            if (!value || *value < 0) {
              return refuse(name + "=" + std::string(text) + " is not a list of positions such as 0/5/17");
            }
            list.push_back(*value);
          }
          o.*member = std::move(list);
          return {};
        },
        [=](const Options& o) {
          std::vector<std::string> parts;
          for (const index_t value : o.*member) parts.push_back(std::to_string(value));
          return join(parts, "/");
        });
  }

  // Options not named keep their defaults; a name given twice is refused.
  Result<Options> parse(const OptionValues& given) const {
    Options options;
    std::vector<std::string_view> seen;
    for (const auto& [name, value] : given.all()) {
      const Entry* entry = find(name);
      if (entry == nullptr) return unknown(name);
      if (std::find(seen.begin(), seen.end(), name) != seen.end()) return refuse("option '" + name + "' is given twice");
      seen.push_back(name);
      if (Status status = entry->parse(options, value); !status) return status.refusal();
    }
    return options;
  }
  Result<Options> parse(std::string_view text) const {
    const auto given = OptionValues::parse(text);
    return given ? parse(*given) : given.refusal();
  }

  // Canonical: every option, in the order of declaration.
  OptionValues print(const Options& options) const {
    OptionValues values;
    for (const auto& entry : entries_) values.add({entry.doc.name, entry.print(options)});
    return values;
  }

  std::vector<OptionDoc> docs() const {
    std::vector<OptionDoc> list;
    for (const auto& entry : entries_) {
      list.push_back(entry.doc);
      list.back().default_value = entry.print(Options{});
    }
    return list;
  }

 private:
  struct Entry {
    OptionDoc doc;
    std::function<Status(Options&, std::string_view)> parse;
    std::function<std::string(const Options&)> print;
  };

  template <class P, class Q>
  OptionTable& add(OptionDoc doc, P parse, Q print) {
    entries_.push_back({std::move(doc), std::move(parse), std::move(print)});
    return *this;
  }

  const Entry* find(std::string_view name) const {
    for (const auto& entry : entries_) {
      if (entry.doc.name == name) return &entry;
    }
    return nullptr;
  }

  Refusal unknown(const std::string& name) const {
    std::vector<std::string> names;
    for (const auto& entry : entries_) names.push_back(entry.doc.name);
    const std::string close = nearest(name, names);
    return refuse("unknown option '" + name + "'" + (close.empty() ? "" : ", did you mean '" + close + "'?") +
                  (names.empty() ? "; there are no options" : "; accepted: " + join(names, ", ")));
  }

  std::vector<Entry> entries_;
};

}  // namespace attn
