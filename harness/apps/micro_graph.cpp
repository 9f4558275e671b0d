// Attention along the edges of a graph of 100,000 nodes, 16 edges each. GB/s of the rows that the edges have it read, keys and values of every
// head; `of_gather`: the median over iterations of its rate over that of the gather probe on as many rows as a head's keys and values are,
// clocked just before and after it.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "attn/exec/arena.hpp"
#include "attn/inputs/input.hpp"
#include "attn/kernels/machine/probes.hpp"
#include "attn/variant/planned.hpp"
#include "attn/variant/registry.hpp"
#include "micro.hpp"

namespace attn {

namespace {

constexpr index_t nodes = 100'000, heads = 8, dim = kernels::gathered_floats, degree = 16;

// Bytes a second of rows that lie anywhere in `table`, of all threads together: the best of three distances of fetching. Other rows in
// each turn: none is in a cache for having been read before.
double gather_rate(int threads, std::span<const float> table, std::uint64_t turn) {
  constexpr index_t names = index_t{1} << 17;  // 32 MiB a thread
  std::vector<std::vector<std::int32_t>> rows(static_cast<std::size_t>(threads), std::vector<std::int32_t>(std::size_t{names}));
  std::vector<double> moved(rows.size());
  double best = 0;
  for (std::uint64_t way = 0; way < 3; ++way) {
    parallel_tasks(threads, [&](index_t task, int) {
      const Rng rng = Rng(3 * turn + way, "gather").substream(static_cast<std::uint64_t>(task));
      for (index_t i = 0; i < names; ++i)
        rows[static_cast<std::size_t>(task)][static_cast<std::size_t>(i)] =
            static_cast<std::int32_t>(rng.below(i, std::ssize(table) / kernels::gathered_floats));
    });
    const double start = now_s(threads);
    parallel_tasks(threads, [&](index_t task, int) {
      moved[static_cast<std::size_t>(task)] =
          kernels::probe_gather(table, rows[static_cast<std::size_t>(task)], static_cast<index_t>(16 * way));
    });
    best = std::max(best, std::accumulate(moved.begin(), moved.end(), 0.0) / (now_s(threads) - start));
  }
  return best;
}

void run_graph(benchmark::State& state, const Registry& registry, const std::string& name, const std::string& graph, int threads) {
  const Problem p{.heads = heads, .kv_heads = heads, .q_len = nodes, .kv_len = nodes, .head_dim = dim, .value_dim = dim};
  const auto variant = registry.configure(name).value();
  const auto input = parse_input(graph).value();
  const NamedTensors named = input->make_named(p, variant->inputs(p), 1).value();
  const index_t size = heads * nodes * dim;
  const Floats q = normals(size, 1), k = normals(size, 2), v = normals(size, 3), out(size);
  const auto view = [&](const Floats& x) { return View<const float, 4>(x.data(), {1, heads, nodes, dim}); };
  Arrays arrays{.q = view(q), .k = view(k), .v = view(v), .out = View<float, 4>(out.data(), {1, heads, nodes, dim})};
  arrays.more = named.arrays;
  Planned planned(*variant, p, threads);
  planned.equip(make_parameters(variant->parameters(p), 1));
  const View<const float, 4> lists = named.arrays["neighbours"].f32<4>();
  const std::span<const float> names(lists.data_handle(), static_cast<std::size_t>(lists.size()));
  const auto edges = static_cast<double>(std::ranges::count_if(names, [](float node) { return node >= 0; }));
  const double bytes = edges * static_cast<double>(heads * 2 * dim) * sizeof(float);
  const std::span<const float> table(k.data(),
                                     static_cast<std::size_t>(2 * nodes * dim));  // as many rows as a head's keys and values
  std::vector<double> fractions;
  Arena(threads).execute([&] {
    planned.run(arrays);
    std::uint64_t turn = 0;
    for (auto _ : state) {
      const double before = gather_rate(threads, table, turn++), start = now_s(threads);
      planned.run(arrays);
      const double seconds = now_s(threads) - start;
      fractions.push_back(bytes / seconds / (0.5 * (before + gather_rate(threads, table, turn++))));
      state.SetIterationTime(seconds);
    }
  });
  std::nth_element(fractions.begin(), fractions.begin() + static_cast<std::ptrdiff_t>(fractions.size() / 2), fractions.end());
  state.counters["of_gather"] = fractions[fractions.size() / 2];
  state.counters["GB/s"] = benchmark::Counter(1e-9 * bytes, benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace

void register_graph_cases() {
  static const Registry registry = [] {
    Registry all;
    register_builtin_variants(all);
    return all;
  }();
  for (const int threads : {1, 2}) {
    for (const char* variant : {"graph", "gatv2"}) {
      for (const char* graph : {"graph:regular", "graph:regular,order=rcm", "graph:smallworld", "graph:grid"}) {
        const std::string name = std::string(variant) + "/" + graph + "/threads=" + std::to_string(threads);
        benchmark::RegisterBenchmark(name.c_str(),
                                     [=](benchmark::State& state) { run_graph(state, registry, variant, graph, threads); })
            ->UseManualTime()
            ->Iterations(5)
            ->Unit(benchmark::kMillisecond);
      }
    }
  }
}

}  // namespace attn
