// From axes to cells.
#pragma once

#include <string>
#include <vector>

#include "attn/cell/axes.hpp"
#include "attn/cell/cell.hpp"
#include "attn/core/result.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// The values of one axis.
struct GridLine {
  const Axis* axis;
  std::vector<AxisValue> values;  // each once; none: those of the axis that it follows
  bool asked;                     // by the user

  void add(const AxisValue& value);
};

// In the order of axes(). Refusals name the flag.
Result<std::vector<GridLine>> parse_grid(const Asked& asked, const Registry& registry);

// Cells that differ in the variant alone.
struct Block {
  std::vector<Cell> cells;
};

// Every combination, the first axis outermost, as the inputs serve it: files of tensors fix their shape, and several lengths asked
// for may be one problem. `notes`: a sentence for each value that was asked for and is not what an input has. With a registry, shapes with a
// window get local attention too.
Result<std::vector<Block>> make_blocks(const std::vector<GridLine>& grid, std::vector<std::string>* notes = nullptr,
                                       const Registry* registry = nullptr);

}  // namespace attn
