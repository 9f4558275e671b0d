// Lists of keys: of queries and of heads of their own, of stretches, and what a run adds to that of another.
#include "attn/kernels/rows/rows_engine.hpp"
#include "harness/kernels/rows/cache.hpp"

using namespace attn;
using namespace attn::kernels;
using namespace attn::kernels::test;

namespace {

constexpr double bound = 3e-6;

Problem problem(index_t heads, index_t kv_heads, index_t step, index_t keys, bool causal = true) {
  return {.batch = 2,
          .heads = heads,
          .kv_heads = kv_heads,
          .q_len = step,
          .kv_len = keys,
          .head_dim = 24,
          .value_dim = 40,
          .causal = causal};
}

}  // namespace

TEST_CASE("rows: queries apart, and heads apart, each have the keys of their own list") {
  const auto sees = [](index_t head, index_t position, index_t key) { return (key + head) % 3 == position % 3; };
  const auto list = [](const QueryBlock& block, KeyList& keys) {
    CHECK(block.count == 1);
    const index_t first = ((block.position(0) - block.head) % 3 + 3) % 3;
    keys.strided(first, 3, keys.kv_len());
  };
  const RowsEngine::Schedule schedule = list;
  for (const bool causal : {true, false}) {
    for (const int threads : {1, 3}) {
      // One query head a kv head, so that `error` knows the head.
      Decode decode(problem(3, 3, 4, 700, causal), {700, 31});
      decode.run(threads, nullptr, &schedule, {.apart = true, .heads_apart = true});
      INFO("causal " << causal << ", " << threads << " threads");
      CHECK(decode.error([&](index_t b, index_t head, index_t query, index_t key) {
        return sees(head, decode.length(b) - 4 + query, key);
      }) < bound);
    }
  }
}

TEST_CASE("rows: heads apart that share a kv head have the bits of heads that share a list, where the lists are alike") {
  const auto list = [](const QueryBlock&, KeyList& keys) { keys.all().band(90, 0); };
  const RowsEngine::Schedule schedule = list;
  Decode together(problem(2, 1, 1, 300)), apart(problem(2, 1, 1, 300));
  together.run(1, nullptr, &schedule);
  apart.run(2, nullptr, &schedule, {.heads_apart = true});
  CHECK(together.error([&](index_t, index_t, index_t, index_t key) { return key >= 299 - 90; }) < bound);
  CHECK(apart.error([&](index_t, index_t, index_t, index_t key) { return key >= 299 - 90; }) < bound);
}

TEST_CASE("rows: a list of many stretches takes the room of a few, whatever its ends") {
  for (const auto& [first, step, width] : {std::tuple<index_t, index_t, index_t>{5, 32, 8}, {-3, 16, 7}, {0, 9, 9}, {2, 5, 1}}) {
    for (const auto& [left, right] : {std::pair<index_t, index_t>{anywhere, anywhere}, {900, 0}, {37, 2}, {901, -300}}) {
      for (const bool outside : {false, true}) {
        for (const index_t step_rows : {1, 3}) {
          const auto list = [&, first = first, step = step, width = width, left = left, right = right](const QueryBlock&,
                                                                                                       KeyList& keys) {
            KeyRun& run = keys.blocks(first, step, 400, width).band(left, right);
            if (outside) run.outside(50, -20);
          };
          const RowsEngine::Schedule schedule = list;
          Decode decode(problem(4, 2, step_rows, 1300, false), {1300, 77});
          decode.run(2, nullptr, &schedule, {.spans = 6});
          INFO(first << " + " << step << " e, " << width << " wide, " << left << " to " << right << ", outside " << outside);
          REQUIRE(decode.error([&, first = first, step = step, width = width, left = left, right = right](
                                   index_t b, index_t, index_t query, index_t key) {
            const index_t distance = key - (decode.length(b) - step_rows + query);
            const bool listed = key >= first && (key - first) % step < width;
            return listed && distance >= -left && distance <= right && !(outside && distance >= -50 && distance <= -20);
          }) < bound);
        }
      }
    }
  }
}

TEST_CASE("rows: going on among other keys is one softmax over both") {
  const auto old = [](const QueryBlock&, KeyList& keys) { keys.all().band(anywhere, -100); };
  const auto recent = [](const QueryBlock&, KeyList& keys) { keys.all().band(99, 0); };
  const RowsEngine::Schedule before = old, after = recent;
  on_every_isa([&] {
    for (const index_t heads : {2, 6, 40}) {
      // The short sequence has recent keys only.
      Decode decode(problem(heads, 2, 2, 1100), {1100, 60});
      WorkspacePlan plan(2);
      const RowsEngine engine(decode.p, {}, plan);
      const Workspace workspace(plan, Workspace::Mode::checked);
      for (const bool recent_first : {false, true}) {
        RowsArrays arrays = decode.arrays();
        Arena(2).execute([&] {
          engine.run(arrays, decode.lengths, workspace, recent_first ? after : before);
          arrays.resume = true;
          engine.run(arrays, decode.lengths, workspace, recent_first ? before : after);
        });
        INFO(heads << " heads, recent first " << recent_first);
        CHECK(decode.error() < bound);
      }
    }
  });
}

TEST_CASE("rows: pinned keys and a ring give the bits of the same keys in a row") {
  constexpr index_t pinned = 5, ring = 130, rows = pinned + ring;
  const auto list = [](const QueryBlock&, KeyList& keys) {
    keys.range(0, pinned).outside(120, 0);
    keys.all().band(120, 0);
  };
  const RowsEngine::Schedule schedule = list;
  for (const index_t length : {3, 60, 135, 136, 700}) {
    Decode decode(problem(4, 2, 3, 700), {700, length});
    decode.run(1, nullptr, &schedule);
    const std::vector<float> plain = decode.out;
    std::vector<float> k(2 * 2 * rows * 24, unset), v(2 * 2 * rows * 40, unset);
    const KeyLayout layout{.pinned = pinned, .ring = ring};
    for (index_t b = 0; b < 2; ++b) {
      for (index_t h = 0; h < 2; ++h) {
        for (index_t j = 0; j < decode.length(b); ++j) {
          const index_t row = (b * 2 + h) * rows + layout.row(j);
          std::copy_n(decode.key(b, h, j), 24, k.data() + row * 24);
          std::copy_n(decode.value(b, h, j), 40, v.data() + row * 40);
        }
      }
    }
    RowsArrays arrays = decode.arrays();
    arrays.k = View<const float, 4>{k.data(), {2, 2, rows, 24}};
    arrays.v = View<const float, 4>{v.data(), {2, 2, rows, 40}};
    arrays.layout = layout;
    decode.run(2, &arrays, &schedule);
    INFO("length " << length);
    CHECK(same_bits(plain, decode.out));
  }
}
