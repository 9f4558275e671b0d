#include "attn/exec/seating.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "attn/exec/here.hpp"
#include "attn/exec/limits.hpp"

namespace attn {

namespace {

std::vector<Processor> taken_in_turn(const std::vector<Processor>& machine, const std::vector<int>& allowed, int threads) {
  std::vector<Processor> list;
  for (Processor p : machine) {
    if (std::ranges::count(allowed, p.number) == 0) continue;
    p.sibling = static_cast<int>(std::ranges::count(list, p.core, &Processor::core));  // of what is allowed
    list.push_back(p);
  }
  std::vector<Processor> seats;
  std::vector<int> on(list.size());  // workers of each
  std::map<int, int> packages, nodes, caches;
  while (!list.empty() && std::ssize(seats) < threads) {
    const auto wait = [&](std::size_t i) {
      const Processor& p = list[i];
      return std::tuple(on[i], p.sibling, p.slower, packages[p.package], nodes[p.node], caches[p.cache], i);
    };
    std::size_t next = 0;
    for (std::size_t i = 1; i < list.size(); ++i) next = wait(i) < wait(next) ? i : next;
    const Processor& p = list[next];
    ++on[next], ++packages[p.package], ++nodes[p.node], ++caches[p.cache];
    seats.push_back(p);
  }
  return seats;
}

constexpr std::array numa_names = {std::pair{Numa::local, "local"}, std::pair{Numa::interleave, "interleave"},
                                   std::pair{Numa::first, "first"}};

}  // namespace

Seating Seating::of(const std::vector<Processor>& machine, const std::vector<int>& allowed, int threads) {
  Seating seating;
  seating.seats_ = taken_in_turn(machine, allowed, threads);
  std::ranges::stable_sort(seating.seats_, {}, &Processor::node);
  for (const Processor& seat : seating.seats_) {
    if (seating.nodes_.empty() || seating.nodes_.back() != seat.node) {
      seating.nodes_.push_back(seat.node);
      seating.before_.push_back(seating.before_.back());
    }
    ++seating.before_.back();
    seating.node_of_.push_back(seating.nodes_.size() - 1);
  }
  return seating;
}

index_t Seating::begin(std::size_t place, index_t items) const {
  // items times workers may be beyond an index_t: bytes of a large array, thousands of threads.
  const index_t before = before_[place], all = before_.back();
  return all == 0 ? 0 : items / all * before + items % all * before / all;
}

Seating seating(int threads) { return Seating::of(processors(), allowed_processors(), threads); }

std::string_view to_string(Numa numa) {
  for (const auto& [value, name] : numa_names) {
    if (value == numa) return name;
  }
  return "";
}

Result<Numa> parse_numa(std::string_view name) {
  for (const auto& [value, candidate] : numa_names) {
    if (candidate == name) return value;
  }
  return refuse("'" + std::string(name) + "' is no way to spread memory over NUMA nodes; accepted: local, interleave, first");
}

OnNodes::OnNodes(Seating seating, Numa numa) : OnNodes(std::move(seating), numa, bind_memory) {
  spreads_heap_ = here.memory == this;
  if (spreads_heap_) spread_heap(seating_.nodes());
}

OnNodes::OnNodes(Seating seating, Numa numa, MemoryBinder binder)
    : seating_(std::move(seating)),
      numa_(numa),
      binder_(std::move(binder)),
      memory_before_(here.memory),
      tasks_before_(here.tasks) {
  const std::size_t nodes = seating_.nodes().size();
  const bool several = nodes > 1 && nodes <= Seating::most_nodes;
  here.memory = several && numa_ != Numa::first ? this : nullptr;
  here.tasks = several && numa_ == Numa::local ? &seating_ : nullptr;
}

OnNodes::~OnNodes() {
  if (spreads_heap_) spread_heap({});
  here.memory = memory_before_;
  here.tasks = tasks_before_;
}

void OnNodes::lay(std::byte* begin, std::size_t bytes) {
  if (here.memory != nullptr && bytes > 0) here.memory->spread(begin, bytes);
}

void OnNodes::spread(std::byte* begin, std::size_t bytes) const {
  constexpr std::size_t page = 4096;
  const auto address = reinterpret_cast<std::size_t>(begin);
  const std::size_t first = address / page * page, last = (address + bytes + page - 1) / page * page;
  const auto bind = [&](std::size_t from, std::size_t to, std::span<const int> nodes) {
    if (from < to) binder_(begin - (address - from), to - from, nodes);
  };
  const std::span<const int> nodes = seating_.nodes();
  if (numa_ == Numa::interleave) return bind(first, last, nodes);
  const auto share = [&](std::size_t place) {  // a page goes to whom most of it belongs
    if (place == 0) return first;
    if (place == nodes.size()) return last;
    const auto before = static_cast<std::size_t>(seating_.begin(place, static_cast<index_t>(bytes)));
    return (address + before + page / 2) / page * page;
  };
  for (std::size_t place = 0; place < nodes.size(); ++place) bind(share(place), share(place + 1), nodes.subspan(place, 1));
}

void for_each_share(index_t count, FunctionRef<void(index_t, index_t)> share) {
  if (here.tasks == nullptr) return share(0, count);
  for (std::size_t place = 0; place < here.tasks->nodes().size(); ++place)
    share(here.tasks->begin(place, count), here.tasks->begin(place + 1, count));
}

}  // namespace attn
