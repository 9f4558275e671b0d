#include "attn/sweep/schedule.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <numeric>
#include <utility>

#include "attn/cell/axes.hpp"
#include "attn/core/rng.hpp"
#include "attn/core/time.hpp"
#include "attn/record/statistics.hpp"

namespace attn {

namespace {

// A name that no other cell has, in --save-output's folder.
std::string output_file(const std::string& folder, const Cell& cell) {
  if (folder.empty()) return "";
  const std::string name =
      fmt::format("{}-{:016x}.npy", VariantName::parse(cell.variant).value().label(), hash_name(cell_key(cell)));
  return (std::filesystem::path(folder) / name).string();
}

}  // namespace

Schedule::Schedule(const SweepOptions& options) : options_(options), begin_s_(monotonic_s()) {}

std::vector<std::size_t> Schedule::order(const Block& block, std::size_t number, std::size_t round) const {
  std::vector<std::size_t> order(block.cells.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const Rng rng(hash_name(options_.order_seed), number * 1000 + round);
  for (std::size_t i = order.size(); i > 1; --i) {
    std::swap(order[i - 1], order[static_cast<std::size_t>(rng.below(static_cast<index_t>(i), static_cast<index_t>(i)))]);
  }
  return order;
}

Settings Schedule::settings(const Cell& cell, std::size_t round) const {
  const bool first = round == 0;
  Settings settings;
  settings.samples = static_cast<int>(options_.samples / options_.rounds +
                                      (static_cast<index_t>(round) < options_.samples % options_.rounds ? 1 : 0));
  settings.clock = settings.samples > 0;
  settings.sample_min_s = options_.sample_time_s;
  settings.gate = first;
  settings.fidelity = first ? comparison_from(options_.fidelity) : Comparison::none;
  settings.fidelity_seeds = static_cast<int>(options_.fidelity_seeds);
  settings.pin = options_.pin;
  settings.machine_root = options_.machine_root;
  settings.against = options_.against;
  if (first) settings.output_file = output_file(options_.save_output, cell);
  return settings;
}

bool Schedule::wants_more(const std::vector<double>& samples_s, std::size_t rounds_so_far) const {
  constexpr std::size_t most = 3;  // times the rounds that every cell has
  if (options_.steady_percent <= 0 || samples_s.empty() || rounds_so_far >= most * rounds() || budget_is_used_up()) return false;
  const Interval interval = median_interval(samples_s);
  return (interval.high - interval.low) / median(samples_s) > options_.steady_percent / 100;
}

bool Schedule::budget_is_used_up() const { return options_.budget_s > 0 && monotonic_s() - begin_s_ > options_.budget_s; }

}  // namespace attn
