#include "attn/exec/topology.hpp"

#include <hwloc.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <vector>

#include "attn/exec/limits.hpp"

namespace attn {

namespace {

struct Free {
  void operator()(hwloc_topology_t t) const { hwloc_topology_destroy(t); }
};
using Handle = std::unique_ptr<hwloc_topology, Free>;

Handle load() {
  if (allowed_processors().empty()) return nullptr;
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return nullptr;
  Handle handle(raw);
  if (hwloc_topology_load(raw) != 0) return nullptr;
  return handle;
}

hwloc_topology_t this_machine() {
  static const Handle handle = load();
  return handle.get();
}

Topology read() {
  const hwloc_topology_t machine = this_machine();
  Topology t;
  if (machine == nullptr) return t;
  const auto count = [&](hwloc_obj_type_t type) { return std::max(0, hwloc_get_nbobjs_by_type(machine, type)); };
  t.packages = count(HWLOC_OBJ_PACKAGE);
  t.cores = count(HWLOC_OBJ_CORE);
  t.processors = count(HWLOC_OBJ_PU);
  t.numa_nodes = count(HWLOC_OBJ_NUMANODE);
  int level = 0;
  for (const auto type : {HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE, HWLOC_OBJ_L3CACHE}) {
    ++level;
    if (const hwloc_obj_t cache = hwloc_get_obj_by_type(machine, type, 0)) {
      t.caches.push_back({level, static_cast<index_t>(cache->attr->cache.size), hwloc_bitmap_weight(cache->cpuset)});
    }
  }
  return t;
}

// Which of the machine's things of this kind the processor is part of; `otherwise` where there is none.
int place(hwloc_topology_t machine, hwloc_obj_t processor, hwloc_obj_type_t type, int otherwise) {
  const hwloc_obj_t above = hwloc_get_ancestor_obj_by_type(machine, type, processor);
  return above == nullptr ? otherwise : static_cast<int>(above->logical_index);
}

int numa_node(hwloc_topology_t machine, hwloc_obj_t processor) {
  const int number = processor->nodeset == nullptr ? -1 : hwloc_bitmap_first(processor->nodeset);
  const hwloc_obj_t node = number < 0 ? nullptr : hwloc_get_numanode_obj_by_os_index(machine, static_cast<unsigned>(number));
  return node == nullptr ? 0 : static_cast<int>(node->logical_index);
}

std::vector<Processor> list(hwloc_topology_t machine) {
  std::vector<Processor> all;
  const int kinds = std::max(0, hwloc_cpukinds_get_nr(machine, 0));  // numbered from the slowest on
  for (hwloc_obj_t pu = nullptr; (pu = hwloc_get_next_obj_by_type(machine, HWLOC_OBJ_PU, pu)) != nullptr;) {
    Processor p{.number = static_cast<int>(pu->os_index)};
    p.package = place(machine, pu, HWLOC_OBJ_PACKAGE, 0);
    p.node = numa_node(machine, pu);
    const int second = place(machine, pu, HWLOC_OBJ_L2CACHE, p.package);
    p.cache =
        place(machine, pu, HWLOC_OBJ_L3CACHE, hwloc_get_nbobjs_by_type(machine, HWLOC_OBJ_L3CACHE) > 0 ? -1 - second : second);
    p.core = place(machine, pu, HWLOC_OBJ_CORE, static_cast<int>(pu->logical_index));
    p.sibling = static_cast<int>(std::ranges::count(all, p.core, &Processor::core));
    const int kind = kinds > 1 ? hwloc_cpukinds_get_by_cpuset(machine, pu->cpuset, 0) : -1;
    p.slower = kind < 0 ? 0 : kinds - 1 - kind;
    all.push_back(p);
  }
  return all;
}

struct FreeBitmap {
  void operator()(hwloc_bitmap_t b) const { hwloc_bitmap_free(b); }
};
using NodeSet = std::unique_ptr<hwloc_bitmap_s, FreeBitmap>;

NodeSet node_set(std::span<const int> nodes) {
  NodeSet set(hwloc_bitmap_alloc());
  for (const int node : nodes) {
    const hwloc_obj_t found = hwloc_get_obj_by_type(this_machine(), HWLOC_OBJ_NUMANODE, static_cast<unsigned>(node));
    if (found != nullptr) hwloc_bitmap_set(set.get(), found->os_index);
  }
  return set;
}

}  // namespace

const Topology& topology() {
  static const Topology t = read();
  return t;
}

index_t last_level_cache_bytes() { return topology().caches.empty() ? index_t{32} << 20 : topology().caches.back().bytes; }

const std::vector<Processor>& processors() {
  static const std::vector<Processor> all = this_machine() == nullptr ? std::vector<Processor>{} : list(this_machine());
  return all;
}

Result<std::vector<Processor>> processors_of(const std::string& description) {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return refuse("hwloc cannot begin a topology");
  const Handle handle(raw);
  const bool is_file = std::filesystem::exists(description);
  const int set =
      is_file ? hwloc_topology_set_xml(raw, description.c_str()) : hwloc_topology_set_synthetic(raw, description.c_str());
  if (set != 0 || hwloc_topology_load(raw) != 0)
    return refuse("'" + description + "' is neither a synthetic topology nor an XML file of hwloc's");
  return list(raw);
}

void bind_memory(std::byte* begin, std::size_t bytes, std::span<const int> nodes) {
  if (this_machine() == nullptr) return;
  const auto policy = nodes.size() > 1 ? HWLOC_MEMBIND_INTERLEAVE : HWLOC_MEMBIND_BIND;
  hwloc_set_area_membind(this_machine(), begin, bytes, node_set(nodes).get(), policy, HWLOC_MEMBIND_BYNODESET);
}

void spread_heap(std::span<const int> nodes) {
  if (this_machine() == nullptr) return;
  const NodeSet all(hwloc_bitmap_dup(hwloc_topology_get_topology_nodeset(this_machine())));
  const NodeSet set = nodes.empty() ? NodeSet(hwloc_bitmap_dup(all.get())) : node_set(nodes);
  hwloc_set_membind(this_machine(), set.get(), nodes.empty() ? HWLOC_MEMBIND_DEFAULT : HWLOC_MEMBIND_INTERLEAVE,
                    HWLOC_MEMBIND_THREAD | HWLOC_MEMBIND_BYNODESET);
}

}  // namespace attn
