// How the ranks of a cell are started.
#pragma once

#include <string>
#include <vector>

#include "attn/cell/cell.hpp"
#include "attn/core/result.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// The command whose processes are the cell's ranks, each a worker by these arguments. `launcher`: words before "-np RANKS"; empty: Open
// MPI's mpirun, on this machine. Refused where the cell's implementation computes in one process, or nothing here starts ranks.
Result<std::vector<std::string>> rank_command(const Cell& cell, const std::string& launcher, bool pin,
                                              const std::vector<std::string>& worker_arguments);

// Whether a line of a launcher's stderr says what became of a rank: other lines are about the launcher.
bool tells_of_rank(std::string_view line);

}  // namespace attn
