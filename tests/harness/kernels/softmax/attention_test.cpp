#include "attn/kernels/softmax/attention.hpp"

#include "harness/kernels/rows/cache.hpp"

using namespace attn;
using namespace attn::kernels;
using namespace attn::kernels::test;

namespace {

Problem problem(index_t heads, index_t kv_heads, index_t queries, index_t keys, Pass pass = Pass::forward) {
  return {.batch = 2,
          .heads = heads,
          .kv_heads = kv_heads,
          .q_len = queries,
          .kv_len = keys,
          .head_dim = 32,
          .value_dim = 48,
          .causal = true,
          .pass = pass};
}

template <class Engine, class Options>
index_t booked(const Problem& p, const Options& options) {
  WorkspacePlan plan(2, p.pass);
  const Engine engine(p, options, plan);
  return plan.bytes();
}

EngineArrays engine_arrays(Decode& decode) {
  const RowsArrays a = decode.arrays();
  return {a.q.f32(), a.k.f32(), a.v.f32(), a.out, a.lse};
}

// Of each sequence of a ragged batch alone, against what the batch has for it.
void check_alone(const Problem& p, const std::vector<index_t>& lengths, const EngineOptions& options, KeySchedule schedule) {
  const auto attend = [&](Decode& decode, const Problem& own, bool ragged) {
    std::fill(decode.out.begin(), decode.out.end(), unset);
    WorkspacePlan plan(2, own.pass);
    const Attention engine(own, options, plan);
    const Workspace workspace(plan, Workspace::Mode::checked);
    EngineArrays arrays = engine_arrays(decode);
    if (ragged) arrays.lengths = decode.lengths;
    Arena(2).execute([&] { engine.run(arrays, workspace, schedule); });
    CHECK(workspace.gaps_intact());
  };
  Problem whole = p;
  whole.ragged = true;
  Decode batch(whole, lengths);
  attend(batch, whole, true);
  for (index_t b = 0; b < p.batch; ++b) {
    const index_t length = lengths[static_cast<std::size_t>(b)];
    const Problem own = whole.sequence(length);
    Decode alone(own);
    for (index_t h = 0; h < p.heads; ++h)
      for (index_t i = 0; i < own.q_len; ++i) std::copy_n(batch.query(b, h, i), p.head_dim, alone.query(0, h, i));
    for (index_t h = 0; h < p.kv_heads; ++h) {
      for (index_t j = 0; j < length; ++j) {
        std::copy_n(batch.key(b, h, j), p.head_dim, alone.key(0, h, j));
        std::copy_n(batch.value(b, h, j), p.value_dim, alone.value(0, h, j));
      }
    }
    attend(alone, own, false);
    INFO(to_string(p) << ", sequence " << b << " of length " << length);
    for (index_t h = 0; h < p.heads; ++h) {
      for (index_t i = 0; i < p.q_len; ++i) {
        const float* const found = batch.result(b, h, i);
        if (i < own.q_len)
          REQUIRE(std::memcmp(found, alone.result(0, h, i), static_cast<std::size_t>(p.value_dim) * sizeof(float)) == 0);
        else
          REQUIRE(std::all_of(found, found + p.value_dim, [](float x) { return x == 0; }));
      }
    }
  }
}

}  // namespace

TEST_CASE(
    "attention: prefill and training book what the softmax engine books, a few queries against a cache what the rows engine does") {
  for (const Problem& p :
       {problem(4, 2, 300, 300), problem(4, 4, 1, 1), problem(4, 2, 200, 900), problem(4, 2, 1, 900, Pass::forward_backward)})
    CHECK(booked<Attention>(p, EngineOptions{}) == booked<SoftmaxEngine>(p, EngineOptions{}));
  const EngineOptions listed{.queries = QueryBlocks::listed(1, 4)};
  CHECK(booked<Attention>(problem(4, 2, 1, 900), listed) == booked<SoftmaxEngine>(problem(4, 2, 1, 900), listed));
  for (const Problem& p : {problem(4, 2, 1, 900), problem(4, 2, 1, 1, Pass::decode), problem(4, 2, 4, 900)})
    CHECK(booked<Attention>(p, EngineOptions{}) == booked<RowsEngine>(p, RowsOptions{.spans = EngineOptions{}.stretches}));
}

TEST_CASE("attention: queries in aligned blocks and in classes see the same keys by either engine") {
  for (const index_t queries : {1, 3, 40}) {
    Decode decode(problem(2, 2, queries, 333), {333, 333});
    const auto own_block = [](const QueryBlock& block, KeyList& keys) { keys.range(block.position(0) / 50 * 50, 50); };
    const auto own_class = [](const QueryBlock& block, KeyList& keys) { keys.strided(block.position(0) % 7, 7, keys.kv_len()); };
    const auto run = [&](const EngineOptions& options, KeySchedule schedule) {
      WorkspacePlan plan(2);
      const Attention engine(decode.p, options, plan);
      const Workspace workspace(plan, Workspace::Mode::checked);
      Arena(2).execute([&] { engine.run(engine_arrays(decode), workspace, schedule); });
    };
    INFO(queries << " queries");
    run({.queries = QueryBlocks::aligned(50)}, own_block);
    CHECK(decode.error([&](index_t, index_t, index_t i, index_t j) { return j / 50 == (333 - queries + i) / 50; }) < 3e-6);
    run({.queries = QueryBlocks::classes(7)}, own_class);
    CHECK(decode.error([&](index_t, index_t, index_t i, index_t j) { return j % 7 == (333 - queries + i) % 7; }) < 3e-6);
  }
}

TEST_CASE("attention: a sequence of a ragged batch has the bits that it has alone, and padding is never read") {
  const auto window = [](const QueryBlock&, KeyList& keys) { keys.all().band(70, 0); };
  Problem prefill = problem(2, 1, 900, 900);
  prefill.batch = 4;
  check_alone(prefill, {900, 1, 411, 100}, {}, all_keys);
  check_alone(prefill, {900, 30, 412, 0}, {.keys_per_query = 71}, window);
  for (const index_t queries : {1, 20, 40}) {
    Problem step = problem(4, 2, queries, 2000, Pass::decode);
    step.batch = 3;
    check_alone(step, {2000, queries, 700}, {}, all_keys);
    check_alone(step, {2000, queries, 700}, {.keys_per_query = 71}, window);
    check_alone(step, {2000, 651, 700}, {.queries = QueryBlocks::aligned(50)},
                [](const QueryBlock& block, KeyList& keys) { keys.range(block.position(0) / 50 * 50, 50); });
  }
}

TEST_CASE("attention: pages and rings give the bits of keys in a row, to many queries as well") {
  constexpr index_t page = 16, pages = 60, ring = 400;
  const auto window = [](const QueryBlock&, KeyList& keys) { keys.all().band(300, 0); };
  for (const index_t queries : {1, 90}) {
    Decode decode(problem(4, 1, queries, 900));
    WorkspacePlan plan(2);
    const Attention engine(decode.p, {}, plan);
    const Workspace workspace(plan, Workspace::Mode::checked);
    const auto run = [&](const EngineArrays& arrays) {
      std::fill(decode.out.begin(), decode.out.end(), unset);
      Arena(2).execute([&] { engine.run(arrays, workspace, window); });
      return decode.out;
    };
    const std::vector<float> plain = run(engine_arrays(decode));

    std::vector<float> pk(2 * pages * page * 32, unset), pv(2 * pages * page * 48, unset);
    std::vector<float> rk(2 * ring * 32, unset), rv(2 * ring * 48, unset);
    std::vector<std::int32_t> table(2 * pages);
    for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::int32_t>((i * 77 + 5) % table.size());
    const KeyLayout in_ring{.ring = ring};
    for (index_t b = 0; b < 2; ++b) {
      for (index_t j = 0; j < 900; ++j) {
        const index_t row = table[static_cast<std::size_t>(b * pages + j / page)] * page + j % page;
        std::copy_n(decode.key(b, 0, j), 32, pk.data() + row * 32);
        std::copy_n(decode.value(b, 0, j), 48, pv.data() + row * 48);
        std::copy_n(decode.key(b, 0, j), 32, rk.data() + (b * ring + in_ring.row(j)) * 32);
        std::copy_n(decode.value(b, 0, j), 48, rv.data() + (b * ring + in_ring.row(j)) * 48);
      }
    }
    INFO(queries << " queries");
    EngineArrays arrays = engine_arrays(decode);
    arrays.k = View<const float, 4>{pk.data(), {2, 1, page, 32}, {0, 0, 32, 1}};
    arrays.v = View<const float, 4>{pv.data(), {2, 1, page, 48}, {0, 0, 48, 1}};
    arrays.layout = {
        .pages = table.data(), .pages_stride = pages, .page_rows = page, .k_page_stride = page * 32, .v_page_stride = page * 48};
    CHECK(same_bits(run(arrays), plain));
    arrays.k = View<const float, 4>{rk.data(), {2, 1, ring, 32}};
    arrays.v = View<const float, 4>{rv.data(), {2, 1, ring, 48}};
    arrays.layout = in_ring;
    CHECK(same_bits(run(arrays), plain));
  }
}
