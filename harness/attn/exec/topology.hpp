// What this machine is made of, as far as it can be read.
#pragma once

#include <string>
#include <vector>

#include "attn/core/problem.hpp"

namespace attn {

struct Cache {
  int level = 0;
  index_t bytes = 0;
  int shared_by_cores = 0;  // logical processors
};

struct Topology {
  int packages = 0;
  int cores = 0;
  int processors = 0;  // logical
  int numa_nodes = 0;
  std::vector<Cache> caches;  // one entry a level: unified or data
};

// Of the largest cache, 32 MiB where the system tells of none. A virtual machine may tell its host's.
index_t last_level_cache_bytes();

// Read once with hwloc. All zero where the system refuses the affinity mask: hwloc 2.9 asks for it without end.
const Topology& topology();

// allowed_processors(), one of each core before any second hardware thread. Empty: unknown, so that nothing can be pinned.
std::vector<int> cores_spread_first();

}  // namespace attn
