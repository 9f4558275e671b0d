#include "attn/measure/machine.hpp"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "attn/core/time.hpp"
#include "attn/exec/buffer.hpp"
#include "attn/exec/limits.hpp"
#include "attn/exec/topology.hpp"
#include "attn/kernels/machine/dot_peak.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "attn/kernels/machine/probes.hpp"

namespace attn {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(BandwidthCurve, bytes, gbs)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Peak, isa, threads, fma_gflops, exp_gexps, triad_gbs, fma_gflops_median, bf16_dot_gflops, read,
                                   update)

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

double measure_triad(const Arena& arena) {
  // Twice the last-level cache for each array where memory allows (virtual machines may report the host's whole cache).
  const index_t array_bytes = std::clamp<index_t>(std::min(2 * last_level_cache_bytes(), available_memory_bytes() / 16),
                                                  index_t{64} << 20, index_t{512} << 20);
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
  return 1e-9 * best(rates(arena, [&](index_t task) { return kernels::probe_triad(part(a, task), part(b, task), part(c, task)); }));
}

}  // namespace

Peak measure_peak(const Arena& arena, bool bandwidth) {
  Peak peak{.isa = kernels::active_isa(), .threads = arena.threads()};
  const index_t iterations = fma_iterations(0.03);
  const auto fma = rates(arena, [&](index_t) { return kernels::probe_fma(iterations); });
  peak.fma_gflops = 1e-9 * best(fma);
  peak.fma_gflops_median = 1e-9 * fma[fma.size() / 2];
  if (kernels::has_bf16_dot())  // an iteration has 16 instructions for 12
    peak.bf16_dot_gflops = 1e-9 * best(rates(arena, [&](index_t) { return kernels::probe_bf16_dot(iterations / 2); }));
  constexpr std::size_t exp_floats = 4096;  // 16 KiB: stays in the first-level cache
  const index_t exp_repeats = std::max<index_t>(1, iterations / 10'000);
  std::vector<std::vector<float>> buffers(static_cast<std::size_t>(arena.threads()), std::vector<float>(exp_floats, -0.5f));
  peak.exp_gexps =
      1e-9 *
      best(rates(arena, [&](index_t task) { return kernels::probe_exp(buffers[static_cast<std::size_t>(task)], exp_repeats); }));
  if (!bandwidth) return peak;
  peak.triad_gbs = measure_triad(arena);
  peak.read = measure_read_bandwidth(arena);
  peak.update = measure_update_bandwidth(arena);
  return peak;
}

double quick_fma_gflops(const Arena& arena) {
  const index_t iterations = fma_iterations(0.002);
  const auto list = rates(arena, [&](index_t) { return kernels::probe_fma(iterations); });
  return 1e-9 * list[list.size() / 2];  // not the best: over 2 ms a clock may leap where it cannot stay
}

std::string to_json(const Peak& peak) { return nlohmann::json(peak).dump(); }
Peak peak_from_json(const std::string& text) { return nlohmann::json::parse(text).get<Peak>(); }

double peak_gflops(const Peak& peak, kernels::Compute compute) {
  return compute == kernels::Compute::bf16_dot ? peak.bf16_dot_gflops : peak.fma_gflops;
}

Roof roof(const Cost& cost, const Peak& peak, Manner manner) {
  const double in_place = std::min(manner.in_place, cost.bytes);
  const double footprint = manner.cold ? std::numeric_limits<double>::infinity() : cost.bytes - in_place / 2;
  const auto seconds_of = [&](double bytes, const BandwidthCurve& curve) {
    const double gbs = curve.at(footprint);
    return gbs > 0 ? bytes / (1e9 * gbs) : 0;
  };
  const double gflops = peak_gflops(peak, manner.compute);
  const double flops_s = gflops > 0 ? cost.flops / (1e9 * gflops) : 0;
  const double bytes_s = seconds_of(in_place, peak.update) + seconds_of(cost.bytes - in_place, peak.read);
  const double exps_s = peak.exp_gexps > 0 ? cost.exps / (1e9 * peak.exp_gexps) : 0;
  Roof roof{flops_s, "flops"};
  if (bytes_s > roof.seconds) roof = {bytes_s, "bytes"};
  if (exps_s > roof.seconds) roof = {exps_s, "exps"};
  return roof;
}

}  // namespace attn
