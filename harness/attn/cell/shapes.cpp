#include "attn/cell/shapes.hpp"

#include <toml++/toml.h>

#include <algorithm>

#include "attn/cell/shapes_toml.hpp"
#include "attn/core/assert.hpp"
#include "attn/core/text.hpp"

namespace attn {

namespace {

// A list that lacks something is a bug of the tree.
ModelShape read(std::string_view name, const toml::table& table) {
  const auto number = [&](const char* key) { return static_cast<index_t>(table[key].value<std::int64_t>().value()); };
  const auto text = [&](const char* key) { return table[key].value<std::string>().value(); };
  return {.name = std::string(name),
          .heads = number("heads"),
          .kv_heads = number("kv_heads"),
          .head_dim = number("head_dim"),
          .causal = table["causal"].value<bool>().value(),
          .window = table.contains("window") ? number("window") : 0,
          .layers = text("layers"),
          .source = text("source")};
}

}  // namespace

void ModelShape::set(Problem& p) const {
  p.heads = heads;
  p.kv_heads = kv_heads;
  p.head_dim = p.value_dim = head_dim;
  p.causal = causal || p.pass == Pass::decode;
}

const std::vector<ModelShape>& shapes() {
  static const std::vector<ModelShape> list = [] {
    std::vector<ModelShape> all;
    const toml::table tables = toml::parse(std::string_view(shapes_toml));
    for (const auto& [name, table] : tables) all.push_back(read(name.str(), *table.as_table()));
    return all;
  }();
  return list;
}

Result<ModelShape> shape_of(std::string_view name) {
  std::vector<std::string> names;
  for (const ModelShape& shape : shapes()) {
    if (shape.name == name) return shape;
    names.push_back(shape.name);
  }
  const std::string close = nearest(name, names);
  return refuse("'" + std::string(name) + "' is no known shape" + (close.empty() ? "" : ", did you mean '" + close + "'?") +
                " (--list shapes has them all)");
}

std::string window_variant(const ModelShape& shape) {
  return shape.window == 0 ? "" : "local:left=" + std::to_string(shape.window - 1) + ",right=0,sinks=0";
}

}  // namespace attn
