// Arrays that a variant reads beside q, k and v.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "attn/core/dtype.hpp"

namespace attn {

struct InputSpec {
  std::string name;
  std::vector<index_t> extents;  // where it has tokens they are the third axis, as of k
  double low, high;              // no element lies beyond
  // An element, of a standard normal number: for inputs that have no array of this name.
  std::function<double(double normal)> drawn;
  std::string doc;
  bool whole = false;  // elements are whole numbers: drawn ones are rounded down
};

}  // namespace attn
