#include "attn/exec/seating.hpp"

#include <hwloc.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <thread>

#include "attn/exec/arena.hpp"
#include "attn/exec/workspace.hpp"
#include "catch.hpp"

using namespace attn;

namespace {

std::vector<Processor> machine(const std::string& description) {
  auto list = processors_of(description);
  INFO(description);
  REQUIRE(list);
  return *std::move(list);
}

std::vector<int> all_of(const std::vector<Processor>& machine) {
  std::vector<int> numbers;
  for (const Processor& p : machine) numbers.push_back(p.number);
  return numbers;
}

const std::string two_sockets = "pack:2 [numa] l3:2 l2:4 core:1 pu:2";   // 16 cores
const std::string snc4 = "pack:2 group:4 [numa] l3:1 l2:6 core:1 pu:2";  // 48 cores
const std::string nps4 = "pack:2 group:4 [numa] l3:3 l2:8 core:1 pu:2";  // 192 cores
const std::string desktop = "pack:1 [numa] l3:1 l2:4 core:1 pu:2";

// Workers on each package, node, cache, core and processor.
std::map<int, int> count(const Seating& seating, int Processor::*level) {
  std::map<int, int> workers;
  for (const Processor& seat : seating.seats()) ++workers[seat.*level];
  return workers;
}

// How far the fullest and the emptiest of these that the machine has are apart.
int spread(const Seating& seating, const std::vector<Processor>& of, int Processor::*level) {
  auto workers = count(seating, level);
  for (const Processor& p : of) workers.try_emplace(p.*level, 0);
  const auto [least, most] = std::ranges::minmax_element(workers, {}, &std::pair<const int, int>::second);
  return most->second - least->second;
}

int on_second_threads(const Seating& seating) {
  return static_cast<int>(std::ranges::count_if(seating.seats(), [](const Processor& p) { return p.sibling > 0; }));
}

// A machine whose first cores are fast with two hardware threads and whose others are slow with one, as an XML file.
struct HybridFile {
  HybridFile() {
    hwloc_topology_t t = nullptr;
    REQUIRE(hwloc_topology_init(&t) == 0);
    REQUIRE(hwloc_topology_set_synthetic(t, "pack:1 [numa] l3:1 core:12 pu:2") == 0);
    REQUIRE(hwloc_topology_load(t) == 0);
    const auto range = [](int begin, int end, int step) {
      std::unique_ptr<hwloc_bitmap_s, void (*)(hwloc_bitmap_t)> set(hwloc_bitmap_alloc(), hwloc_bitmap_free);
      for (int i = begin; i < end; i += step) hwloc_bitmap_set(set.get(), static_cast<unsigned>(i));
      return set;
    };
    auto kept = range(0, 8, 1);
    const auto slow = range(8, 24, 2);
    hwloc_bitmap_or(kept.get(), kept.get(), slow.get());
    REQUIRE(hwloc_topology_restrict(t, kept.get(), 0) == 0);
    REQUIRE(hwloc_cpukinds_register(t, slow.get(), 1, 0, nullptr, 0) == 0);
    REQUIRE(hwloc_cpukinds_register(t, range(0, 8, 1).get(), 2, 0, nullptr, 0) == 0);
    REQUIRE(hwloc_topology_export_xml(t, path.c_str(), 0) == 0);
    hwloc_topology_destroy(t);
  }
  ~HybridFile() { std::filesystem::remove(path); }
  const std::string path =
      (std::filesystem::temp_directory_path() / ("attn_hybrid_" + std::to_string(::getpid()) + ".xml")).string();
};

struct Bound {
  std::byte* begin;
  std::size_t bytes;
  std::vector<int> nodes;
};
MemoryBinder into(std::vector<Bound>& list) {
  return [&list](std::byte* begin, std::size_t bytes, std::span<const int> nodes) {
    list.push_back({begin, bytes, {nodes.begin(), nodes.end()}});
  };
}

}  // namespace

TEST_CASE("whatever the machine, workers are spread evenly over packages, nodes, caches and cores") {
  for (const std::string& description : {two_sockets, snc4, nps4, desktop, std::string("pack:1 core:4 pu:1")}) {
    const auto of = machine(description);
    const int cores = 1 + std::ranges::max(of, {}, &Processor::core).core, processors = static_cast<int>(of.size());
    for (int threads = 1; threads <= 2 * processors + 1; threads += threads < 20 ? 1 : 13) {
      INFO(description << ", " << threads << " threads");
      const Seating seating = Seating::of(of, all_of(of), threads);
      REQUIRE(std::ssize(seating.seats()) == threads);
      for (const auto level : {&Processor::package, &Processor::node, &Processor::cache, &Processor::core, &Processor::number})
        CHECK(spread(seating, of, level) <= 1);
      CHECK(on_second_threads(seating) == (threads <= processors ? std::max(0, threads - cores) : on_second_threads(seating)));
      CHECK(std::ranges::is_sorted(seating.seats(), {}, &Processor::node));
    }
  }
}

TEST_CASE("two sockets: half of the workers, and of the heads, on each") {
  const auto of = machine(two_sockets);
  const Seating seating = Seating::of(of, all_of(of), 8);
  REQUIRE(seating.nodes().size() == 2);
  for (int worker = 0; worker < 8; ++worker) CHECK(seating.node_of(worker) == static_cast<std::size_t>(worker / 4));
  CHECK(seating.begin(0, 8) == 0);
  CHECK(seating.begin(1, 8) == 4);
  CHECK(seating.begin(2, 8) == 8);
  CHECK(Seating::of(of, all_of(of), 1).nodes().size() == 1);
}

TEST_CASE("SNC4 and NPS4: a node for each of eight heads") {
  for (const std::string& description : {snc4, nps4}) {
    const auto of = machine(description);
    const Seating seating = Seating::of(of, all_of(of), 48);
    REQUIRE(seating.nodes().size() == 8);
    for (std::size_t place = 0; place <= 8; ++place) CHECK(seating.begin(place, 8) == static_cast<index_t>(place));
    CHECK(count(seating, &Processor::package) == std::map<int, int>{{0, 24}, {1, 24}});
    for (const auto& [node, workers] : count(seating, &Processor::node)) CHECK(workers == 6);
  }
}

TEST_CASE("nobody sits outside of the mask, and heads follow where the workers could go") {
  const auto of = machine(two_sockets);
  std::vector<int> mask;  // two cores of the first socket and all of the second, one of them without its first hardware thread
  for (const Processor& p : of) {
    if (p.package == 0 ? p.core < 2 : p.core != 9 || p.sibling == 1) mask.push_back(p.number);
  }
  for (int threads = 1; threads <= 24; ++threads) {
    const Seating seating = Seating::of(of, mask, threads);
    for (const Processor& seat : seating.seats()) CHECK(std::ranges::count(mask, seat.number) == 1);
  }
  const Seating ten = Seating::of(of, mask, 10);
  CHECK(count(ten, &Processor::core).size() == 10);
  CHECK(count(ten, &Processor::package) == std::map<int, int>{{0, 2}, {1, 8}});
  CHECK(ten.begin(1, 100) == 20);
  CHECK(Seating::of(of, {3}, 4).seats().size() == 4);
  CHECK(Seating::of(of, {}, 4).seats().empty());
}

TEST_CASE("hybrid cores, from a file: the fast ones first, then the slow ones, then second hardware threads") {
  const HybridFile file;
  const auto of = machine(file.path);
  REQUIRE(of.size() == 16);
  const auto slow_in = [&](int threads) {
    const Seating seating = Seating::of(of, all_of(of), threads);
    return std::ranges::count_if(seating.seats(), [](const Processor& p) { return p.slower > 0; });
  };
  CHECK(slow_in(4) == 0);
  CHECK(slow_in(7) == 3);
  CHECK(slow_in(12) == 8);
  CHECK(on_second_threads(Seating::of(of, all_of(of), 12)) == 0);
  CHECK(on_second_threads(Seating::of(of, all_of(of), 16)) == 4);
}

TEST_CASE("what describes no machine is refused with what was given") {
  const auto refused = processors_of("pack:0 core");
  REQUIRE_FALSE(refused);
  CHECK(refused.reason() == "'pack:0 core' is neither a synthetic topology nor an XML file of hwloc's");
}

TEST_CASE("shares begin behind each other, also of more bytes than a product of two numbers can hold") {
  const auto of = machine(nps4);
  const Seating seating = Seating::of(of, all_of(of), 190);
  for (const index_t items : {index_t{0}, index_t{1}, index_t{7}, index_t{1} << 61}) {
    CHECK(seating.begin(0, items) == 0);
    for (std::size_t place = 0; place < 8; ++place) CHECK(seating.begin(place, items) <= seating.begin(place + 1, items));
    CHECK(seating.begin(8, items) == items);
  }
}

TEST_CASE("a buffer's pages lie with the heads that they hold; interleaved, on all nodes; else wherever") {
  const auto of = machine(two_sockets);
  const Seating seating = Seating::of(of, all_of(of), 8);
  std::vector<Bound> bound;
  {
    const OnNodes nodes(seating, Numa::local, into(bound));
    const Buffer small(10 * 4096), large(std::size_t{64} << 20);
    REQUIRE(bound.size() == 4);
    CHECK((bound[0].begin == small.data() && bound[0].bytes == 5 * 4096 && bound[0].nodes == std::vector{0}));
    CHECK((bound[1].begin == small.data() + 5 * 4096 && bound[1].bytes == 5 * 4096 && bound[1].nodes == std::vector{1}));
    CHECK(bound[3].bytes == large.bytes() / 2);
    CHECK(bound[2].bytes + bound[3].bytes == large.bytes());
  }
  bound.clear();
  {
    const OnNodes nodes(seating, Numa::interleave, into(bound));
    const Buffer buffer(10 * 4096);
    REQUIRE(bound.size() == 1);
    CHECK((bound[0].bytes == buffer.bytes() && bound[0].nodes == std::vector{0, 1}));
  }
  bound.clear();
  const OnNodes first(seating, Numa::first, into(bound));
  const Buffer buffer(10 * 4096);
  const OnNodes one_node(Seating::of(machine(desktop), {0, 1, 2, 3}, 4), Numa::local, into(bound));
  const Buffer other(10 * 4096);
  CHECK(bound.empty());
}

TEST_CASE("scratch memory lies with its worker") {
  const auto of = machine(two_sockets);
  const Seating seating = Seating::of(of, all_of(of), 4);
  std::vector<Bound> bound;
  WorkspacePlan plan(4);
  const auto shared = plan.shared<float>(1 << 20);
  const auto own = plan.per_worker<float>(1 << 20);
  const OnNodes nodes(seating, Numa::local, into(bound));
  const Workspace workspace(plan);
  const auto node_of = [&](const void* at) {
    int node = -1;
    for (const Bound& b : bound) {  // the last word counts
      if (at >= b.begin && at < b.begin + b.bytes) node = b.nodes.front();
    }
    return node;
  };
  for (int worker = 0; worker < 4; ++worker) CHECK(node_of(&workspace.of(worker, own)[1 << 19]) == worker / 2);
  CHECK(node_of(&workspace.shared(shared)[0]) == 0);
  CHECK(node_of(&workspace.shared(shared).back()) == 1);
}

TEST_CASE("workers take the tasks of their own node before they help the other, and each task runs once") {
  const auto of = machine(two_sockets);
  const Seating seating = Seating::of(of, all_of(of), 4);
  constexpr index_t tasks = 1000;
  std::vector<std::atomic<int>> runs(tasks);
  std::vector<std::vector<index_t>> taken(4);
  const OnNodes nodes(seating, Numa::local, [](auto...) {});
  const Arena arena(4);
  arena.execute([&] {
    CHECK(arena_threads() == 4);
    parallel_tasks(tasks, [&](index_t task, int worker) {
      REQUIRE((worker >= 0 && worker < 4));
      ++runs[static_cast<std::size_t>(task)];
      taken[static_cast<std::size_t>(worker)].push_back(task);
      if (task % 50 == 0) std::this_thread::yield();
      parallel_tasks(3, [](index_t, int inner) { CHECK((inner >= 0 && inner < 4)); });
    });
  });
  for (const auto& count : runs) CHECK(count == 1);
  for (int worker = 0; worker < 4; ++worker) {
    const bool second = seating.node_of(worker) == 1;
    const auto helps = [&](index_t task) { return (task >= seating.begin(1, tasks)) != second; };
    CHECK(std::ranges::is_sorted(taken[static_cast<std::size_t>(worker)], {}, helps));
  }
  std::vector<std::pair<index_t, index_t>> shares;
  for_each_share(tasks, [&](index_t begin, index_t end) { shares.emplace_back(begin, end); });
  CHECK(shares == std::vector<std::pair<index_t, index_t>>{{0, 500}, {500, 1000}});
}

// The ledger: of each page of an array of heads the node that has it, against the node whose workers do that head's tasks first.
TEST_CASE("nine pages of ten are read where they lie") {
  for (const std::string& description : {two_sockets, snc4, nps4}) {
    for (const index_t heads : {2, 8, 12, 32}) {
      const auto of = machine(description);
      const Seating seating = Seating::of(of, all_of(of), 40);
      std::vector<Bound> bound;
      const OnNodes nodes(seating, Numa::local, into(bound));
      constexpr index_t head_bytes = 4096 * 64 * 4, tiles = 43, page = 4096;
      const Buffer buffer(static_cast<std::size_t>(heads * head_bytes));
      index_t near = 0;
      for (index_t at = 0; at < heads * head_bytes; at += page) {
        const std::byte* const address = buffer.data() + at;
        const auto lies =
            std::ranges::find_if(bound, [&](const Bound& b) { return address >= b.begin && address < b.begin + b.bytes; });
        REQUIRE(lies != bound.end());
        const index_t task = at / head_bytes * tiles + at % head_bytes * tiles / head_bytes;  // of this head and these rows
        std::size_t place = 0;
        while (seating.begin(place + 1, heads * tiles) <= task) ++place;
        near += seating.nodes()[place] == lies->nodes.front();
      }
      INFO(description << ", " << heads << " heads");
      CHECK(static_cast<double>(near * page) >= 0.9 * static_cast<double>(heads * head_bytes));
    }
  }
}

TEST_CASE("ways to spread memory have names, and others are refused") {
  for (const Numa numa : {Numa::local, Numa::interleave, Numa::first}) CHECK(*parse_numa(to_string(numa)) == numa);
  CHECK(parse_numa("near").reason() == "'near' is no way to spread memory over NUMA nodes; accepted: local, interleave, first");
}
