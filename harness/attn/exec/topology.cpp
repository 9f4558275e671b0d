#include "attn/exec/topology.hpp"

#include <hwloc.h>

#include <algorithm>
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

Topology read() {
  const Handle handle = load();
  Topology t;
  if (!handle) return t;
  const auto count = [&](hwloc_obj_type_t type) { return std::max(0, hwloc_get_nbobjs_by_type(handle.get(), type)); };
  t.packages = count(HWLOC_OBJ_PACKAGE);
  t.cores = count(HWLOC_OBJ_CORE);
  t.processors = count(HWLOC_OBJ_PU);
  t.numa_nodes = count(HWLOC_OBJ_NUMANODE);
  int level = 0;
  for (const auto type : {HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE, HWLOC_OBJ_L3CACHE}) {
    ++level;
    if (const hwloc_obj_t cache = hwloc_get_obj_by_type(handle.get(), type, 0)) {
      t.caches.push_back({level, static_cast<index_t>(cache->attr->cache.size), hwloc_bitmap_weight(cache->cpuset)});
    }
  }
  return t;
}

}  // namespace

const Topology& topology() {
  static const Topology t = read();
  return t;
}

index_t last_level_cache_bytes() { return topology().caches.empty() ? index_t{32} << 20 : topology().caches.back().bytes; }

std::vector<int> cores_spread_first() {
  const std::vector<int>& allowed = allowed_processors();
  const Handle handle = load();
  std::vector<int> order;
  if (!handle) return order;
  bool found = true;
  for (unsigned sibling = 0; found; ++sibling) {
    found = false;
    for (hwloc_obj_t core = nullptr; (core = hwloc_get_next_obj_by_type(handle.get(), HWLOC_OBJ_CORE, core)) != nullptr;) {
      int processor = hwloc_bitmap_first(core->cpuset);
      for (unsigned skip = 0; skip < sibling && processor >= 0; ++skip) processor = hwloc_bitmap_next(core->cpuset, processor);
      found = found || processor >= 0;
      if (processor >= 0 && std::binary_search(allowed.begin(), allowed.end(), processor)) order.push_back(processor);
    }
  }
  return order;
}

}  // namespace attn
