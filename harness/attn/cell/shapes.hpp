// The attention of models that people know, from shapes.toml.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"

namespace attn {

inline constexpr const char* no_shape = "none";  // of a cell

struct ModelShape {
  std::string name;
  index_t heads = 0, kv_heads = 0, head_dim = 0;
  bool causal = false;
  index_t window = 0;  // last keys that some layers look at, the query's own included; 0: no layer has one
  std::string layers;  // how many, and which have the window
  std::string source;  // the file that says so

  void set(Problem& p) const;
};

// In the order of their names.
const std::vector<ModelShape>& shapes();

// Unknown ones are refused with the nearest.
Result<ModelShape> shape_of(std::string_view name);

// The variant of the layers with the window, "local:left=511,right=0"; empty where there are none.
std::string window_variant(const ModelShape& shape);

}  // namespace attn
