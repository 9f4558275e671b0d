#include "attn/apply/map.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "attn/apply/map_page.hpp"
#include "attn/core/text.hpp"
#include "attn/inputs/npy.hpp"
#include "attn/measure/implicit_matrix.hpp"
#include "attn/record/sink.hpp"

namespace attn {

namespace {

bool is_page(const MapOptions& options) { return options.file.ends_with(".html"); }

// Of 16-bit numbers, the low byte first, as every browser has them: RFC 4648, section 4.
std::string base64(std::span<const std::int16_t> numbers) {
  constexpr std::string_view letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const std::size_t bytes = 2 * numbers.size();
  const auto byte = [&](std::size_t i) -> std::uint32_t {
    if (i >= bytes) return 0;
    return (static_cast<std::uint16_t>(numbers[i / 2]) >> (i % 2 == 0 ? 0U : 8U)) & 0xffU;
  };
  std::string text;
  text.reserve((bytes + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes; i += 3) {
    const std::uint32_t three = byte(i) << 16U | byte(i + 1) << 8U | byte(i + 2);
    for (std::uint32_t sextet = 0; sextet < 4; ++sextet)
      text += i + sextet <= bytes ? letters[three >> (18U - 6U * sextet) & 63U] : '=';
  }
  return text;
}

Result<std::vector<std::string>> read_tokens(const std::string& path, index_t count) {
  const auto file = read_file(path);
  if (!file) return refuse("--tokens: " + file.reason());
  std::vector<std::string> words;
  for (std::string_view rest = *file; !rest.empty();) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    words.emplace_back(rest.substr(0, end));
    if (words.back().ends_with('\r')) words.back().pop_back();
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  if (std::ssize(words) == count) return words;
  return refuse(
      fmt::format("--tokens: '{}' has {} lines, the input has {} keys; accepted: a line for each", path, words.size(), count));
}

}  // namespace

Status check_map(const MapOptions& options, const Problem& p) {
  if (!is_page(options) && !options.file.ends_with(".npy"))
    return refuse("--map: '" + options.file +
                  "' ends neither in .npy nor in .html; accepted: FILE.npy for the weights, FILE.html for a page");
  if (Status possible = has_matrix(p); !possible) return refuse("--map: " + possible.reason());
  const index_t weights = p.heads * p.q_len * p.kv_len;
  if (is_page(options) && weights > weights_of_page)
    return refuse(fmt::format("--map: {} heads of {} x {} are {} weights, a page holds {}; accepted: fewer tokens, or FILE.npy",
                              p.heads, p.q_len, p.kv_len, weights, weights_of_page));
  return {};
}

AttentionMap::AttentionMap(const CellRun& run, MapOptions options, Elements<float> weights)
    : options_(std::move(options)),
      p_(run.problem()),
      variant_(run.variant().short_name()),
      input_(run.input().name()),
      weights_(std::move(weights)),
      tokens_(run.input().picture(p_, run.variant().inputs(p_), run.seed())) {
  const auto size = static_cast<std::size_t>(p_.q_len * p_.kv_len);
  for (index_t head = 0; head < p_.heads; ++head)
    figures_.push_back(head_figures(p_, {weights_.data() + static_cast<std::size_t>(head) * size, size}));
}

Result<AttentionMap> AttentionMap::of(const CellRun& run, const MapOptions& options) {
  auto weights = implicit_matrix(run);
  if (!weights) return refuse("--map: " + run.variant().short_name() + ": " + weights.reason());
  AttentionMap map(run, options, *std::move(weights));
  if (options.tokens.empty()) return map;
  auto words = read_tokens(options.tokens, map.p_.kv_len);
  if (!words) return words.refusal();
  map.tokens_.words = *std::move(words);
  return map;
}

Status AttentionMap::write() const {
  const Status written =
      is_page(options_) ? write_file(options_.file, page()) : write_npy(options_.file, weights_.shape(), weights_.values());
  return written ? written : refuse("--map: " + written.reason());
}

std::string AttentionMap::text(const std::string& more) const {
  std::string text = fmt::format("{}: weights of {} head{} of {} queries and {} keys by {}{}\n", options_.file, p_.heads,
                                 p_.heads == 1 ? "" : "s", p_.q_len, p_.kv_len, variant_, more);
  for (std::size_t head = 0; head < figures_.size(); ++head) {
    const HeadFigures& f = figures_[head];
    text +=
        fmt::format("head {:<3} entropy {:.2f} bits, distance {:.1f} tokens, sink {:.3f} on token {}, rows sum to {:.4g}..{:.4g}\n",
                    head, f.entropy, f.distance, f.sink_share, f.sink, f.least_sum, f.largest_sum);
  }
  return text;
}

std::string AttentionMap::page() const {
  nlohmann::json heads = nlohmann::json::array(), colours = nlohmann::json::array();
  const auto size = static_cast<std::size_t>(p_.q_len * p_.kv_len);
  constexpr float steps = 32767;  // of a head's largest weight: finer than a screen shows
  std::vector<std::int16_t> numbers(figures_.size() * size);
  for (std::size_t head = 0; head < figures_.size(); ++head) {
    const std::span weights = weights_.values().subspan(head * size, size);
    float largest = 0;
    for (const float w : weights) largest = std::max(largest, std::abs(w));
    const float scale = largest > 0 ? steps / largest : 0;
    std::ranges::transform(weights, numbers.begin() + static_cast<std::ptrdiff_t>(head * size),
                           [&](float w) { return static_cast<std::int16_t>(std::lround(w * scale)); });
    const HeadFigures& f = figures_[head];
    heads.push_back({{"largest", largest},
                     {"entropy", f.entropy},
                     {"distance", f.distance},
                     {"sink", f.sink},
                     {"share", f.sink_share},
                     {"sums", {f.least_sum, f.largest_sum}}});
  }
  for (std::size_t c = 0; c + 2 < tokens_.colours.size(); c += 3) {
    const auto level = [&](std::size_t i) { return std::lround(255 * std::clamp(tokens_.colours[c + i], 0.0f, 1.0f)); };
    colours.push_back(fmt::format("#{:02x}{:02x}{:02x}", level(0), level(1), level(2)));
  }
  const nlohmann::json data = {{"variant", variant_},        {"input", input_},
                               {"causal", p_.causal},        {"queries", p_.q_len},
                               {"keys", p_.kv_len},          {"offset", p_.kv_len - p_.q_len},
                               {"batch", p_.batch},          {"heads", heads},
                               {"weights", base64(numbers)}, {"words", tokens_.words},
                               {"columns", tokens_.columns}, {"colours", colours},
                               {"edges", tokens_.edges}};
  std::string json = data.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  for (std::size_t at = 0; (at = json.find('<', at)) != std::string::npos;) json.replace(at, 1, "\\u003c");  // closes no script
  std::string page = map_page;
  constexpr std::string_view mark = "@DATA@";
  page.replace(page.find(mark), mark.size(), json);
  return page;
}

}  // namespace attn
