// Pairs of texts from files as they lie about: tab-separated lines, and gettext's catalogues of messages and their translations.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "attn/core/result.hpp"

namespace attn {

struct TextPair {
  std::string from, to;  // UTF-8, neither empty
};

// Of a tab-separated text: the first two fields of every line that is not empty, a byte order mark left out. Of a compiled catalogue (.mo, known
// by its first bytes, either byte order): each message with its translation, of messages that have one; a context is left out, and of plurals all
// but the first form. A source that stands there again is left out. Refused: what is not UTF-8 or says that it is not, a line without a tab or
// with nothing on one side of it, a catalogue that is cut short, and what holds no pair. `name` is for the sentences.
Result<std::vector<TextPair>> parse_pairs(std::string_view bytes, const std::string& name);
Result<std::vector<TextPair>> read_pairs(const std::string& path);

// Numbers of the texts that are held out, a fifth of them and at least one where there are two: the same ones whatever else the list holds, by
// the order of a hash of each text.
std::vector<bool> held_out(const std::vector<std::string>& texts);

}  // namespace attn
