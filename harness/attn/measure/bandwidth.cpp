#include "attn/measure/bandwidth.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>

#include "attn/core/assert.hpp"
#include "attn/core/rng.hpp"
#include "attn/core/time.hpp"
#include "attn/exec/buffer.hpp"
#include "attn/exec/limits.hpp"
#include "attn/exec/topology.hpp"
#include "attn/kernels/machine/probes.hpp"

namespace attn {

namespace {

using Pass = FunctionRef<double(std::span<float> share, int way)>;

constexpr int repeats = 3;

// So much is gone through for a figure, at least: 0.1 ms where 100 GB/s are reached, 100 times what starting threads takes.
constexpr index_t least_bytes = index_t{8} << 20;

// Half of a first cache for each thread; then twice and three times the powers of two, in DRAM only twice: up to four times the
// last cache where memory allows.
std::vector<index_t> footprints(int threads) {
  const index_t last_level = last_level_cache_bytes();
  const index_t most =
      std::clamp<index_t>(std::min(4 * last_level, available_memory_bytes() / 8), index_t{64} << 20, index_t{1} << 30);
  std::vector<index_t> list;
  for (index_t bytes = threads * (index_t{16} << 10); bytes <= most; bytes *= 2) {
    list.push_back(bytes);
    if (bytes < last_level && bytes / 2 * 3 <= most) list.push_back(bytes / 2 * 3);
  }
  return list;
}

// `pass` goes over a thread's share in one of several ways and returns the bytes that it moved.
BandwidthCurve measure(const Arena& arena, int ways, Pass pass) {
  const int threads = arena.threads();
  const std::vector<index_t> list = footprints(threads);
  const std::size_t room = static_cast<std::size_t>(list.back() / threads);
  const Buffer buffer(room * static_cast<std::size_t>(threads));
  const auto share = [&](index_t thread, index_t bytes) {
    float* begin = buffer.as<float>() + static_cast<std::size_t>(thread) * room / sizeof(float);
    return std::span<float>(begin, static_cast<std::size_t>(bytes / threads) / sizeof(float));
  };
  std::vector<double> bytes, gbs, moved(static_cast<std::size_t>(threads));
  arena.execute([&] {  // first touch by the thread that will read
    parallel_tasks(threads, [&](index_t task, int) { std::ranges::fill(share(task, list.back()), 1.0f); });
    for (const index_t footprint : list) {
      const index_t passes = std::max<index_t>(1, least_bytes / footprint);
      double best = 0;
      for (int attempt = 0; attempt < repeats * ways; ++attempt) {
        const double begin_s = monotonic_s();
        parallel_tasks(threads, [&](index_t task, int) {
          double& own = moved[static_cast<std::size_t>(task)] = 0;
          for (index_t i = 0; i < passes; ++i) own += pass(share(task, footprint), attempt % ways);
        });
        best = std::max(best, std::accumulate(moved.begin(), moved.end(), 0.0) / (monotonic_s() - begin_s));
      }
      bytes.push_back(static_cast<double>(footprint));
      gbs.push_back(1e-9 * best);
    }
  });
  return bandwidth_curve(std::move(bytes), std::move(gbs));
}

}  // namespace

double BandwidthCurve::at(double footprint) const {
  if (bytes.empty()) return 0;
  const auto above = std::lower_bound(bytes.begin(), bytes.end(), footprint);
  if (above == bytes.begin()) return gbs.front();
  if (above == bytes.end()) return gbs.back();
  const auto i = static_cast<std::size_t>(above - bytes.begin());
  const double share = std::log(footprint / bytes[i - 1]) / std::log(bytes[i] / bytes[i - 1]);
  return gbs[i - 1] + share * (gbs[i] - gbs[i - 1]);
}

BandwidthCurve bandwidth_curve(std::vector<double> bytes, std::vector<double> gbs) {
  ATTN_ASSERT(bytes.size() == gbs.size() && std::is_sorted(bytes.begin(), bytes.end()));
  for (std::size_t i = gbs.size(); i-- > 1;) gbs[i - 1] = std::max(gbs[i - 1], gbs[i]);
  return {std::move(bytes), std::move(gbs)};
}

BandwidthCurve measure_read_bandwidth(const Arena& arena) {
  return measure(arena, 3, [](std::span<float> share, int way) { return kernels::probe_read(share, 2048 * way); });
}

BandwidthCurve measure_update_bandwidth(const Arena& arena) {
  return measure(arena, 1, [](std::span<float> share, int) { return kernels::probe_update(share); });
}

BandwidthCurve measure_gather_bandwidth(const Arena& arena) {
  const int threads = arena.threads();
  constexpr index_t row_bytes = kernels::gathered_floats * static_cast<index_t>(sizeof(float)), names = index_t{1} << 16;
  const index_t most = std::clamp<index_t>(std::min(4 * last_level_cache_bytes(), available_memory_bytes() / 8), index_t{64} << 20,
                                           index_t{1} << 28);
  const Buffer table(static_cast<std::size_t>(most));
  std::vector<std::vector<std::int32_t>> rows(static_cast<std::size_t>(threads),
                                              std::vector<std::int32_t>(static_cast<std::size_t>(names)));
  std::vector<double> bytes, gbs, moved(static_cast<std::size_t>(threads));
  arena.execute([&] {
    const index_t share = most / static_cast<index_t>(sizeof(float)) / threads;
    parallel_tasks(threads, [&](index_t task, int) { std::fill_n(table.as<float>() + task * share, share, 1.0f); });
    for (index_t footprint = threads * (index_t{16} << 10); footprint <= most; footprint *= 2) {
      double best = 0;
      for (int attempt = 0; attempt < repeats * 3;
           ++attempt) {  // other rows in each: none is in a cache for having been read before
        parallel_tasks(threads, [&](index_t task, int) {
          const Rng rng = Rng(static_cast<std::uint64_t>(attempt), "gather").substream(static_cast<std::uint64_t>(task));
          std::vector<std::int32_t>& own = rows[static_cast<std::size_t>(task)];
          for (index_t i = 0; i < names; ++i)
            own[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(rng.below(i, footprint / row_bytes));
        });
        const double begin_s = monotonic_s();
        parallel_tasks(threads, [&](index_t task, int) {
          const auto own = static_cast<std::size_t>(task);
          moved[own] = kernels::probe_gather({table.as<float>(), static_cast<std::size_t>(footprint) / sizeof(float)}, rows[own],
                                             16 * (attempt % 3));
        });
        best = std::max(best, std::accumulate(moved.begin(), moved.end(), 0.0) / (monotonic_s() - begin_s));
      }
      bytes.push_back(static_cast<double>(footprint));
      gbs.push_back(1e-9 * best);
    }
  });
  return bandwidth_curve(std::move(bytes), std::move(gbs));
}

}  // namespace attn
