#include "attn/cell/lengths.hpp"

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

#include "attn/core/rng.hpp"
#include "attn/core/text.hpp"
#include "attn/inputs/file.hpp"

namespace attn {

namespace {

constexpr std::string_view uniform = "uniform:", file = "file:", paged = "paged:";
constexpr index_t most_page_rows = index_t{1} << 20;

struct Range {
  index_t low, high;
};

Result<Range> parse_range(std::string_view text) {
  const auto dots = text.find("..");
  const auto low = parse_integer(text.substr(0, dots));
  const auto high = parse_integer(dots == std::string_view::npos ? text : text.substr(dots + 2));
  if (dots == std::string_view::npos || !low || !high)
    return refuse("'" + std::string(text) + "' is no range of lengths; accepted: uniform:LOW..HIGH");
  if (*low < 1 || *low > *high)
    return refuse("'" + std::string(text) + "' is no range of lengths: LOW is 1 at least and HIGH no less than LOW");
  return Range{*low, *high};
}

Result<std::vector<index_t>> read_lengths(const std::string& path) {
  const auto mapped = MappedFile::open(path);
  if (!mapped) return mapped.refusal();
  const auto bytes = mapped->bytes();
  std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::ranges::replace_if(
      text, [](char c) { return c == ',' || c == '\n' || c == '\r' || c == '\t'; }, ' ');
  std::vector<index_t> lengths;
  for (const auto word : split(text, ' ')) {
    if (word.empty()) continue;
    const auto length = parse_integer(word);
    if (!length) return refuse("'" + path + "': " + length.reason() + "; whole numbers are accepted, one for each sequence");
    lengths.push_back(*length);
  }
  return lengths;
}

Status check(const std::vector<index_t>& lengths, const Problem& p) {
  if (std::ssize(lengths) != p.batch)
    return refuse(std::to_string(lengths.size()) + " lengths are given for " + std::to_string(p.batch) +
                  " sequences: as many are accepted as --batch says");
  const index_t least = p.pass == Pass::decode ? p.q_len : 1;
  for (const index_t length : lengths) {
    if (length >= 1 && length < least)
      return refuse("a length of " + std::to_string(length) + " has no step of " + std::to_string(least) + " tokens");
    if (length < least || length > p.kv_len)
      return refuse("a length of " + std::to_string(length) + " is outside of " + std::to_string(least) + ".." +
                    std::to_string(p.kv_len) + ", the keys that --n gives");
  }
  return {};
}

}  // namespace

Result<std::string> parse_lengths(std::string_view name) {
  if (name == equal_lengths || name == "zipf") return std::string(name);
  if (name.starts_with(uniform)) {
    const auto range = parse_range(name.substr(uniform.size()));
    if (!range) return range.refusal();
    return std::string(uniform) + std::to_string(range->low) + ".." + std::to_string(range->high);
  }
  if (name.starts_with(file) && name.size() > file.size()) return std::string(name);
  return refuse("'" + std::string(name) + "' names no lengths; accepted: equal, uniform:LOW..HIGH, zipf, file:PATH");
}

std::string layout_name(index_t page_rows) { return page_rows > 0 ? std::string(paged) + std::to_string(page_rows) : "contiguous"; }

Result<index_t> parse_layout(std::string_view name) {
  if (name == "contiguous") return index_t{0};
  const auto rows = name.starts_with(paged) ? parse_integer(name.substr(paged.size())) : Result<index_t>(refuse(""));
  if (rows && *rows >= 1 && *rows <= most_page_rows) return *rows;
  return refuse("'" + std::string(name) + "' is no layout of keys; accepted: contiguous, paged:TOKENS with 1.." +
                std::to_string(most_page_rows) + " tokens of a page");
}

Result<std::vector<index_t>> lengths_of(std::string_view name, const Problem& p, std::uint64_t seed) {
  if (name == equal_lengths) return std::vector<index_t>{};
  std::vector<index_t> lengths(static_cast<std::size_t>(p.batch));
  if (name == "zipf") {
    const index_t least = p.pass == Pass::decode ? p.q_len : 1;
    for (std::size_t b = 0; b < lengths.size(); ++b) lengths[b] = std::max(least, p.kv_len / (static_cast<index_t>(b) + 1));
  } else if (name.starts_with(uniform)) {
    const auto range = parse_range(name.substr(uniform.size()));
    if (!range) return range.refusal();
    const Rng rng(seed, "lengths");
    for (std::size_t b = 0; b < lengths.size(); ++b)
      lengths[b] = range->low + rng.below(static_cast<index_t>(b), range->high - range->low + 1);
    std::ranges::sort(lengths, std::greater<>());
    if (range->high > p.kv_len) lengths.front() = range->high;  // whatever was drawn: refused
  } else {
    auto read = read_lengths(std::string(name.substr(file.size())));
    if (!read) return refuse("--lengths: " + read.reason());
    lengths = *std::move(read);
  }
  if (Status fits = check(lengths, p); !fits) return refuse("--lengths " + std::string(name) + ": " + fits.reason());
  return lengths;
}

}  // namespace attn
