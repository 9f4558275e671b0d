#include "attn/sweep/launch.hpp"

#include <unistd.h>

#include <filesystem>

#include "attn/core/text.hpp"
#include "attn/exec/limits.hpp"
#include "attn/ranks/crew.hpp"

namespace attn {

namespace {

namespace fs = std::filesystem;

// Ranks of this machine talk through its memory. Where there is a core for each thread a rank is bound to its own; where there is not, who
// waits must yield, which --oversubscribe sees to.
std::vector<std::string> open_mpi_here(const Cell& cell, bool pin) {
  std::vector<std::string> words = {"mpirun", "--mca", "plm", "isolated", "--mca", "btl", "self,vader"};
  if (::geteuid() == 0) words.emplace_back("--allow-run-as-root");
  const bool fits = cell.ranks * cell.threads <= usable_cores();
  if (fits && pin)
    words.insert(words.end(), {"--map-by", "slot:PE=" + std::to_string(cell.threads), "--bind-to", "core"});
  else
    words.insert(words.end(), {"--oversubscribe", "--bind-to", "none"});
  return words;
}

}  // namespace

Result<std::vector<std::string>> rank_command(const Cell& cell, const std::string& launcher, bool pin,
                                              const std::vector<std::string>& worker_arguments) {
  const VariantName name = VariantName::parse(cell.variant).value();
  if (!computes_over_ranks(name.implementation))
    return refuse(name.label() + " computes in one process: takes --ranks 1 (given: " + std::to_string(cell.ranks) +
                  "); implementations over ranks are named in --list");
  std::error_code none;
  const fs::path program = fs::read_symlink("/proc/self/exe", none).parent_path() / "attn_rank";
  if (!fs::exists(program, none))
    return refuse("--ranks " + std::to_string(cell.ranks) +
                  ": there is no program attn_rank beside this one; it is built where MPI is found");
  std::vector<std::string> command;
  if (launcher.empty()) {
    command = open_mpi_here(cell, pin);
  } else {
    for (const auto word : split(launcher, ' '))
      if (!word.empty()) command.emplace_back(word);
  }
  command.insert(command.end(), {"-np", std::to_string(cell.ranks), program.string()});
  command.insert(command.end(), worker_arguments.begin(), worker_arguments.end());
  return command;
}

bool tells_of_rank(std::string_view line) {
  return line.substr(0, 5) == "rank " || line.find("noticed that process rank") != std::string_view::npos;
}

}  // namespace attn
