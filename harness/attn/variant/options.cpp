#include "attn/variant/options.hpp"

namespace attn {

OptionValues without_defaults(const OptionValues& values, const std::vector<OptionDoc>& docs) {
  OptionValues own;
  for (const OptionValue& given : values.all()) {
    const bool usual = std::any_of(
        docs.begin(), docs.end(), [&](const OptionDoc& doc) { return doc.name == given.name && doc.default_value == given.value; });
    if (!usual) own.add(given);
  }
  return own;
}

}  // namespace attn
