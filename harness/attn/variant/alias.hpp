// Words that people type for a variant: what they lead to, in one table.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace attn {

struct Alias {
  std::string_view word;
  std::string_view
      name;  // of the variant, with an implementation or options if need be; empty: there is none, `how` says what does it
  std::string_view how = {};
};

const std::vector<Alias>& aliases();

// The entry of a word in any case, with '-' as '_'; null where there is none.
const Alias* find_alias(std::string_view word);

}  // namespace attn
