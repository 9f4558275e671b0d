// What this machine is made of, as far as it can be read.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"

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

// A hardware thread, and what it is part of: all but its own number are counted over the machine.
struct Processor {
  int number = 0;  // the system's
  int package = 0;
  int node = 0;   // NUMA
  int cache = 0;  // of the last level
  int core = 0;
  int sibling = 0;  // hardware threads of the core before this one
  int slower = 0;   // kinds of cores on this machine that are faster
};

// Of this machine, core after core as they lie in it. Empty where topology() is all zero.
const std::vector<Processor>& processors();
// Of another one: by a synthetic description as hwloc's ("pack:2 [numa] l3:2 core:4 pu:2"), or by the path of an XML file of hwloc's.
Result<std::vector<Processor>> processors_of(const std::string& description);

// Says of pages that have not been written that they shall lie on these NUMA nodes, in turn where there are several. A wish: a node that is
// full, or has no memory, leaves them to another.
void bind_memory(std::byte* begin, std::size_t bytes, std::span<const int> nodes);
// The same of all that this thread writes first from here on; no nodes: where it runs.
void spread_heap(std::span<const int> nodes);

}  // namespace attn
