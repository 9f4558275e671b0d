// Number types beside f32: each case runs the engine on f32 and on what is stored otherwise in turns, in one process, so that a busy
// machine disturbs both alike. `vs_f32`: how often the stored one runs in the time of f32, the median over turns; `of_dot`: its rate
// over that of the vdpbf16ps probe, where products are made with it.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "attn/exec/arena.hpp"
#include "attn/kernels/machine/dot_peak.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "attn/kernels/softmax/attention.hpp"
#include "micro.hpp"

namespace attn {

using namespace kernels;

namespace {

// Normal numbers, rounded to a type: [batch, heads, rows, width].
class Tensor {
 public:
  Tensor(DType dtype, index_t heads, index_t rows, index_t width, std::uint64_t stream)
      : dtype_(dtype), extents_{1, heads, rows, width}, memory_(static_cast<std::size_t>(bytes_of(dtype, heads * rows * width))) {
    std::vector<float> row(static_cast<std::size_t>(width));
    for (index_t i = 0; i < heads * rows; ++i) {
      Rng(1, stream + 1000 * static_cast<std::uint64_t>(i)).normals(row);
      store(row, i * width);
    }
  }

  Array array() const { return {dtype_, memory_.as<std::byte>(), extents_}; }

 private:
  void store(const std::vector<float>& row, index_t at) {
    std::byte* const to = memory_.as<std::byte>() + bytes_of(dtype_, at);
    for (std::size_t x = 0; x < row.size(); ++x) {
      switch (dtype_) {
        case DType::f32: reinterpret_cast<float*>(to)[x] = row[x]; break;
        case DType::bf16: reinterpret_cast<bf16*>(to)[x] = to_bf16(row[x]); break;
        case DType::f16: reinterpret_cast<f16*>(to)[x] = to_f16(row[x]); break;
        case DType::q8: {
          q8& block = reinterpret_cast<q8*>(to)[x / q8::count];
          block.scale = to_f16(5.0f / 127);
          block.values[x % q8::count] = static_cast<std::int8_t>(std::clamp(row[x] * (127 / 5.0f), -127.0f, 127.0f));
          break;
        }
      }
    }
  }

  DType dtype_;
  std::array<index_t, 4> extents_;
  Buffer memory_;
};

struct Inputs {
  Tensor q, k, v;
  Inputs(const Problem& p, DType dtype, DType kv_dtype)
      : q(dtype, p.heads, p.q_len, p.head_dim, 1),
        k(kv_dtype, p.kv_heads, p.kv_len, p.head_dim, 2),
        v(kv_dtype, p.kv_heads, p.kv_len, p.value_dim, 3) {}
};

struct StorageCase {
  std::string name;
  Problem problem;
  EngineOptions options;
  std::function<void(const QueryBlock&, KeyList&)> schedule;
  double pairs;  // that the pattern holds, in a head
};

double dot_rate() {
  probe_bf16_dot(1000);
  const double start = now_s(1);
  return probe_bf16_dot(20000) / (now_s(1) - start);
}

double middle(std::vector<double> x) {
  if (x.empty()) return 0;
  std::nth_element(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2), x.end());
  return x[x.size() / 2];
}

// An engine, its inputs and its memory.
struct Bench {
  Bench(const StorageCase& c, DType dtype, DType kv_dtype, Compute compute)
      : inputs(c.problem, dtype, kv_dtype), out(c.problem.heads * c.problem.q_len * c.problem.value_dim), plan(1) {
    Problem p = c.problem;
    p.dtype = dtype, p.kv_dtype = kv_dtype;
    EngineOptions options = c.options;
    options.compute = compute;
    engine.emplace(p, options, plan);
    memory.emplace(plan);
    arrays.q = inputs.q.array(), arrays.k = inputs.k.array(), arrays.v = inputs.v.array();
    arrays.out = View<float, 4>(out.data(), {1, p.heads, p.q_len, p.value_dim});
  }
  double seconds(const StorageCase& c) const {
    const double start = now_s(1);
    engine->run(arrays, *memory, c.schedule);
    return now_s(1) - start;
  }

  Inputs inputs;
  Floats out;
  WorkspacePlan plan;
  std::optional<Attention> engine;
  std::optional<Workspace> memory;
  Arrays arrays;
};

void run_storage(benchmark::State& state, const StorageCase& c, DType dtype, DType kv_dtype, Compute compute) {
  if (compute == Compute::bf16_dot && !has_bf16_dot()) return state.SkipWithError("needs AVX512_BF16");
  const Bench f32(c, DType::f32, DType::f32, Compute::f32), own(c, dtype, kv_dtype, compute);
  const Problem& p = c.problem;
  const double flops = 2.0 * c.pairs * static_cast<double>(p.heads * (p.head_dim + p.value_dim));
  std::vector<double> ratios, fractions;
  Arena(1).execute([&] {
    f32.seconds(c), own.seconds(c);
    for (auto _ : state) {
      const double before = dot_rate(), f32_s = f32.seconds(c), own_s = own.seconds(c), after = dot_rate();
      ratios.push_back(f32_s / own_s);
      if (before > 0) fractions.push_back(flops / own_s / (0.5 * (before + after)));
      state.SetIterationTime(own_s);
    }
  });
  state.counters["vs_f32"] = middle(ratios);
  if (compute == Compute::bf16_dot) state.counters["of_dot"] = middle(fractions);
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

Problem square(index_t heads, index_t n, index_t d, bool causal = false) {
  return {.heads = heads, .kv_heads = heads, .q_len = n, .kv_len = n, .head_dim = d, .value_dim = d, .causal = causal};
}

double of_window(index_t n, index_t reach) {
  double pairs = 0;
  for (index_t i = 0; i < n; ++i) pairs += static_cast<double>(std::min(n - 1, i + reach) - std::max<index_t>(0, i - reach) + 1);
  return pairs;
}

std::vector<StorageCase> cases(index_t n) {
  const auto size = static_cast<double>(n);
  std::vector<StorageCase> list;
  const std::string at = "/N=" + std::to_string(n);
  const index_t heads = std::max<index_t>(1, 8192 / n);
  for (const index_t d : {64, 128}) {
    list.push_back({"full/D=" + std::to_string(d) + at, square(heads, n, d), {}, all_keys, size * size});
    list.push_back({"causal/D=" + std::to_string(d) + at, square(heads, n, d, true), {}, all_keys, size * (size + 1) / 2});
  }
  list.push_back({"local/w=128/D=64" + at,
                  square(heads, n, 64),
                  {.keys_per_query = 257},
                  [](const QueryBlock&, KeyList& keys) { keys.all().band(128, 128); },
                  of_window(n, 128)});
  list.push_back({"blockwise/b=128/D=64" + at,
                  square(heads, n, 64),
                  {.queries = QueryBlocks::aligned(128)},
                  [](const QueryBlock& b, KeyList& keys) { keys.range((b.first / 128 - 1) * 128, 384); },
                  size * 384 - 2 * 128 * 128});
  // BigBird's blocks of 64: two at the ends, three around, three anywhere.
  list.push_back({"bigbird/b=64/D=64" + at,
                  square(heads, n, 64),
                  {.queries = QueryBlocks::aligned(64)},
                  [n](const QueryBlock& b, KeyList& keys) {
                    const index_t blocks = n / 64, own = std::clamp<index_t>(b.first / 64, 2, blocks - 3);
                    keys.range(0, 64);
                    keys.range(n - 64, 64);
                    keys.range((own - 1) * 64, 192);
                    for (const index_t jump : {7, 13, 29}) keys.range((own + jump * blocks / 41) % blocks * 64, 64);
                  },
                  size * 512});
  return list;
}

StorageCase decode(index_t heads, index_t keys) {
  Problem p{.heads = heads, .kv_heads = 8, .q_len = 1, .kv_len = keys, .head_dim = 128, .value_dim = 128, .causal = true};
  p.pass = Pass::decode;
  return {"decode/" + std::to_string(heads) + "/8/D=128/M=" + std::to_string(keys), p, {}, all_keys, static_cast<double>(keys)};
}

void add(const StorageCase& c, const std::string& name, DType dtype, DType kv_dtype, Compute compute) {
  benchmark::RegisterBenchmark(("storage/" + c.name + "/" + name).c_str(),
                               [=](benchmark::State& state) { run_storage(state, c, dtype, kv_dtype, compute); })
      ->UseManualTime()
      ->Iterations(c.problem.pass == Pass::decode ? 15 : 11)
      ->Unit(benchmark::kMillisecond);
}

}  // namespace

void register_storage_cases() {
  for (const index_t n : {2048, 4096, 8192}) {
    for (const StorageCase& c : cases(n)) {
      add(c, "bf16", DType::bf16, DType::bf16, Compute::f32);
      add(c, "f16", DType::f16, DType::f16, Compute::f32);
      add(c, "q8", DType::f32, DType::q8, Compute::f32);
      add(c, "bf16_dot", DType::bf16, DType::bf16, Compute::bf16_dot);
    }
  }
  for (const index_t heads : {8, 16, 32, 64}) {
    const StorageCase c = decode(heads, 32768);
    add(c, "bf16", DType::bf16, DType::bf16, Compute::f32);
    add(c, "f16", DType::f16, DType::f16, Compute::f32);
    add(c, "q8", DType::bf16, DType::q8, Compute::f32);
  }
}

}  // namespace attn
