// The sweep at work: block after block, in rounds, until every cell has its row.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "attn/cell/grid.hpp"
#include "attn/program/progress.hpp"
#include "attn/sweep/options.hpp"
#include "attn/sweep/outputs.hpp"
#include "attn/sweep/race.hpp"
#include "attn/sweep/schedule.hpp"
#include "attn/sweep/worker.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

class Measuring {
 public:
  // All of these must outlive this.
  Measuring(const SweepOptions& options, const Registry& registry, const Schedule& schedule, const Worker& worker, Outputs& outputs)
      : options_(options), registry_(registry), schedule_(schedule), worker_(worker), outputs_(outputs), goal_(goal_of(options)) {}

  // Refused where an output takes no more. An interruption ends it early.
  Status run(const std::vector<Block>& blocks);

 private:
  // A cell on its way through the rounds. One that fails in a round has no further ones.
  struct Course {
    Cell cell;
    std::string key;
    std::vector<Measurement> rounds;
    bool has_row;
    double round_s;            // as foreseen
    std::string out_of_reach;  // of a race: why no budget reaches its goal; empty: one does

    bool failed() const { return !rounds.empty() && rounds.back().outcome != Outcome::ok; }
  };

  Course course_of(const Cell& cell);
  Status measure_block(const Block& block, std::size_t number);
  // Each variant with the smallest budget that reaches the goal. Its rounds follow each other, and its row is written at once: a search
  // may take minutes, and what was found must not wait for the others'.
  Status race_block(const Block& block);
  void search(Course& course);
  Status advance(Course& course, std::size_t round);
  bool ended(const Course& course) const;
  Status measure_round(Course& course, std::size_t round);
  Measurement measured(const Course& course, std::size_t round) const;
  Row row_of(const Course& course) const;
  void skip(const Course& course, std::size_t rounds);

  const SweepOptions& options_;
  const Registry& registry_;
  const Schedule& schedule_;
  const Worker& worker_;
  Outputs& outputs_;
  std::optional<Goal> goal_;
  std::optional<Progress> progress_;
  std::size_t further_rounds_ = 0;  // of the block, that are left
};

}  // namespace attn
