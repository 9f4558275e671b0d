#include "attn/record/journal.hpp"

#include <exception>
#include <nlohmann/json.hpp>

#include "attn/core/text.hpp"

namespace attn {

using nlohmann::json;

std::string journal_line(const JournalEntry& entry) {
  const std::string key = json(entry.key).dump(-1, ' ', false, json::error_handler_t::replace);
  return "{\"cell\":" + key + ",\"measurement\":" + to_json(entry.round) + "}\n";
}

std::vector<JournalEntry> read_journal(std::string_view text) {
  std::vector<JournalEntry> entries;
  for (const auto line : split(text, '\n')) {
    try {
      const auto entry = json::parse(line);
      entries.push_back({entry.at("cell").get<std::string>(), measurement_from_json(entry.at("measurement").dump())});
    } catch (const std::exception&) {
      continue;
    }
  }
  return entries;
}

}  // namespace attn
