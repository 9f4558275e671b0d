#include "attn/measure/machine.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "attn/core/time.hpp"
#include "attn/exec/buffer.hpp"
#include "attn/exec/limits.hpp"
#include "attn/exec/topology.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "attn/kernels/machine/probes.hpp"

namespace attn {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Peak, isa, threads, fma_gflops, exp_gexps, read_gbs, triad_gbs, fma_gflops_median, read_bytes,
                                   read_bytes_gbs)

namespace {

constexpr int repeats = 7;

// Runs probe(worker) -> work on every thread of the arena at once; work per second, one entry a repeat, ascending.
template <class F>
std::vector<double> rates(const Arena& arena, F probe) {
  std::vector<double> work(static_cast<std::size_t>(arena.threads()));
  std::vector<double> list;
  for (int r = 0; r < repeats; ++r) {
    double seconds = 0;
    arena.execute([&] {
      const double begin_s = monotonic_s();
      parallel_tasks(arena.threads(), [&](index_t task, int) { work[static_cast<std::size_t>(task)] = probe(task); });
      seconds = monotonic_s() - begin_s;
    });
    list.push_back(std::accumulate(work.begin(), work.end(), 0.0) / seconds);
  }
  std::sort(list.begin(), list.end());
  return list;
}

// What the machine reaches at most: other work on it only takes away.
double best(const std::vector<double>& sorted) { return sorted.back(); }

// Iterations of the FMA probe that last about `seconds` on one thread.
index_t fma_iterations(double seconds) {
  index_t iterations = 100'000;
  const double begin_s = monotonic_s();
  kernels::probe_fma(iterations);
  const double took_s = std::max(1e-6, monotonic_s() - begin_s);
  return std::max<index_t>(1000, static_cast<index_t>(static_cast<double>(iterations) * seconds / took_s));
}

void measure_bandwidth(const Arena& arena, Peak& peak) {
  // Twice the last-level cache for each array where memory allows (virtual machines may report the host's whole cache).
  const auto& caches = topology().caches;
  const index_t last_level = caches.empty() ? index_t{32} << 20 : caches.back().bytes;
  const index_t array_bytes =
      std::clamp<index_t>(std::min(2 * last_level, available_memory_bytes() / 16), index_t{64} << 20, index_t{512} << 20);
  const auto count = static_cast<std::size_t>(array_bytes) / sizeof(float);
  const Buffer a(count * sizeof(float)), b(count * sizeof(float)), c(count * sizeof(float));
  const std::size_t share = count / static_cast<std::size_t>(arena.threads());
  const auto part = [&](const Buffer& buffer, index_t task) {
    return std::span<float>(buffer.as<float>() + static_cast<std::size_t>(task) * share, share);
  };
  arena.execute([&] {  // first touch by the thread that will read
    parallel_tasks(arena.threads(), [&](index_t task, int) {
      for (const Buffer* buffer : {&a, &b, &c}) std::fill_n(part(*buffer, task).data(), share, 1.0f);
    });
  });
  peak.triad_gbs =
      1e-9 * best(rates(arena, [&](index_t task) { return kernels::probe_triad(part(a, task), part(b, task), part(c, task)); }));
  for (const index_t bytes :
       {index_t{256} << 10, index_t{1} << 20, index_t{4} << 20, index_t{16} << 20, index_t{64} << 20, array_bytes}) {
    if (bytes > array_bytes || (!peak.read_bytes.empty() && static_cast<double>(bytes) <= peak.read_bytes.back())) continue;
    const std::size_t floats = static_cast<std::size_t>(bytes) / sizeof(float) / static_cast<std::size_t>(arena.threads());
    const index_t passes = std::max<index_t>(1, (index_t{64} << 20) / bytes);
    const auto read = [&](index_t task) {
      double total = 0;
      for (index_t pass = 0; pass < passes; ++pass) total += kernels::probe_read(part(b, task).first(floats));
      return total;
    };
    peak.read_bytes.push_back(static_cast<double>(bytes));
    peak.read_bytes_gbs.push_back(1e-9 * best(rates(arena, read)));
  }
  peak.read_gbs = peak.read_bytes_gbs.back();
}

}  // namespace

Peak measure_peak(const Arena& arena, bool bandwidth) {
  Peak peak{.isa = kernels::active_isa(), .threads = arena.threads()};
  const index_t iterations = fma_iterations(0.03);
  const auto fma = rates(arena, [&](index_t) { return kernels::probe_fma(iterations); });
  peak.fma_gflops = 1e-9 * best(fma);
  peak.fma_gflops_median = 1e-9 * fma[fma.size() / 2];
  constexpr std::size_t exp_floats = 4096;  // 16 KiB: stays in the first-level cache
  const index_t exp_repeats = std::max<index_t>(1, iterations / 10'000);
  std::vector<std::vector<float>> buffers(static_cast<std::size_t>(arena.threads()), std::vector<float>(exp_floats, -0.5f));
  peak.exp_gexps =
      1e-9 *
      best(rates(arena, [&](index_t task) { return kernels::probe_exp(buffers[static_cast<std::size_t>(task)], exp_repeats); }));
  if (bandwidth) measure_bandwidth(arena, peak);
  return peak;
}

double quick_fma_gflops(const Arena& arena) {
  const index_t iterations = fma_iterations(0.002);
  const auto list = rates(arena, [&](index_t) { return kernels::probe_fma(iterations); });
  return 1e-9 * list[list.size() / 2];  // not the best: over 2 ms a clock may leap where it cannot stay
}

std::string to_json(const Peak& peak) { return nlohmann::json(peak).dump(); }
Peak peak_from_json(const std::string& text) { return nlohmann::json::parse(text).get<Peak>(); }

double Peak::read_gbs_for(double bytes) const {
  if (read_bytes.empty()) return read_gbs;
  const auto at = std::lower_bound(read_bytes.begin(), read_bytes.end(), bytes);
  if (at == read_bytes.begin()) return read_bytes_gbs.front();
  if (at == read_bytes.end()) return read_bytes_gbs.back();
  const auto i = static_cast<std::size_t>(at - read_bytes.begin());
  const double share = (std::log(bytes) - std::log(read_bytes[i - 1])) / (std::log(read_bytes[i]) - std::log(read_bytes[i - 1]));
  return read_bytes_gbs[i - 1] + share * (read_bytes_gbs[i] - read_bytes_gbs[i - 1]);
}

Roof roof(const Cost& cost, const Peak& peak) {
  const double flops_s = peak.fma_gflops > 0 ? cost.flops / (1e9 * peak.fma_gflops) : 0;
  const double bytes_s = peak.read_gbs > 0 ? cost.bytes / (1e9 * peak.read_gbs_for(cost.bytes)) : 0;
  const double exps_s = peak.exp_gexps > 0 ? cost.exps / (1e9 * peak.exp_gexps) : 0;
  Roof roof{flops_s, "flops"};
  if (bytes_s > roof.seconds) roof = {bytes_s, "bytes"};
  if (exps_s > roof.seconds) roof = {exps_s, "exps"};
  return roof;
}

}  // namespace attn
