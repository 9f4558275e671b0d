// Micro-benchmarks of the kernels floor. Every case carries GFLOP/s of useful work and `of_peak`: the median over iterations of
// its rate over the FMA probe's, clocked just before and after it in the same process on the same instruction set; decoding carries
// GB/s and `of_read`, its rate over that of reading the same cache.
// With one thread the clock is the thread's CPU time, so that a busy machine disturbs less; with more it is the wall's.
// Google Benchmark's own options and its compare.py apply. ATTN_ISA=avx2 forces an instruction set.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <string_view>
#include <vector>

#include "attn/exec/arena.hpp"
#include "attn/kernels/dense/gemm.hpp"
#include "attn/kernels/dense/onednn.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "attn/kernels/machine/probes.hpp"
#include "attn/kernels/softmax/engine.hpp"
#include "micro.hpp"

using namespace attn;
using namespace attn::kernels;

namespace {

// FLOP/s of all threads together; about 0.1 ms.
double fma_rate(int threads) {
  parallel_tasks(threads, [&](index_t, int) { probe_fma(4000); });  // coming from other code, the first 5 us run at a third
  const double start = now_s(threads);
  std::vector<double> flops(static_cast<std::size_t>(threads));
  parallel_tasks(threads, [&](index_t task, int) { flops[static_cast<std::size_t>(task)] = probe_fma(40000); });
  return std::accumulate(flops.begin(), flops.end(), 0.0) / (now_s(threads) - start);
}

// Clocks `work`, which does `flops`, inside an arena of `threads`.
void clock_work(benchmark::State& state, int threads, double flops, const std::function<void()>& work) {
  std::vector<double> seconds_of, peaks;
  Arena(threads).execute([&] {
    work();
    fma_rate(threads);
    for (auto _ : state) {
      const double before = fma_rate(threads);
      const double start = now_s(threads);
      work();
      const double seconds = now_s(threads) - start;
      seconds_of.push_back(seconds);
      peaks.push_back(0.5 * (before + fma_rate(threads)));
      state.SetIterationTime(seconds);
    }
  });
  // Threads that wait for a core make the probe look slow: with several of them the best probe counts.
  const double best = *std::max_element(peaks.begin(), peaks.end());
  std::vector<double> fractions;
  for (std::size_t i = 0; i < peaks.size(); ++i) fractions.push_back(flops / seconds_of[i] / (threads > 1 ? best : peaks[i]));
  std::nth_element(fractions.begin(), fractions.begin() + static_cast<std::ptrdiff_t>(fractions.size() / 2), fractions.end());
  state.counters["of_peak"] = fractions[fractions.size() / 2];
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

// One pass of an engine over a schedule.
struct Pass {
  EngineOptions options;
  std::function<void(const QueryBlock&, KeyList&)> schedule;
  bool resume = false;
  std::vector<std::int32_t> rows = {};
};

struct EngineCase {
  const char* name;
  Problem problem;
  int threads;
  double pairs;  // that the pattern holds, in a head
  std::vector<Pass> passes;
};

void run_engine(benchmark::State& state, const EngineCase& c) {
  const Problem& p = c.problem;
  const Floats q = normals(p.batch * p.heads * p.q_len * p.head_dim, 1);
  const Floats k = normals(p.batch * p.kv_heads * p.kv_len * p.head_dim, 2);
  const Floats v = normals(p.batch * p.kv_heads * p.kv_len * p.value_dim, 3);
  const Floats out(p.batch * p.heads * p.q_len * p.value_dim), lse(p.batch * p.heads * p.q_len);
  WorkspacePlan plan(c.threads);
  std::vector<SoftmaxEngine> engines;
  for (const Pass& pass : c.passes) engines.emplace_back(p, pass.options, plan);
  const Workspace workspace(plan);
  clock_work(state, c.threads, 2.0 * c.pairs * static_cast<double>(p.batch * p.heads * (p.head_dim + p.value_dim)), [&] {
    for (std::size_t i = 0; i < engines.size(); ++i) {
      const Pass& pass = c.passes[i];
      const EngineArrays arrays(
          {q.data(), {p.batch, p.heads, p.q_len, p.head_dim}}, {k.data(), {p.batch, p.kv_heads, p.kv_len, p.head_dim}},
          {v.data(), {p.batch, p.kv_heads, p.kv_len, p.value_dim}}, {out.data(), {p.batch, p.heads, p.q_len, p.value_dim}},
          {engines.size() > 1 ? lse.data() : nullptr, {p.batch, p.heads, p.q_len}}, pass.resume);
      if (pass.rows.empty())
        engines[i].run(arrays, workspace, pass.schedule);
      else
        engines[i].run(
            arrays, workspace, [&](index_t, index_t, index_t) { return std::span(pass.rows); }, pass.schedule);
    }
  });
}

// The gradients of one engine over all keys, after one run of it: the five products of the backward pass.
void run_backward(benchmark::State& state, const Problem& p, int threads) {
  const index_t count = p.batch * p.heads * p.q_len * p.head_dim;
  const Floats q = normals(count, 1), k = normals(count, 2), v = normals(count, 3), d_out = normals(count, 4);
  const Floats out(count), d_q(count), d_k(count), d_v(count);
  const auto in = [&](const Floats& x) { return View<const float, 4>(x.data(), {p.batch, p.heads, p.q_len, p.head_dim}); };
  const auto to = [&](const Floats& x) { return View<float, 4>(x.data(), {p.batch, p.heads, p.q_len, p.head_dim}); };
  WorkspacePlan plan(threads, attn::Pass::forward_backward);
  const SoftmaxEngine engine(p, {}, plan);
  const Workspace workspace(plan);
  const EngineArrays arrays{in(q), in(k), in(v), to(out)};
  Arena(threads).execute([&] { engine.run(arrays, workspace, all_keys); });
  const double flops = 10.0 * static_cast<double>(count) * static_cast<double>(p.kv_len);
  clock_work(state, threads, flops, [&] {
    engine.backward(arrays, {in(out), in(d_out), to(d_q), to(d_k), to(d_v)}, workspace, all_keys);
  });
}

Problem problem(index_t heads, index_t n, index_t d, bool causal = false) {
  return {.batch = 1, .heads = heads, .kv_heads = heads, .q_len = n, .kv_len = n, .head_dim = d, .value_dim = d, .causal = causal};
}

double count_pairs(index_t n, const std::function<index_t(index_t)>& keys_of) {
  double pairs = 0;
  for (index_t i = 0; i < n; ++i) pairs += static_cast<double>(keys_of(i));
  return pairs;
}

index_t window(index_t n, index_t i, index_t left, index_t right) {
  return std::min(n - 1, i + right) - std::max<index_t>(0, i - left) + 1;
}

EngineCase full(const char* name, index_t heads, index_t n, index_t d, bool causal, int threads) {
  const double pairs = count_pairs(n, [&](index_t i) { return causal ? i + 1 : n; });
  return {name, problem(heads, n, d, causal), threads, pairs, {{{}, all_keys}}};
}

EngineCase local(index_t n, index_t reach, int threads) {
  return {"local/left=128,right=128/D=64/N=8192",
          problem(2, n, 64),
          threads,
          count_pairs(n, [&](index_t i) { return window(n, i, reach, reach); }),
          {{{.keys_per_query = 2 * reach + 1}, [=](const QueryBlock&, KeyList& keys) { keys.all().band(reach, reach); }}}};
}

EngineCase dilated(index_t n, index_t w, index_t s, int threads) {
  return {"dilated/w=64,s=4/D=64/N=8192",
          problem(2, n, 64),
          threads,
          count_pairs(n, [&](index_t i) { return std::min(w, i / s) + std::min(w, (n - 1 - i) / s) + 1; }),
          {{{.queries = QueryBlocks::classes(s), .keys_per_query = 2 * w + 1},
            [=](const QueryBlock& block, KeyList& keys) { keys.strided(block.first % s, s, n / s + 1).band(w * s, w * s); }}}};
}

EngineCase blockwise(index_t n, index_t b, int threads) {
  return {"blockwise/b=128,p=1,f=1/D=64/N=8192",
          problem(2, n, 64),
          threads,
          count_pairs(n, [&](index_t i) { return window(n / b, i / b, 1, 1) * b; }),
          {{{.queries = QueryBlocks::aligned(b)},
            [=](const QueryBlock& block, KeyList& keys) { keys.range((block.first / b - 1) * b, 3 * b); }}}};
}

EngineCase strided(index_t n, index_t l, int threads) {
  return {"strided/l=128/causal/D=64/N=8192",
          problem(2, n, 64, true),
          threads,
          count_pairs(n, [&](index_t i) { return window(n, i, l - 1, 0) + i / l; }),
          {{{.queries = QueryBlocks::classes(l), .keys_per_query = n / l / 2},
            [=](const QueryBlock& block, KeyList& keys) { keys.strided(block.first % l, l, n / l).band(anywhere, -l); }},
           {{.keys_per_query = l}, [=](const QueryBlock&, KeyList& keys) { keys.all().band(l - 1, 0); }, true}}};
}

EngineCase fixed(index_t n, index_t l, index_t c, int threads) {
  return {"fixed/l=128,c=32/causal/D=64/N=8192",
          problem(2, n, 64, true),
          threads,
          count_pairs(n, [&](index_t i) { return i % l + 1 + c * (i / l); }),
          {{{.queries = QueryBlocks::aligned(l)}, [=](const QueryBlock& block, KeyList& keys) {
              const index_t u = block.first / l;
              keys.range(u * l, l);
              keys.blocks(l - c, l, u, c);
            }}}};
}

EngineCase longformer(index_t n, index_t w, int threads) {
  static const std::vector<std::int32_t> globals = [] {
    std::vector<std::int32_t> g(16);
    for (std::int32_t i = 0; i < 16; ++i) g[static_cast<std::size_t>(i)] = i * 512;
    return g;
  }();
  const auto keys_of = [&](index_t i) {
    index_t keys = window(n, i, w, w);
    for (const index_t g : globals) {
      if (g == i) return n;
      keys += g < i - w || g > i + w;
    }
    return keys;
  };
  return {"longformer/w=128,globals=16/D=64/N=8192",
          problem(2, n, 64),
          threads,
          count_pairs(n, keys_of),
          {{{.keys_per_query = 2 * w + 1},
            [=](const QueryBlock&, KeyList& keys) {
              keys.all().band(w, w);
              keys.listed(globals.data(), 16).outside(w, w);
            }},
           {{.queries = QueryBlocks::listed(1, 16)}, all_keys, false, globals}}};
}

EngineCase bigbird(index_t n, index_t b, index_t r, int threads) {
  const index_t blocks = n / b;
  static std::vector<std::int32_t> table;
  const Rng rng(3, 5);
  index_t draw = 0;
  for (index_t u = 0; u < blocks; ++u) {
    std::vector<std::int32_t> row = {0, static_cast<std::int32_t>(blocks - 1)};
    for (index_t near = u - 1; near <= u + 1; ++near)
      row.push_back(static_cast<std::int32_t>(std::clamp<index_t>(near, 0, blocks - 1)));
    std::sort(row.begin(), row.end());
    row.erase(std::unique(row.begin(), row.end()), row.end());
    const auto fixed_size = row.size();
    while (row.size() < fixed_size + static_cast<std::size_t>(r)) {
      const auto candidate = static_cast<std::int32_t>(rng.below(draw++, blocks));
      if (std::find(row.begin(), row.end(), candidate) == row.end()) row.push_back(candidate);
    }
    table.push_back(static_cast<std::int32_t>(row.size()));
    row.resize(8);
    table.insert(table.end(), row.begin(), row.end());
  }
  const auto keys_of = [&](index_t i) {
    const index_t u = i / b;
    return u == 0 || u == blocks - 1 ? n : table[static_cast<std::size_t>(9 * u)] * b;
  };
  return {"bigbird/b=64,r=3/D=64/N=8192",
          problem(2, n, 64),
          threads,
          count_pairs(n, keys_of),
          {{{.queries = QueryBlocks::aligned(b)}, [=](const QueryBlock& block, KeyList& keys) {
              const index_t u = block.first / b;
              if (u == 0 || u == blocks - 1)
                keys.all();
              else
                keys.listed_blocks(&table[static_cast<std::size_t>(9 * u + 1)], table[static_cast<std::size_t>(9 * u)], b);
            }}}};
}

void register_engine(const EngineCase& c, int iterations) {
  benchmark::RegisterBenchmark((std::string("engine/") + c.name + "/threads=" + std::to_string(c.threads)).c_str(),
                               [c](benchmark::State& state) { run_engine(state, c); })
      ->UseManualTime()
      ->Iterations(iterations)
      ->Unit(benchmark::kMillisecond);
}

void register_engine_cases() {
  for (const int threads : {1, 2}) {
    register_engine(full("full/D=64/N=512", 8, 512, 64, false, threads), 41);
    register_engine(full("full/D=64/N=2048", 2, 2048, 64, false, threads), 25);
    register_engine(full("full/D=64/N=8192", 1, 8192, 64, false, threads), 9);
    register_engine(full("full/D=128/N=2048", 2, 2048, 128, false, threads), 15);
    register_engine(full("full/D=80/N=2048", 2, 2048, 80, false, threads), 15);
    register_engine(full("full/D=40/N=2048", 2, 2048, 40, false, threads), 25);
    register_engine(full("full/causal/D=64/N=2048", 4, 2048, 64, true, threads), 25);
    register_engine(local(8192, 128, threads), 25);
    register_engine(dilated(8192, 64, 4, threads), 25);
    register_engine(blockwise(8192, 128, threads), 25);
    register_engine(strided(8192, 128, threads), 25);
    register_engine(fixed(8192, 128, 32, threads), 25);
    register_engine(longformer(8192, 128, threads), 25);
    register_engine(bigbird(8192, 64, 3, threads), 25);
    benchmark::RegisterBenchmark(("engine/backward/full/D=64/N=1024/threads=" + std::to_string(threads)).c_str(),
                                 [threads](benchmark::State& state) { run_backward(state, problem(8, 1024, 64), threads); })
        ->UseManualTime()
        ->Iterations(25)
        ->Unit(benchmark::kMillisecond);
  }
}

struct Product {
  index_t m, n, k;
  bool transposed;  // B
};

void run_product(benchmark::State& state, const Product& s, bool own) {
  const Floats a = normals(s.m * s.k, 1), b = normals(s.k * s.n, 2), c(s.m * s.n);
  const double flops = 2.0 * static_cast<double>(s.m) * static_cast<double>(s.n) * static_cast<double>(s.k);
  const int repeats = static_cast<int>(std::max(1.0, 2e7 / flops));  // the clock costs 0.3 us
  clock_work(state, 1, flops * repeats, [&] {
    for (int i = 0; i < repeats; ++i) {
      if (own)
        gemm(s.m, s.n, s.k, {a.data(), s.k}, {b.data(), s.n}, {c.data(), s.n});
      else
        sgemm(Transposed::no, s.transposed ? Transposed::yes : Transposed::no, s.m, s.n, s.k, 1, a.data(), s.k, b.data(),
              s.transposed ? s.k : s.n, 0, c.data(), s.n);
    }
  });
}

void register_products() {
  constexpr Product shapes[] = {{64, 64, 64, false},    {64, 64, 64, true},    {64, 64, 512, false},
                                {64, 192, 64, false},   {64, 256, 64, false},  {128, 256, 64, false},
                                {256, 64, 8192, false}, {8192, 64, 64, false}, {2048, 2048, 256, false}};
  for (const Product& s : shapes) {
    const std::string name =
        std::to_string(s.m) + "x" + std::to_string(s.n) + "x" + std::to_string(s.k) + (s.transposed ? "/transposed" : "");
    const auto add = [&](const std::string& prefix, bool own) {
      benchmark::RegisterBenchmark((prefix + name).c_str(), [s, own](benchmark::State& state) { run_product(state, s, own); })
          ->UseManualTime()
          ->Iterations(25)
          ->Unit(benchmark::kMicrosecond);
    };
    if (!s.transposed) add("gemm/", true);
    add("sgemm/", false);
  }
}

// Probes: rates, not fractions.
void register_probes() {
  benchmark::RegisterBenchmark("probe/fma", [](benchmark::State& state) {
    double flops = 0;
    for (auto _ : state) flops += probe_fma(100000);
    state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsRate);
  });
  benchmark::RegisterBenchmark("probe/exp", [](benchmark::State& state) {
    std::vector<float> buffer(4096, -0.5f);
    double count = 0;
    for (auto _ : state) count += probe_exp(buffer, 10);
    state.counters["Gexp/s"] = benchmark::Counter(count * 1e-9, benchmark::Counter::kIsRate);
  });
  for (const index_t kib : {16, 512, 262144}) {
    benchmark::RegisterBenchmark(("probe/read/" + std::to_string(kib) + "KiB").c_str(), [kib](benchmark::State& state) {
      const std::vector<float> buffer(static_cast<std::size_t>(kib * 256), 1.0f);
      double bytes = 0;
      for (auto _ : state) bytes += probe_read(buffer);
      state.counters["GB/s"] = benchmark::Counter(bytes * 1e-9, benchmark::Counter::kIsRate);
    });
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--version") return std::puts("attnbench-" ATTN_VERSION) < 0;
  if (const char* isa = std::getenv("ATTN_ISA")) {
    if (const Status forced = force_isa(isa); !forced) {
      std::fprintf(stderr, "attn_micro: %s\n", forced.reason().c_str());
      return 2;
    }
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::AddCustomContext("isa", active_isa());
  benchmark::AddCustomContext("onednn", onednn_version() + " " + onednn_runtime());
  register_engine_cases();
  register_decode_cases();
  register_graph_cases();
  register_step_cases();
  register_storage_cases();
  register_products();
  register_probes();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
