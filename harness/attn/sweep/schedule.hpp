// When what is measured: rounds in shuffled order, the samples of each, and the time that --budget leaves.
#pragma once

#include <cstddef>
#include <vector>

#include "attn/cell/grid.hpp"
#include "attn/sweep/options.hpp"

namespace attn {

class Schedule {
 public:
  // The budget runs from here on. `options` must outlive this.
  explicit Schedule(const SweepOptions& options);

  std::size_t rounds() const { return static_cast<std::size_t>(options_.rounds); }
  // The cells of a block, by its number, in the order of a round.
  std::vector<std::size_t> order(const Block& block, std::size_t number, std::size_t round) const;
  // What a round measures of a cell: all of them clock, the first gates and compares too.
  Settings settings(const Cell& cell, std::size_t round) const;
  bool budget_is_used_up() const;
  // Whether a cell with these samples, of so many rounds, is to have a further one (--steady).
  bool wants_more(const std::vector<double>& samples_s, std::size_t rounds_so_far) const;
  // How many further ones so many cells have together, so that a sweep takes a quarter longer at most.
  std::size_t further_rounds(std::size_t cells) const { return (cells * rounds() + 3) / 4; }

 private:
  const SweepOptions& options_;
  double begin_s_;
};

}  // namespace attn
