// Worker processes of the sweep: what they are asked, and what comes of it.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "attn/cell/grid.hpp"
#include "attn/cell/needs.hpp"
#include "attn/measure/machine.hpp"
#include "attn/program/worker.hpp"
#include "attn/sweep/options.hpp"

namespace attn {

Measurement failure(Outcome outcome, std::string reason);

// "3 GiB (inputs 1 GiB, workspace 2 GiB)"
std::string words(const Needs& needs);

// Each question is a process of its own.
class Worker {
 public:
  // `options` must outlive this.
  Worker(const SweepOptions& options, index_t memory_limit_bytes) : options_(options), memory_limit_bytes_(memory_limit_bytes) {}

  // The machine's peaks at every ISA and number of threads of these: measured, where none of `known` is of them.
  Status measure_peaks(const std::vector<Block>& blocks, const std::vector<Peak>& known);
  std::vector<Peak> peaks() const;
  Peak peak_of(const Cell& cell) const;  // all zero: not measured

  // What cells take of memory, in a process that plans them all.
  std::vector<Result<Needs>> needs_of(const std::vector<Cell>& cells) const;

  Measurement ask(const Cell& cell, const Settings& settings) const;
  // Asks again, once, what was disturbed; the second attempt stands.
  Measurement ask_in_quiet(const Cell& cell, const Settings& settings) const;

 private:
  std::vector<std::string> arguments(const std::string& kind) const;
  Measurement ask_and_watch(const Cell& cell, const Settings& settings) const;

  const SweepOptions& options_;
  index_t memory_limit_bytes_;
  std::map<std::pair<std::string, int>, Peak> peaks_;  // by ISA and threads; with --peaks those of before
};

// The same questions, answered.
std::vector<WorkerKind> sweep_kinds();

}  // namespace attn
