#include "attn/kernels/softmax/tile_bf16.hpp"

#include <array>
#include <bit>

#include "attn/kernels/machine/flush_denormals.hpp"
#include "harness/kernels/softmax/engine_case.hpp"
#include "harness/kernels/stored.hpp"

using namespace attn;
using namespace attn::kernels;
using namespace attn::kernels::engine_case;
using attn::kernels::test::same_bits;
using attn::kernels::test::Stored;

namespace {

std::uint32_t bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }

// Rounds the inputs of a case to bf16, so that the definition in double sees what the engine sees.
Case rounded(Case c) {
  for (std::vector<float>* x : {&c.q, &c.k, &c.v}) {
    for (float& value : *x) value = to_float(to_bf16(value));
  }
  return c;
}

struct Step {
  EngineOptions options;
  KeySchedule schedule;
};

// All steps but the first resume.
Output run_dot(const Case& c, std::initializer_list<Step> steps) {
  Problem p = c.p;
  p.dtype = p.kv_dtype = DType::bf16;
  // Odd gaps: rows of K begin anywhere.
  const Stored q(DType::bf16, c.q, {p.batch, p.heads, p.q_len, p.head_dim}, 3);
  const Stored k(DType::bf16, c.k, {p.batch, p.kv_heads, p.kv_len, p.head_dim}, 5);
  const Stored v(DType::bf16, c.v, {p.batch, p.kv_heads, p.kv_len, p.value_dim}, 1);
  const auto rows = static_cast<std::size_t>(p.batch * p.heads * p.q_len);
  Output result{std::vector<float>(rows * static_cast<std::size_t>(p.value_dim), nan_value), std::vector<float>(rows, nan_value)};
  Arrays a;
  a.q = q.array(), a.k = k.array(), a.v = v.array();
  a.out = View<float, 4>(result.out.data(), {p.batch, p.heads, p.q_len, p.value_dim});
  EngineArrays arrays(a, {result.lse.data(), {p.batch, p.heads, p.q_len}});
  for (const Step& step : steps) {
    WorkspacePlan plan(c.threads);
    EngineOptions options = step.options;
    options.compute = Compute::bf16_dot;
    const SoftmaxEngine engine(p, options, plan);
    REQUIRE(engine.compute() == Compute::bf16_dot);
    const Workspace workspace(plan, Workspace::Mode::checked);
    Arena(c.threads).execute([&] { engine.run(arrays, workspace, step.schedule); });
    CHECK(workspace.gaps_intact());
    arrays.resume = true;
  }
  return result;
}

// Rounding is off by 2^-9 of a weight at most, and so is the sum of weights: together 2^-8 of the largest value.
double tolerance_of(const Case& c) {
  double top = 0;
  for (const float x : c.v) top = std::isfinite(x) ? std::max(top, std::fabs(double{x})) : top;
  return 0x1p-8 * top;
}

void check_near(const Case& given, KeySchedule schedule, const Allowed& allowed) {
  const Case c = rounded(given);
  INFO(to_string(c.p) << " isa=" << active_isa() << " threads=" << c.threads);
  const Output got = run_dot(c, {{c.options, schedule}});
  const Reference want = reference(c, allowed);
  CHECK(distance(got.out, want.out) < tolerance_of(c));
  CHECK(distance(got.lse, want.lse) < 0x1p-8);
}

// The instruction and the emulation, which every other instruction set takes.
void check_emulated(const Case& c, KeySchedule schedule) {
  if (!has_bf16_dot()) return;
  const Output by_instruction = run_dot(c, {{c.options, schedule}});
  REQUIRE(force_isa("avx2"));
  const Output emulated = run_dot(c, {{c.options, schedule}});
  REQUIRE(force_isa(""));
  INFO(to_string(c.p));
  CHECK(same_bits(by_instruction.out, emulated.out));
  CHECK(distance(by_instruction.lse, std::vector<double>(emulated.lse.begin(), emulated.lse.end())) == 0);
}

}  // namespace

TEST_CASE("bf16 dot: the odd product is added first, each step is rounded once, and denormals are zero") {
  std::array<float, 16> c = {}, to = {};
  std::array<bf16, 32> a = {}, b = {};
  const auto set = [&](std::size_t lane, float sum, float a0, float b0, float a1, float b1) {
    c[lane] = sum;
    a[2 * lane] = to_bf16(a0), b[2 * lane] = to_bf16(b0), a[2 * lane + 1] = to_bf16(a1), b[2 * lane + 1] = to_bf16(b1);
  };
  set(0, 1.0f, 2, 3, 5, 7);
  set(1, 0x1p24f, 1, 1, 1, 1);            // 2^24 + 1 is a tie and stays: were the products added first, 2^24 + 2
  set(2, 0x1p24f, 1, 1, 1, 3);            // 2^24 + 3 goes to 2^24 + 4, and + 1 is a tie that goes to 4
  set(3, 0x1p-140f, 1, 0x1p-126f, 0, 0);  // a denormal sum is zero
  set(4, 0, 0x1p-130f, 0x1p60f, 0, 0);    // so is a factor
  set(5, 0, 0x1p-80f, 0x1p-50f, 0, 0);    // and a product
  set(6, 0, infinity, 0, 0, 0);
  set(7, infinity, -infinity, 1, 1, 1);
  emulated_bf16_dot(c.data(), a.data(), b.data(), to.data());
  CHECK(to[0] == 42.0f);
  CHECK(to[1] == 0x1p24f);
  CHECK(to[2] == 0x1p24f + 4);
  CHECK(to[3] == 0x1p-126f);
  CHECK(to[4] == 0);
  CHECK(to[5] == 0);
  CHECK(std::isnan(to[6]));
  CHECK(std::isnan(to[7]));
}

TEST_CASE("bf16 dot: the emulation has the bits of the instruction") {
  if (!has_bf16_dot()) {
    WARN("this machine lacks vdpbf16ps: nothing to compare with");
    return;
  }
  const Rng rng(3, 1);
  index_t draw = 0;
  for (const bool tiny : {false, true}) {
    for (int round = 0; round < 60000; ++round) {
      std::array<float, 16> c, machine, emulated;
      std::array<bf16, 32> a, b;
      const auto any = [&] { return static_cast<std::uint32_t>(rng.below(draw++, index_t{1} << 32)); };
      // Of exponents near the least, where products and sums are denormal or nearly.
      const auto small = [&](std::uint32_t from) { return (any() & 0x807f) | static_cast<std::uint32_t>(from + any() % 8) << 7; };
      for (std::size_t i = 0; i < 16; ++i) c[i] = std::bit_cast<float>(tiny ? (any() & 0x83ffffff) : any());
      for (std::size_t i = 0; i < 32; ++i) {
        a[i].bits = static_cast<std::uint16_t>(tiny ? small(60) : any());
        b[i].bits = static_cast<std::uint16_t>(tiny ? small(62) : any());
      }
      bf16_dot(c.data(), a.data(), b.data(), machine.data());
      emulated_bf16_dot(c.data(), a.data(), b.data(), emulated.data());
      for (std::size_t i = 0; i < 16; ++i) {
        if (std::isnan(machine[i]) && std::isnan(emulated[i])) continue;
        if (bits_of(machine[i]) != bits_of(emulated[i])) {
          FAIL(std::hex << bits_of(c[i]) << " " << a[2 * i].bits << "*" << b[2 * i].bits << " " << a[2 * i + 1].bits << "*"
                        << b[2 * i + 1].bits << ": " << bits_of(machine[i]) << ", emulated " << bits_of(emulated[i]));
        }
      }
    }
  }
}

TEST_CASE("bf16 tile: values of one come to exactly one, however weights are rounded") {
  on_every_isa([] {
    for (const auto& [n, d, sharpness] : {std::tuple{64, 64, 1.0}, {500, 40, 1.0}, {333, 64, 20.0}, {1000, 16, 0.1}}) {
      for (const bool causal : {false, true}) {
        if (active_isa() != "avx512" && n > 400) continue;  // emulated: minutes
        Case c(shape(n, n, d, 20, causal), sharpness);
        std::fill(c.v.begin(), c.v.end(), 1.0f);
        const Output got = run_dot(c, {{{}, all_keys}});
        CHECK(std::all_of(got.out.begin(), got.out.end(), [](float x) { return x == 1.0f; }));
      }
    }
  });
}

TEST_CASE("bf16 tile: agrees with the definition at odd lengths and widths") {
  for (const index_t n : {1, 2, 7, 8, 15, 16, 17, 47, 48, 49, 63, 64, 65, 113, 500}) {
    check_near(Case(shape(n, n, 16, 16)), all_keys, always);
    check_near(Case(shape(n, n, 24, 24, true)), all_keys, always);
  }
  for (const index_t d : {1, 2, 3, 5, 16, 33, 40, 64, 80, 96, 128, 255, 256})
    check_near(Case(shape(65, 70, d, d)), all_keys, always);
  for (const auto& [d, dv] : {std::pair{64, 1}, {1, 64}, {33, 7}, {40, 80}, {7, 13}, {256, 12}, {16, 252}})
    check_near(Case(shape(50, 90, d, dv, true)), all_keys, always);
  check_near(Case(shape(1, 500, 32, 32, true)), all_keys, always);
  check_near(Case(shape(130, 65, 32, 32)), all_keys, always);
  check_near(Case(shape(70, 40, 16, 16, true)), all_keys, always);  // some rows see no key
}

TEST_CASE("bf16 tile: agrees with the definition through windows, classes and lists") {
  Case local(shape(300, 300, 64, 64));
  local.options.keys_per_query = 41;
  check_near(
      local, [](const QueryBlock&, KeyList& keys) { keys.all().band(20, 20); },
      [](index_t, index_t i, index_t j) { return int{std::abs(i - j) <= 20}; });
  Case dilated(shape(200, 200, 40, 40));
  dilated.options.queries = QueryBlocks::classes(3);
  check_near(
      dilated, [](const QueryBlock& b, KeyList& keys) { keys.strided(b.first % 3, 3, 200).band(60, 60); },
      [](index_t, index_t i, index_t j) { return int{i % 3 == j % 3 && std::abs(i - j) <= 60}; });
  const auto keep = [](index_t row, index_t key) { return (row * 7 + key * 3) % 5 != 0; };
  check_near(
      Case(shape(100, 100, 32, 32)), [&](const QueryBlock&, KeyList& keys) { keys.all().where(keep); },
      [&](index_t row, index_t, index_t j) { return int{keep(row, j)}; });
}

TEST_CASE("bf16 tile: references follow sharp logits, far from zero too") {
  check_near(Case(shape(200, 700, 64, 64), 10.0), all_keys, always);
  check_near(Case(shape(200, 700, 64, 64), 100.0), all_keys, always);
  // All logits near -2000, then near 2000.
  Case far(shape(60, 400, 16, 16));
  for (index_t i = 0; i < 2 * 60; ++i) far.q[static_cast<std::size_t>(i * 16)] = 64.0f;
  for (index_t j = 0; j < 2 * 400; ++j) far.k[static_cast<std::size_t>(j * 16)] = j % 400 < 200 ? -128.0f : 128.0f;
  check_near(far, all_keys, always);
}

TEST_CASE("bf16 tile: the emulation has the bits of the instruction") {
  check_emulated(Case(shape(150, 200, 64, 64, true)), all_keys);
  check_emulated(Case(shape(33, 90, 33, 7)), all_keys);
  check_emulated(Case(shape(100, 300, 16, 20, true), 40.0), all_keys);
  Case local(shape(150, 150, 40, 24));
  local.options.keys_per_query = 41;
  check_emulated(local, [](const QueryBlock&, KeyList& keys) { keys.all().band(20, 20); });
}

TEST_CASE("bf16 tile: what a lane does not see cannot reach it, and what it sees does") {
  Case c(shape(70, 200, 32, 32, true));
  c.v_row(161)[3] = nan_value;
  c.v_row(190)[5] = infinity;
  c.k_row(180)[1] = nan_value;
  c.q[5 * 32 + 3] = nan_value;
  check_near(c, all_keys, always);
  if (!has_bf16_dot()) return;
  REQUIRE(force_isa("scalar"));
  check_near(c, all_keys, always);
  REQUIRE(force_isa(""));
}

TEST_CASE("bf16 tile: passes and threads add up") {
  Case c(shape(120, 700, 64, 48));
  const Reference want = reference(rounded(c), always);
  const auto first = [](const QueryBlock&, KeyList& keys) { keys.range(0, 333); };
  const auto second = [](const QueryBlock&, KeyList& keys) { keys.range(333, 367); };
  for (const int threads : {1, 3}) {
    c.threads = threads;
    check_near(c, all_keys, always);
    const Output got = run_dot(rounded(c), {Step{{}, first}, Step{{}, second}});
    CHECK(distance(got.out, want.out) < tolerance_of(c));
    CHECK(distance(got.lse, want.lse) < 0x1p-8);
  }
}
