#include "attn/cell/values.hpp"

#include <string>
#include <unordered_set>
#include <utility>

#include "attn/core/text.hpp"

namespace attn {

namespace {

constexpr std::size_t most_values = 10'000;

// Values in the order given, and as a set.
struct Values {
  std::vector<index_t> list;
  std::unordered_set<index_t> known;
};

Status expand(std::string_view item, index_t low, index_t high, Values& values) {
  const std::string given(item);
  const auto in_range = [&](index_t value) { return value >= low && value <= high; };
  const std::string range = std::to_string(low) + ".." + std::to_string(high);
  const auto add = [&](index_t value) {
    if (values.known.insert(value).second) values.list.push_back(value);
  };
  const auto dots = item.find("..");
  if (dots == std::string_view::npos) {
    const auto value = parse_integer(item);
    if (!value) return refuse(value.reason() + "; accepted: 128,256 or 128..16384*2 or 128..1024+128");
    if (!in_range(*value)) return refuse(given + " is outside " + range);
    add(*value);
    return {};
  }
  const auto rest = item.substr(dots + 2);
  const auto sign = rest.find_first_of("*+");
  const auto first = parse_integer(item.substr(0, dots));
  const auto last = parse_integer(rest.substr(0, sign));
  const Result<index_t> step = sign == std::string_view::npos ? Result<index_t>(1) : parse_integer(rest.substr(sign + 1));
  if (!first || !last || !step) return refuse("'" + given + "' is not a range such as 128..16384*2 or 128..1024+128");
  const bool geometric = sign != std::string_view::npos && rest[sign] == '*';
  if (*step < (geometric ? 2 : 1) || (geometric && *first < 1)) return refuse("'" + given + "' does not advance");
  if (!in_range(*first) || !in_range(*last) || *first > *last)
    return refuse("'" + given + "' is not an ascending range within " + range);
  for (index_t value = *first;; value = geometric ? value * *step : value + *step) {
    if (values.list.size() >= most_values)
      return refuse("'" + given + "' has more than " + std::to_string(most_values) + " values");
    add(value);
    if (value > (geometric ? *last / *step : *last - *step)) break;  // and no overflow
  }
  return {};
}

}  // namespace

Result<std::vector<index_t>> parse_axis(std::string_view text, index_t low, index_t high) {
  Values values;
  for (const auto item : split(text, ',')) {
    if (Status status = expand(trim(item), low, high, values); !status) return status.refusal();
  }
  return std::move(values.list);
}

Result<std::vector<bool>> parse_causal(std::string_view text) {
  if (text == "no" || text == "0" || text == "false") return std::vector<bool>{false};
  if (text == "yes" || text == "1" || text == "true") return std::vector<bool>{true};
  if (text == "both") return std::vector<bool>{false, true};
  return refuse("causal '" + std::string(text) + "' is not one of no, yes, both");
}

Result<bool> parse_one_causal(std::string_view text) {
  const auto values = parse_causal(text);
  if (!values || values->size() != 1) return refuse("'" + std::string(text) + "' is not one of no, yes");
  return values->front();
}

Result<index_t> parse_bytes(std::string_view text) {
  index_t unit = 1;
  std::string_view digits = text;
  if (!text.empty()) {
    const auto suffix = std::string_view("KMGT").find(text.back());
    if (suffix != std::string_view::npos) {
      unit = index_t{1} << (10 * (suffix + 1));
      digits.remove_suffix(1);
    }
  }
  const auto value = parse_integer(digits);
  if (!value || *value < 0 || *value > (index_t{1} << 62) / unit)
    return refuse("'" + std::string(text) + "' is not a size such as 512M or 8G");
  return *value * unit;
}

}  // namespace attn
