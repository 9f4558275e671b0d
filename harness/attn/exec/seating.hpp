// Who sits where: the processor that each worker of an arena stays on, and the NUMA node where a head's tensors lie and its tasks are done.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"
#include "attn/exec/arena.hpp"
#include "attn/exec/topology.hpp"

namespace attn {

// A pure function of what a machine is made of, what of it is allowed, and the number of threads.
class Seating {
 public:
  static constexpr std::size_t most_nodes = 64;  // a machine of more is taken for one node

  Seating() = default;  // of an unknown machine: one node

  // Worker after worker takes the processor that fewest sit on; of these a core's first allowed thread before its second, a faster
  // core before a slower one, then the package, the node and the last-level cache with the fewest workers, then the one that `machine` names
  // first. The workers of a node are then numbered one behind the other.
  static Seating of(const std::vector<Processor>& machine, const std::vector<int>& allowed, int threads);

  std::span<const Processor> seats() const { return seats_; }  // of worker 0, 1, ...; empty: unknown
  std::span<const int> nodes() const { return nodes_; }        // that have workers, by their number on the machine
  std::size_t node_of(int worker) const { return seats_.empty() ? 0 : node_of_[static_cast<std::size_t>(worker) % seats_.size()]; }

  // Items in a row - heads, tasks, bytes - are shared among the nodes as their workers are: the first of the node at this place in nodes().
  index_t begin(std::size_t place, index_t items) const;

 private:
  std::vector<Processor> seats_;
  std::vector<int> nodes_;
  std::vector<std::size_t> node_of_;  // place in nodes_ of each seat
  std::vector<index_t> before_{0};    // workers of the nodes before each place, and all
};

// Of what this process may use of this machine. Without seats where the system does not tell: then nothing can be pinned.
Seating seating(int threads);

// Where the pages of arrays lie on a machine of several NUMA nodes, and who takes which tasks.
//   local: each node has the pages of its heads, and its workers take their tasks before they help the others
//   interleave: page after page on the nodes in turn; any worker takes any task
//   first: where whoever writes them first runs; any worker takes any task
enum class Numa { local, interleave, first };
std::string_view to_string(Numa numa);
Result<Numa> parse_numa(std::string_view name);

// Says of memory that has not been written: these nodes shall have it, page by page in turn where they are several.
using MemoryBinder = std::function<void(std::byte* begin, std::size_t bytes, std::span<const int> nodes)>;

// On the thread that made it, while it lives: Buffers and tasks are spread so over the nodes of these seats. What is on the heap, such as
// parameters, lies on all nodes in turn, but with Numa::first. Of one node, it does nothing.
class OnNodes {
 public:
  OnNodes(Seating seating, Numa numa);
  OnNodes(Seating seating, Numa numa, MemoryBinder binder);  // which has the last word: the heap stays as it is
  ~OnNodes();
  OnNodes(const OnNodes&) = delete;
  OnNodes& operator=(const OnNodes&) = delete;

  // Of memory that holds a row of heads, workers or the like and has not been written yet. Does nothing where there is no OnNodes.
  static void lay(std::byte* begin, std::size_t bytes);

  const Seating& seating() const { return seating_; }

 private:
  void spread(std::byte* begin, std::size_t bytes) const;

  Seating seating_;
  Numa numa_;
  MemoryBinder binder_;
  bool spreads_heap_ = false;
  const OnNodes* memory_before_;
  const Seating* tasks_before_;
};

// The stretches of tasks 0, 1, ... that parallel_tasks hands out each in its order: all of them, or those of each node (Numa::local).
void for_each_share(index_t count, FunctionRef<void(index_t begin, index_t end)> share);

}  // namespace attn
