// Rounds of cells that are not finished: one JSON object a line, for --resume.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "attn/cell/cell.hpp"

namespace attn {

struct JournalEntry {
  std::string key;  // of the cell
  Measurement round;
};

std::string journal_line(const JournalEntry& entry);

// In the order of their lines. A line that is no entry, such as the last one of a sweep that was killed, is left out.
std::vector<JournalEntry> read_journal(std::string_view text);

}  // namespace attn
