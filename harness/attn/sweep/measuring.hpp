// The sweep at work: block after block, in rounds, until every cell has its row.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "attn/cell/grid.hpp"
#include "attn/program/progress.hpp"
#include "attn/sweep/options.hpp"
#include "attn/sweep/outputs.hpp"
#include "attn/sweep/schedule.hpp"
#include "attn/sweep/worker.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

class Measuring {
 public:
  // All of these must outlive this. `out_of_reach` says of cells, by their keys, why they cannot be measured.
  Measuring(const SweepOptions& options, const Registry& registry, const Schedule& schedule, const Worker& worker,
            const std::map<std::string, std::string>& out_of_reach, Outputs& outputs)
      : options_(options),
        registry_(registry),
        schedule_(schedule),
        worker_(worker),
        out_of_reach_(out_of_reach),
        outputs_(outputs) {}

  // Refused where an output takes no more. An interruption ends it early.
  Status run(const std::vector<Block>& blocks);

 private:
  // A cell on its way through the rounds. One that fails in a round has no further ones.
  struct Course {
    const Cell& cell;
    std::string key;
    std::vector<Measurement> rounds;
    bool has_row;

    bool ended(std::size_t all) const;
  };

  Status measure_block(const Block& block, std::size_t number);
  Status measure_round(Course& course, std::size_t round);
  Measurement measured(const Course& course, std::size_t round) const;
  Row row_of(const Course& course) const;
  void skip(std::size_t rounds);

  const SweepOptions& options_;
  const Registry& registry_;
  const Schedule& schedule_;
  const Worker& worker_;
  const std::map<std::string, std::string>& out_of_reach_;
  Outputs& outputs_;
  std::optional<Progress> progress_;
};

}  // namespace attn
