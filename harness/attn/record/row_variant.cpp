#include "attn/record/row_variant.hpp"

namespace attn {

void RowVariant::take_name(std::string_view canonical) {
  const VariantName given = VariantName::parse(canonical).value();
  id = given.id;
  options = given.options.text();
  implementation = given.implementation;
  name = canonical;
}

void RowVariant::describe(const Registry& registry) {
  const VariantType* type = registry.find(id);
  ATTN_ASSERT(type != nullptr);
  name = registry.short_text(name);
  family = type->family;
  exactness = to_string(type->info.exactness);
}

bool RowVariant::spell_name(std::string& canonical) const {
  const auto values = OptionValues::parse(options);
  if (values) canonical = VariantName{id, implementation, *values}.text();
  return static_cast<bool>(values);
}

}  // namespace attn
