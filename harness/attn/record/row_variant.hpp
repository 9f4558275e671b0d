// What a row tells of its variant, and the columns of it that sweep and training share.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "attn/record/column_list.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

struct RowVariant {
  std::string id, options;
  std::string implementation{native};
  std::string name;  // as tables show it
  std::string family, exactness;

  // From a canonical name; what only a registry knows is left out, and `name` has all options.
  void take_name(std::string_view canonical);
  // Short name, family and exactness. The registry knows the variant.
  void describe(const Registry& registry);
  // The canonical name that id, implementation and options make; false where the options are none.
  bool spell_name(std::string& canonical) const;
};

// `at(row)` is the canonical name in the row's cell or job, which follows what is read into the columns.
template <class Row, class At>
void add_variant_columns(ColumnList<Row>& c, At at) {
  const auto part = [&](ColumnInfo info, std::string RowVariant::*member) {
    info.role = Role::key;
    info.holds = Holds::text;
    c.add(
        std::move(info), [member](const Row& r) { return r.*member; },
        [member, at](Row& r, const std::string& field) { return r.*member = field, r.spell_name(at(r)); });
  };
  part({.name = "variant", .doc = "id of the variant"}, &RowVariant::id);
  part({.name = "options", .doc = "its options, canonical: name=value,..."}, &RowVariant::options);
  part({.name = "implementation", .doc = "who computed it: native is the variant's own page", .usual = std::string(native)},
       &RowVariant::implementation);
  c.text(
      {"name", "variant, implementation and the options that differ from the defaults, as tables show them", "", Role::context},
      [](auto& r) -> auto& { return r.name; });
  c.text(
      {"family", "its folder"}, [](auto& r) -> auto& { return r.family; });
  c.text(
      {"exactness", "exact, pattern, approximation, fitted approximation (once its tensors are learned) or different operator"},
      [](auto& r) -> auto& { return r.exactness; });
}

}  // namespace attn
