// Decoding: a step of a few queries against caches of keys and values. `of_read`: the median of the rate at which K and V are gone
// through, over the rate at which they can be read, the faster of three ways clocked just before.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "attn/exec/arena.hpp"
#include "attn/kernels/machine/probes.hpp"
#include "attn/kernels/rows/rows_engine.hpp"
#include "micro.hpp"

namespace attn {

namespace {

using namespace kernels;

struct DecodeCase {
  std::string name;
  Problem problem;
  std::vector<index_t> lengths;  // of each sequence; none where all have kv_len
  index_t window = anywhere;     // keys that a query sees
  int threads = 1;
};

// Seconds to read what the step reads.
double read_s(const DecodeCase& c, const Floats& k, const Floats& v) {
  const Problem& p = c.problem;
  double best = INFINITY;
  for (const index_t ahead : {0, 2048, 4096}) {
    const double start = now_s(c.threads);
    // Each thread an equal share of all keys, which lie in the order of sequences and heads.
    parallel_tasks(c.threads, [&](index_t task, int) {
      const auto read = [&](const Floats& x, index_t width) {
        index_t total = 0;
        for (index_t b = 0; b < p.batch; ++b)
          total += p.kv_heads * (c.lengths.empty() ? p.kv_len : c.lengths[static_cast<std::size_t>(b)]);
        const index_t first = total * task / c.threads, last = total * (task + 1) / c.threads;
        index_t at = 0;
        for (index_t head = 0; head < p.batch * p.kv_heads; ++head) {
          const index_t keys = c.lengths.empty() ? p.kv_len : c.lengths[static_cast<std::size_t>(head / p.kv_heads)];
          const index_t seen = std::min(keys, c.window);
          const index_t begin = std::max(first, at), end = std::min(last, at + keys);
          if (begin < end) {
            const index_t from = std::max(begin - at, keys - seen);
            if (from < end - at)
              probe_read({x.data() + (head * p.kv_len + from) * width, static_cast<std::size_t>((end - at - from) * width)}, ahead);
          }
          at += keys;
        }
      };
      read(k, p.head_dim);
      read(v, p.value_dim);
    });
    best = std::min(best, now_s(c.threads) - start);
  }
  return best;
}

double median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2), x.end());
  return x[x.size() / 2];
}

void run_decode(benchmark::State& state, const DecodeCase& c) {
  const Problem& p = c.problem;
  const Floats q = normals(p.batch * p.heads * p.q_len * p.head_dim, 1);
  const Floats k = normals(p.batch * p.kv_heads * p.kv_len * p.head_dim, 2);
  const Floats v = normals(p.batch * p.kv_heads * p.kv_len * p.value_dim, 3);
  const Floats out(p.batch * p.heads * p.q_len * p.value_dim);
  WorkspacePlan plan(c.threads);
  const RowsEngine engine(p, {.keys = std::min(c.window, p.kv_len)}, plan);
  const Workspace workspace(plan);
  const RowsArrays arrays{.q = View<const float, 4>{q.data(), {p.batch, p.heads, p.q_len, p.head_dim}},
                          .k = View<const float, 4>{k.data(), {p.batch, p.kv_heads, p.kv_len, p.head_dim}},
                          .v = View<const float, 4>{v.data(), {p.batch, p.kv_heads, p.kv_len, p.value_dim}},
                          .out = {out.data(), {p.batch, p.heads, p.q_len, p.value_dim}}};
  const auto step = [&] {
    if (c.window >= p.kv_len)
      engine.run(arrays, c.lengths, workspace);
    else
      engine.run(arrays, c.lengths, workspace, [&](const QueryBlock&, KeyList& keys) { keys.all().band(c.window - 1, 0); });
  };
  double keys = 0;
  for (index_t b = 0; b < p.batch; ++b)
    keys += static_cast<double>(std::min(c.window, c.lengths.empty() ? p.kv_len : c.lengths[static_cast<std::size_t>(b)]));
  const double bytes = 4.0 * keys * static_cast<double>(p.kv_heads * (p.head_dim + p.value_dim));
  std::vector<double> fractions;
  Arena(c.threads).execute([&] {
    step();
    for (auto _ : state) {
      const double read = read_s(c, k, v);
      const double start = now_s(c.threads);
      step();
      const double seconds = now_s(c.threads) - start;
      fractions.push_back(read / seconds);
      state.SetIterationTime(seconds);
    }
  });
  state.counters["of_read"] = median(fractions);
  state.counters["GB/s"] = benchmark::Counter(bytes * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  const double flops = 2.0 * keys * static_cast<double>(p.heads * p.q_len * (p.head_dim + p.value_dim));
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

DecodeCase grouped(index_t heads, index_t kv_heads, index_t d, index_t keys, int threads) {
  return {.name = std::to_string(heads) + "/" + std::to_string(kv_heads) + "/D=" + std::to_string(d) + "/M=" + std::to_string(keys),
          .problem = {.batch = 1,
                      .heads = heads,
                      .kv_heads = kv_heads,
                      .q_len = 1,
                      .kv_len = keys,
                      .head_dim = d,
                      .value_dim = d,
                      .causal = true},
          .threads = threads};
}

// Lengths from 100 to 30000, evenly in their logarithms.
DecodeCase ragged(index_t heads, index_t kv_heads, int threads) {
  DecodeCase c = grouped(heads, kv_heads, 128, 30000, threads);
  c.name += "/ragged=16";
  c.problem.batch = 16;
  for (int i = 0; i < 16; ++i) c.lengths.push_back(std::lround(100 * std::pow(300.0, i / 15.0)));
  return c;
}

DecodeCase windowed(index_t keys, index_t window) {
  DecodeCase c = grouped(32, 8, 128, keys, 1);
  c.name += "/window=" + std::to_string(window);
  c.window = window;
  return c;
}

}  // namespace

void register_decode_cases() {
  std::vector<DecodeCase> cases;
  for (const int threads : {1, 2}) {
    cases.push_back(grouped(8, 8, 64, 16384, threads));
    for (const index_t heads : {8, 16, 32, 64, 128, 256}) cases.push_back(grouped(heads, 8, 128, 32768, threads));
    for (const index_t heads : {8, 32, 64}) cases.push_back(grouped(heads, 8, 128, 4096, threads));
    for (const index_t heads : {8, 32, 64}) cases.push_back(grouped(heads, 8, 128, 64, threads));
    cases.push_back(grouped(32, 1, 128, 32768, threads));
    cases.push_back(grouped(32, 8, 80, 16384, threads));
    cases.push_back(ragged(16, 4, threads));
  }
  cases.push_back(windowed(32768, 1024));
  for (const DecodeCase& c : cases) {
    const double bytes = 4.0 * static_cast<double>(c.problem.kv_heads * c.problem.kv_len * 2 * c.problem.head_dim);
    benchmark::RegisterBenchmark(("decode/" + c.name + "/threads=" + std::to_string(c.threads)).c_str(),
                                 [c](benchmark::State& state) { run_decode(state, c); })
        ->UseManualTime()
        ->Iterations(bytes < 4e6 ? 301 : 31)
        ->Unit(benchmark::kMicrosecond);
  }
}

}  // namespace attn
