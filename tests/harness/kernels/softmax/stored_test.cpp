#include "harness/kernels/stored.hpp"

#include <array>

#include "attn/kernels/softmax/attention.hpp"
#include "harness/kernels/softmax/engine_case.hpp"

using namespace attn;
using namespace attn::kernels;
using namespace attn::kernels::engine_case;
using attn::kernels::test::Stored;

namespace {

struct Types {
  DType q, kv;
};
constexpr std::array pairs = {Types{DType::bf16, DType::bf16}, Types{DType::f16, DType::f16}, Types{DType::f32, DType::q8},
                              Types{DType::bf16, DType::q8},   Types{DType::f32, DType::f16}, Types{DType::f16, DType::f32}};

// Rows are of whole blocks.
bool holds(const Types& types, const Problem& p) {
  return p.head_dim % block_of(types.kv) == 0 && p.value_dim % block_of(types.kv) == 0;
}

// The inputs of a case, stored.
struct Inputs {
  Stored q, k, v;

  Inputs(const Case& c, const Types& types)
      : q(types.q, c.q, {c.p.batch, c.p.heads, c.p.q_len, c.p.head_dim}),
        k(types.kv, c.k, {c.p.batch, c.p.kv_heads, c.p.kv_len, c.p.head_dim}, 5),
        v(types.kv, c.v, {c.p.batch, c.p.kv_heads, c.p.kv_len, c.p.value_dim}, 2) {}

  Arrays arrays(bool widened) const {
    Arrays a;
    a.q = widened ? q.widened() : q.array();
    a.k = widened ? k.widened() : k.array();
    a.v = widened ? v.widened() : v.array();
    return a;
  }
};

// What an engine makes of the inputs as stored, or of the floats that these stand for. All passes but the first resume.
template <class Engine>
Output outputs(const Case& c, const Arrays& inputs, const std::vector<EngineOptions>& passes,
               const std::function<void(const Engine&, const EngineArrays&, const Workspace&, std::size_t)>& run) {
  Problem p = c.p;
  p.dtype = inputs.q.dtype();
  p.kv_dtype = inputs.k.dtype();
  const auto rows = static_cast<std::size_t>(p.batch * p.heads * p.q_len);
  Output result{std::vector<float>(rows * static_cast<std::size_t>(p.value_dim), nan_value), std::vector<float>(rows, nan_value)};
  Arrays a = inputs;
  a.out = View<float, 4>(result.out.data(), {p.batch, p.heads, p.q_len, p.value_dim});
  EngineArrays arrays(a, {result.lse.data(), {p.batch, p.heads, p.q_len}});
  for (std::size_t i = 0; i < passes.size(); ++i) {
    WorkspacePlan plan(c.threads);
    EngineOptions options = passes[i];
    options.compute = Compute::f32;
    const Engine engine(p, options, plan);
    const Workspace workspace(plan, Workspace::Mode::checked);
    Arena(c.threads).execute([&] { run(engine, arrays, workspace, i); });
    CHECK(workspace.gaps_intact());
    arrays.resume = true;
  }
  return result;
}

void check_bits(const Output& stored, const Output& widened, const Case& c, const Types& types) {
  INFO(to_string(c.p) << " isa=" << active_isa() << " q=" << to_string(types.q) << " kv=" << to_string(types.kv));
  CHECK(test::same_bits(stored.out, widened.out));
  CHECK(test::same_bits(stored.lse, widened.lse));
}

void check_same(const Case& c, KeySchedule schedule) {
  for (const Types& types : pairs) {
    if (!holds(types, c.p)) continue;
    const Inputs inputs(c, types);
    const auto of = [&](bool widened) {
      return outputs<SoftmaxEngine>(c, inputs.arrays(widened), {c.options},
                                    [&](const auto& engine, const EngineArrays& arrays, const Workspace& workspace, std::size_t) {
                                      engine.run(arrays, workspace, schedule);
                                    });
    };
    check_bits(of(false), of(true), c, types);
  }
}

}  // namespace

TEST_CASE("softmax engine: what is stored in fewer bytes gives the bits of the floats that it stands for") {
  on_every_isa([] {
    for (const index_t d : {1, 33, 40, 64, 80, 256}) check_same(Case(shape(65, 150, d, d)), all_keys);
    for (const auto& [d, dv] : {std::pair{64, 1}, {33, 7}, {40, 96}}) check_same(Case(shape(50, 333, d, dv, true)), all_keys);
    check_same(Case(shape(500, 500, 32, 32, true)), all_keys);
    check_same(Case(shape(1, 500, 32, 32, true)), all_keys);
  });
}

TEST_CASE("softmax engine: so it does through windows, listed blocks and classes, and with sharp logits") {
  on_every_isa([] {
    Case local(shape(300, 300, 64, 64));
    local.options.keys_per_query = 41;
    check_same(local, [](const QueryBlock&, KeyList& keys) { keys.all().band(20, 20); });
    Case blocks(shape(256, 256, 64, 64));
    blocks.options.queries = QueryBlocks::aligned(64);
    static constexpr std::int32_t some[] = {0, 2, 3};
    check_same(blocks, [](const QueryBlock&, KeyList& keys) { keys.listed_blocks(some, 3, 64); });
    Case dilated(shape(200, 200, 40, 40));
    dilated.options.queries = QueryBlocks::classes(3);
    check_same(dilated, [](const QueryBlock& b, KeyList& keys) { keys.strided(b.first % 3, 3, 200).band(60, 60); });
    check_same(Case(shape(100, 400, 64, 64, true), 60.0), all_keys);
  });
}

TEST_CASE("softmax engine: so it does in several passes and threads") {
  Case c(shape(120, 700, 64, 32));
  for (const int threads : {1, 3}) {
    c.threads = threads;
    for (const Types& types : pairs) {
      if (!holds(types, c.p)) continue;
      const Inputs inputs(c, types);
      const auto of = [&](bool widened) {
        return outputs<SoftmaxEngine>(
            c, inputs.arrays(widened), {{}, {}},
            [&](const auto& engine, const EngineArrays& arrays, const Workspace& workspace, std::size_t pass) {
              engine.run(arrays, workspace,
                         [&](const QueryBlock&, KeyList& keys) { pass == 0 ? keys.range(0, 333) : keys.range(333, 367); });
            });
      };
      check_bits(of(false), of(true), c, types);
    }
  }
}

TEST_CASE("softmax engine: NaN, infinities and denormals do in bf16 what their floats do") {
  on_every_isa([] {
    Case c(shape(70, 200, 32, 32, true));
    c.v_row(60)[3] = nan_value;
    c.v_row(90)[5] = infinity;
    c.k_row(130)[1] = nan_value;
    c.k_row(150)[2] = -infinity;
    for (index_t x = 0; x < 32; x += 3) c.v_row(7)[x] = 1e-39f;
    const Inputs inputs(c, {DType::bf16, DType::bf16});
    const auto of = [&](bool widened) {
      return outputs<SoftmaxEngine>(c, inputs.arrays(widened), {{}},
                                    [&](const auto& engine, const EngineArrays& arrays, const Workspace& workspace, std::size_t) {
                                      engine.run(arrays, workspace, all_keys);
                                    });
    };
    const Output stored = of(false), widened = of(true);
    for (std::size_t i = 0; i < stored.out.size(); ++i) {
      const bool same = stored.out[i] == widened.out[i] || (std::isnan(stored.out[i]) && std::isnan(widened.out[i]));
      if (!same) FAIL("at " << i << ": " << stored.out[i] << ", not " << widened.out[i] << " isa=" << active_isa());
    }
  });
}

TEST_CASE("attention: few rows, many and ragged batches, from pages too, give the bits of the floats") {
  on_every_isa([] {
    Problem p{.batch = 3, .heads = 8, .kv_heads = 2, .q_len = 2, .kv_len = 600, .head_dim = 64, .value_dim = 96, .causal = true};
    p.ragged = true;
    const std::array<index_t, 3> lengths = {600, 77, 333};
    std::vector<std::int32_t> pages(30);  // 10 pages of 60 rows a sequence, the last first
    for (std::int32_t i = 0; i < 30; ++i) pages[static_cast<std::size_t>(i)] = 9 - i % 10;
    for (const index_t queries : {1, 2, 6, 40}) {
      p.q_len = queries;
      Case c(p);
      for (const bool paged : {false, true}) {
        for (const Types& types : pairs) {
          if (!holds(types, c.p)) continue;
          const Inputs inputs(c, types);
          const auto of = [&](bool widened) {
            Arrays a = inputs.arrays(widened);
            a.lengths = lengths;
            if (paged) {
              a.layout = {.pages = pages.data(), .pages_stride = 10, .page_rows = 60};
              a.layout.k_page_stride = 60 * a.k.stride(2);
              a.layout.v_page_stride = 60 * a.v.stride(2);
            }
            return outputs<Attention>(c, a, {{}},
                                      [&](const auto& engine, const EngineArrays& arrays, const Workspace& workspace, std::size_t) {
                                        engine.run(arrays, workspace, all_keys);
                                      });
          };
          check_bits(of(false), of(true), c, types);
        }
      }
    }
  });
}
