// The axes: all that varies from cell to cell, one entry each. Flags, ATTN_ variables and config keys, the grid, a worker's question, a
// cell's key, the command that repeats it, headings and the CSV's first columns loop over them. To add an axis is to add an entry.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "attn/cell/cell.hpp"
#include "attn/core/result.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// A number, or the name of what is none; an empty name in cells that the axis says nothing of. The order is that of numbers or of names.
using AxisValue = std::variant<index_t, std::string>;
std::string to_string(const AxisValue& value);

struct Axis {
  std::string name;  // of the CSV's column, in keys, questions and headings
  std::string flag;  // --flag, config key and, in capitals, ATTN_FLAG
  std::string doc;   // of the column
  std::string help;  // of the flag
  std::string unit;  // of numbers; empty: none
  std::string
      usual;  // what is swept where nothing is asked for, as a user types it; empty: what the axis `as` has in the same cell
  std::string as;
  bool yes_alone = false;   // the flag without a value says yes
  bool quiet = false;       // headings and commands do not tell the usual value
  bool repeatable = false;  // the flag may be given several times
  bool number = true;       // rather than a name

  // Values that a user asks for with one text: a list, a range, ...; refused without the flag's name.
  std::function<Result<std::vector<AxisValue>>(std::string_view text, const Registry&)> parse;
  // One value as to_string() printed it. Whether there is such a thing here, such as a file, is not asked.
  std::function<Result<AxisValue>(std::string_view text)> read;
  std::function<void(Cell&, const AxisValue&)> set;
  std::function<AxisValue(const Cell&)> get;
};

// From the outermost of the grid to the innermost; that of the variants is the first.
const std::vector<Axis>& axes();
const Axis& axis_of(std::string_view name);  // which there is

// A program's own axis, behind the others. Before anything loops over them.
void add_axis(Axis axis);

// Texts that were asked for, by the axis's name. Axes without one take their usual values.
using Asked = std::map<std::string, std::vector<std::string>, std::less<>>;

// What makes two cells the same.
std::string cell_key(const Cell& cell);

// "q_len=512 batch=1 heads=8 ..." in full, for a table of this cell and others that differ in the variant alone.
std::string heading(const Cell& cell);

// "full q_len=512": the variant by `name`, and what is unusual in a sweep of this machine.
std::string title(const Cell& cell, const std::string& name);

// The flags that ask for this cell alone.
std::vector<std::string> arguments_for(const Cell& cell);

}  // namespace attn
