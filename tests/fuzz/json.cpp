// JSON that another process of this build wrote, whole or torn: answers and questions of workers, the journal, the peaks of a
// context. What is read is written and read again without change.
#include <exception>

#include "attn/cell/cell.hpp"
#include "attn/core/assert.hpp"
#include "attn/measure/machine.hpp"
#include "attn/record/journal.hpp"
#include "fuzz.hpp"

using namespace attn;

namespace {

template <class Parse, class Print>
void check(const std::string& text, Parse parse, Print print) {
  std::string printed;
  try {
    printed = print(parse(text));
  } catch (const std::exception&) {
    return;
  }
  ATTN_ASSERT(print(parse(printed)) == printed);
}

struct Question {
  Cell cell;
  Settings settings;
};

}  // namespace

void fuzz(std::span<const std::byte> bytes) {
  const std::string text(as_text(bytes));
  check(text, measurement_from_json, [](const Measurement& m) { return to_json(m); });
  check(text, peak_from_json, [](const Peak& peak) { return to_json(peak); });
  const auto question = [](const std::string& json) {
    Question q;
    from_json(json, q.cell, q.settings);
    return q;
  };
  const auto lines = [](const std::vector<JournalEntry>& entries) {
    std::string all;
    for (const JournalEntry& entry : entries) all += journal_line(entry);
    return all;
  };
  check(
      text, [](const std::string& journal) { return read_journal(journal); }, lines);
  check(text, question, [](const Question& q) { return to_json(q.cell, q.settings); });
}
