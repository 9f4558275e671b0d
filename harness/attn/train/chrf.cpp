#include "attn/train/chrf.hpp"

#include <algorithm>
#include <map>
#include <string>

#include "attn/train/unicode.hpp"

namespace attn {

namespace {

std::u32string characters(std::string_view text) {
  std::u32string all = code_points(text).value_or(std::u32string(text.begin(), text.end()));
  std::erase_if(all, [](char32_t c) { return c == U' ' || (U'\t' <= c && c <= U'\r') || c == U'\u00a0'; });
  return all;
}

std::map<std::u32string_view, double> grams(std::u32string_view text, std::size_t n) {
  std::map<std::u32string_view, double> counts;
  for (std::size_t i = 0; i + n <= text.size(); ++i) ++counts[text.substr(i, n)];
  return counts;
}

}  // namespace

void Chrf::add(std::string_view given, std::string_view wanted) {
  ++texts_;
  const std::u32string a = characters(given), b = characters(wanted);
  for (std::size_t n = 1; n <= longest; ++n) {
    Counts& counts = counts_[n - 1];
    const auto of_a = grams(a, n), of_b = grams(b, n);
    for (const auto& [gram, count] : of_a) {
      counts.given += count;
      if (const auto same = of_b.find(gram); same != of_b.end()) counts.shared += std::min(count, same->second);
    }
    for (const auto& [gram, count] : of_b) counts.wanted += count;
  }
}

double Chrf::score() const {
  constexpr double recall_weight = 2 * 2;
  double precision = 0, recall = 0, orders = 0;
  for (const Counts& c : counts_) {
    if (c.given == 0 || c.wanted == 0) continue;
    precision += c.shared / c.given;
    recall += c.shared / c.wanted;
    orders += 1;
  }
  if (precision == 0) return 0;
  return (1 + recall_weight) * precision * recall / (recall_weight * precision + recall) / orders;
}

}  // namespace attn
