#include "attn/cell/grid.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <utility>

#include "attn/cell/shapes.hpp"
#include "attn/inputs/input.hpp"

namespace attn {

namespace {

// Opened once, whatever the number of cells.
class OpenInputs {
 public:
  Result<const Input*> get(const std::string& name) {
    auto& opened = opened_[name];
    if (!opened) {
      auto input = parse_input(name);
      if (!input) return input.refusal();
      opened = *std::move(input);
    }
    return opened.get();
  }

 private:
  std::map<std::string, std::unique_ptr<Input>> opened_;
};

// The problem that an input serves. A length that was asked for and is not in the file stays, and so does a step that is longer than the
// context: a row, refused when its tensors are made.
Result<Problem> served(const Input& input, const Problem& wish, bool length_asked) {
  auto problem = input.adapt(wish);
  if (!problem) return refuse("--input " + input.name() + ": " + problem.reason());
  const auto held = input.shape();
  if (length_asked && held && held->self_attention() && held->kv_len < wish.kv_len) {
    problem->q_len = wish.q_len;
    problem->kv_len = wish.kv_len;
  }
  if (wish.pass == Pass::decode && wish.q_len > wish.kv_len) problem->q_len = wish.q_len;
  return problem;
}

// Of what was asked for and is not what the input has. A length beyond a file is a row, which says so itself.
void note_overridden(const std::span<const GridLine>& lines, const Cell& wish, const Cell& cell, std::vector<std::string>& notes) {
  for (const GridLine& line : lines) {
    const AxisValue wanted = line.axis->get(wish), held = line.axis->get(cell);
    if (!line.asked || wanted == held) continue;
    const std::string note = "--" + line.axis->flag + " " + to_string(wanted) + " changes nothing: input " + cell.input + " has " +
                             to_string(held) + ", which is measured";
    if (std::find(notes.begin(), notes.end(), note) == notes.end()) notes.push_back(note);
  }
}

// Gives the cell what its shape stands for; refused where an axis of these was asked for otherwise.
Status take_shape(const std::span<const GridLine>& lines, Cell& cell) {
  if (cell.shape == no_shape) return {};
  const Cell wish = cell;
  shape_of(cell.shape).value().set(cell.problem);
  for (const GridLine& line : lines) {
    const AxisValue wanted = line.axis->get(wish), has = line.axis->get(cell);
    if (line.asked && wanted != has)
      return refuse("--" + line.axis->flag + " " + to_string(wanted) + " is given, --shape " + cell.shape + " has " +
                    to_string(has) + "; accepted: one of them");
  }
  return {};
}

// The layers of a shape that look at a window are local attention.
void add_window(const Cell& cell, const Registry* registry, Block& block) {
  if (cell.shape == no_shape || registry == nullptr) return;
  const std::string window = window_variant(shape_of(cell.shape).value());
  if (window.empty() || registry->find("local") == nullptr) return;
  const std::string name = registry->configure(window).value()->name().text();
  const bool there = std::ranges::any_of(block.cells, [&](const Cell& other) { return other.variant == name; });
  if (!there) block.cells.emplace_back(cell).variant = name;
}

}  // namespace

void GridLine::add(const AxisValue& value) {
  if (std::find(values.begin(), values.end(), value) == values.end()) values.push_back(value);
}

Result<std::vector<GridLine>> parse_grid(const Asked& asked, const Registry& registry) {
  std::vector<GridLine> grid;
  for (const Axis& axis : axes()) {
    const auto given = asked.find(axis.name);
    const bool found = given != asked.end() && !given->second.empty();
    GridLine& line = grid.emplace_back(GridLine{&axis, {}, found});
    if (!found && axis.usual.empty()) continue;
    for (const std::string& text : found ? given->second : std::vector{axis.usual}) {
      const auto values = axis.parse(text, registry);
      if (!values) return refuse("--" + axis.flag + ": " + values.reason());
      for (const AxisValue& value : *values) line.add(value);
    }
  }
  return grid;
}

Result<std::vector<Block>> make_blocks(const std::vector<GridLine>& grid, std::vector<std::string>* notes,
                                       const Registry* registry) {
  const GridLine& variants = grid.front();
  const std::span lines(grid.begin() + 1, grid.end());
  const auto asked = [&](std::string_view axis) {
    return std::ranges::any_of(lines, [&](const GridLine& line) { return line.axis->name == axis && line.asked; });
  };
  const bool length_asked = asked("q_len"), keys_asked = asked("kv_len");
  std::vector<Cell> wishes{Cell{}};
  for (const GridLine& line : lines) {
    std::vector<Cell> more;
    for (const Cell& wish : wishes) {
      if (line.values.empty()) more.push_back(wish);
      for (const AxisValue& value : line.values) line.axis->set(more.emplace_back(wish), value);
    }
    wishes = std::move(more);
  }

  std::vector<Block> blocks;
  std::set<std::string> known;
  OpenInputs inputs;
  for (Cell& cell : wishes) {
    for (const GridLine& line : lines) {
      if (line.values.empty()) line.axis->set(cell, axis_of(line.axis->as).get(cell));
    }
    if (Status taken = take_shape(lines, cell); !taken) return taken.refusal();
    if (keys_asked && cell.problem.pass == Pass::decode)
      return refuse(
          "--kv-len is given with --pass decode, whose keys are the context; accepted: --n for it, --step for its new tokens");
    const auto input = inputs.get(cell.input);
    if (!input) return input.refusal();
    const auto problem = served(**input, cell.problem, length_asked);
    if (!problem) return problem.refusal();
    const Cell wish = cell;
    cell.problem = *problem;
    if (cell.shape != no_shape && (cell.problem.heads != wish.problem.heads || cell.problem.kv_heads != wish.problem.kv_heads ||
                                   cell.problem.head_dim != wish.problem.head_dim || cell.problem.causal != wish.problem.causal))
      return refuse("--shape " + cell.shape + " is given, input " + cell.input + " has a shape of its own; accepted: one of them");
    if (notes != nullptr) note_overridden(lines, wish, cell, *notes);
    if (!known.insert(cell_key(cell)).second) continue;
    Block block;
    for (const AxisValue& variant : variants.values) variants.axis->set(block.cells.emplace_back(cell), variant);
    add_window(cell, registry, block);
    blocks.push_back(std::move(block));
  }
  return blocks;
}

}  // namespace attn
