#include "attn/train/pairs.hpp"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <numeric>
#include <optional>
#include <set>

#include "attn/core/rng.hpp"
#include "attn/core/text.hpp"
#include "attn/record/sink.hpp"
#include "attn/train/unicode.hpp"

namespace attn {

namespace {

std::string quoted(std::string_view name) { return "'" + std::string(name) + "'"; }

// Keeps what holds, each source once.
Result<std::vector<TextPair>> first_of_each(std::vector<TextPair> pairs, const std::string& name) {
  std::set<std::string> seen;
  std::erase_if(pairs, [&](const TextPair& pair) { return !seen.insert(pair.from).second; });
  if (pairs.empty()) return refuse(quoted(name) + " holds no pair of texts");
  return pairs;
}

Result<std::vector<TextPair>> parse_lines(std::string_view text, const std::string& name) {
  constexpr std::string_view mark = "\xef\xbb\xbf";
  if (text.starts_with(mark)) text.remove_prefix(mark.size());
  std::vector<TextPair> pairs;
  index_t number = 0;
  for (std::string_view line : split(text, '\n')) {
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const auto no = [&](const std::string& why) {
      return refuse("line " + std::to_string(number) + " of " + quoted(name) + " " + why);
    };
    if (!code_points(line)) return no("is not UTF-8; accepted: UTF-8, as iconv -t UTF-8 makes it");
    const auto fields = split(line, '\t');
    if (fields.size() < 2) return no("has no tab; accepted: a text, a tab, and what it becomes");
    if (trim(fields[0]).empty() || trim(fields[1]).empty())
      return no(std::string("has nothing ") + (trim(fields[0]).empty() ? "before" : "behind") + " its tab");
    pairs.push_back({std::string(trim(fields[0])), std::string(trim(fields[1]))});
  }
  return first_of_each(std::move(pairs), name);
}

// A compiled catalogue: magic, revision, count, places of the tables of messages and of translations; a table has length and place of each
// text. GNU gettext manual, "The Format of GNU MO Files".
class Catalogue {
 public:
  static bool is(std::string_view bytes) { return bytes.starts_with("\xde\x12\x04\x95") || bytes.starts_with("\x95\x04\x12\xde"); }

  explicit Catalogue(std::string_view bytes) : bytes_(bytes), big_endian_(bytes.starts_with('\x95')) {}

  std::optional<std::uint64_t> number(std::uint64_t at) const {
    if (at + 4 > bytes_.size()) return std::nullopt;
    std::uint64_t value = 0;
    for (std::uint64_t i = 0; i < 4; ++i) {
      const auto byte = static_cast<unsigned char>(bytes_[at + (big_endian_ ? i : 3 - i)]);
      value = value << 8 | byte;
    }
    return value;
  }

  // Text i of the table whose place stands at `table`.
  std::optional<std::string_view> text(std::uint64_t table, std::uint64_t i) const {
    const auto place = number(table);
    if (!place) return std::nullopt;
    const auto size = number(*place + 8 * i), begin = number(*place + 8 * i + 4);
    if (!size || !begin || *begin + *size > bytes_.size()) return std::nullopt;
    return bytes_.substr(*begin, *size);
  }

 private:
  std::string_view bytes_;
  bool big_endian_;
};

// The encoding that a catalogue's first entry names; nothing where it names none.
std::string charset(std::string_view header) {
  constexpr std::string_view key = "charset=";
  const auto at = header.find(key);
  if (at == std::string_view::npos) return "";
  const auto rest = header.substr(at + key.size());
  return std::string(rest.substr(0, rest.find_first_of(" \t\r\n;")));
}

bool names_utf8(std::string name) {
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return name.empty() || name == "UTF-8" || name == "UTF8" || name == "US-ASCII" || name == "ASCII";
}

Result<std::vector<TextPair>> parse_catalogue(std::string_view bytes, const std::string& name) {
  constexpr std::uint64_t count_at = 8, messages_at = 12, translations_at = 16;
  const Catalogue catalogue(bytes);
  const auto count = catalogue.number(count_at);
  const auto torn = [&] { return refuse(quoted(name) + " is a catalogue that is cut short"); };
  if (!count) return torn();
  std::vector<TextPair> pairs;
  for (std::uint64_t i = 0; i < *count; ++i) {
    const auto message = catalogue.text(messages_at, i), translation = catalogue.text(translations_at, i);
    if (!message || !translation) return torn();
    if (message->empty()) {
      if (const std::string encoding = charset(*translation); !names_utf8(encoding))
        return refuse(quoted(name) + " is encoded in " + encoding + "; accepted: UTF-8, as msgconv -t UTF-8 makes it");
      continue;
    }
    const std::string_view singular = message->substr(0, message->find('\0'));
    const std::string_view from = trim(singular.substr(singular.find('\4') + 1));  // behind its context
    const std::string_view to = trim(translation->substr(0, translation->find('\0')));
    if (!code_points(from) || !code_points(to))
      return refuse("message " + std::to_string(i + 1) + " of " + quoted(name) + " is not UTF-8; accepted: UTF-8");
    if (!from.empty() && !to.empty()) pairs.push_back({std::string(from), std::string(to)});
  }
  return first_of_each(std::move(pairs), name);
}

}  // namespace

Result<std::vector<TextPair>> parse_pairs(std::string_view bytes, const std::string& name) {
  return Catalogue::is(bytes) ? parse_catalogue(bytes, name) : parse_lines(bytes, name);
}

Result<std::vector<TextPair>> read_pairs(const std::string& path) {
  const auto bytes = read_file(path);
  if (!bytes) return bytes.refusal();
  return parse_pairs(*bytes, path);
}

std::vector<bool> held_out(const std::vector<std::string>& texts) {
  std::vector<std::size_t> order(texts.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return hash_name(texts[i]); });
  std::vector<bool> held(texts.size());
  const std::size_t count = texts.size() < 2 ? 0 : std::max<std::size_t>(1, texts.size() / 5);
  for (std::size_t i = 0; i < count; ++i) held[order[i]] = true;
  return held;
}

}  // namespace attn
