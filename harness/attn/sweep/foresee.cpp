#include "attn/sweep/foresee.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "attn/cell/axes.hpp"
#include "attn/core/text.hpp"
#include "attn/program/flags.hpp"
#include "attn/record/table.hpp"
#include "attn/sweep/estimate.hpp"
#include "attn/sweep/grid.hpp"
#include "attn/sweep/worker.hpp"

namespace attn {

namespace {

// Planned in one process: starting one takes longer than planning a hundred cells.
constexpr std::size_t at_a_time = 256;

Result<std::vector<Result<Needs>>> needs_of_blocks(const std::vector<Block>& blocks, const SweepOptions& o) {
  const auto memory_limit_bytes = read_memory_limit(o.memory_limit);
  if (!memory_limit_bytes) return memory_limit_bytes.refusal();
  const Worker worker(o, *memory_limit_bytes);
  std::vector<Cell> cells;
  for (const Block& block : blocks) cells.insert(cells.end(), block.cells.begin(), block.cells.end());
  std::vector<Result<Needs>> needs;
  for (std::size_t first = 0; first < cells.size(); first += at_a_time) {
    const auto begin = cells.begin() + static_cast<std::ptrdiff_t>(first);
    const auto end = cells.begin() + static_cast<std::ptrdiff_t>(std::min(first + at_a_time, cells.size()));
    for (auto& one : worker.needs_of({begin, end})) needs.push_back(std::move(one));
  }
  return needs;
}

std::string cell_line(const Cell& cell, const Result<Needs>& needs, double seconds) {
  return fmt::format("  {}: {}\n", cell.variant,
                     needs ? fmt::format("{}; about {}", words(*needs), human_time(seconds)) : needs.reason());
}

}  // namespace

Result<std::string> foreseen_text(const std::vector<Block>& blocks, const SweepOptions& o, const Registry& registry) {
  const auto needs = needs_of_blocks(blocks, o);
  if (!needs) return needs.refusal();
  double total_s = 0;
  index_t most = 0;
  std::size_t cells = 0;
  std::string text;
  for (const Block& block : blocks) {
    text += heading(block.cells.front()) + "\n";
    for (const Cell& cell : block.cells) {
      const Result<Needs>& one = (*needs)[cells++];
      const double seconds = estimate_s(cell, o, registry);
      text += cell_line(cell, one, seconds);
      total_s += seconds;
      if (one) most = std::max(most, one->total());
    }
  }
  return text + fmt::format("{}, about {}, at most {} at a time\n", counted(cells, "cell"), human_time(total_s),
                            human_bytes(static_cast<double>(most)));
}

std::string foreseen_time(const std::vector<Block>& blocks, const SweepOptions& o, const Registry& registry) {
  double total_s = 0;
  std::size_t cells = 0;
  for (const Block& block : blocks) {
    cells += block.cells.size();
    for (const Cell& cell : block.cells) total_s += estimate_s(cell, o, registry);
  }
  return counted(cells, "cell") + ", about " + human_time(total_s);
}

Result<std::string> needs_of_all_text(SweepOptions o, const Registry& registry) {
  o.axes["variant"] = {"all"};
  auto blocks = make_grid(o, registry);
  if (!blocks) return blocks.refusal();
  const std::vector<Block> last{blocks->back()};
  const auto needs = needs_of_blocks(last, o);
  if (!needs) return needs.refusal();
  std::string text = "\nmemory and time of a cell at " + heading(last.front().cells.front()) + "\n";
  for (std::size_t c = 0; c < needs->size(); ++c) {
    const Cell& cell = last.front().cells[c];
    text += cell_line(cell, (*needs)[c], estimate_s(cell, o, registry));
  }
  return text;
}

}  // namespace attn
