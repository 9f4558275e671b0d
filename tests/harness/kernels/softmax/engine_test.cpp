#include <array>
#include <cstring>

#include "harness/kernels/softmax/engine_case.hpp"

using namespace attn;
using namespace attn::kernels;
using namespace attn::kernels::engine_case;

TEST_CASE("full attention agrees with the definition in double at odd lengths") {
  on_every_isa([] {
    for (const index_t n : {1, 2, 7, 8, 15, 16, 17, 47, 48, 49, 63, 64, 65, 113, 500}) {
      check(Case(shape(n, n, 16, 16)), all_keys, always);
      check(Case(shape(n, n, 24, 24, true)), all_keys, always);
    }
  });
}

TEST_CASE("every head and value dimension is exact to float") {
  on_every_isa([] {
    for (const index_t d : {1, 2, 3, 5, 16, 33, 40, 64, 80, 96, 128, 255, 256}) check(Case(shape(65, 70, d, d)), all_keys, always);
    for (const auto& [d, dv] : {std::pair{64, 1}, {1, 64}, {33, 7}, {40, 80}, {7, 13}, {256, 12}, {16, 252}}) {
      check(Case(shape(50, 90, d, dv, true)), all_keys, always);
    }
  });
}

TEST_CASE("queries end where keys end") {
  on_every_isa([] {
    check(Case(shape(1, 500, 32, 32, true)), all_keys, always);
    check(Case(shape(63, 200, 32, 32, true)), all_keys, always);
    check(Case(shape(130, 65, 32, 32)), all_keys, always);
  });
}

TEST_CASE("a query before every key gets zeros and an lse of minus infinity") {
  on_every_isa([] {
    const Case c(shape(70, 40, 16, 16, true));
    check(c, all_keys, always);
    const Output got = run(c, all_keys);
    CHECK(got.out[0] == 0.0f);
    CHECK(got.lse[0] == -infinity);
    const Output none = run(c, [](const QueryBlock&, KeyList&) {});
    CHECK(std::all_of(none.out.begin(), none.out.end(), [](float x) { return x == 0.0f; }));
  });
}

TEST_CASE("grouped query heads read their group's keys") {
  Problem p = shape(65, 130, 32, 32, true);
  p.batch = 2, p.heads = 6, p.kv_heads = 2;
  check(Case(p), all_keys, always);
}

TEST_CASE("bands are cut lane by lane") {
  on_every_isa([] {
    for (const auto& [left, right] : {std::pair{0, 0}, {3, 5}, {64, 0}, {0, 17}, {100, 100}, {1000, 1000}, {-3, 9}}) {
      const auto allowed = [left = left, right = right](index_t, index_t i, index_t j) {
        return int{j >= i - left && j <= i + right};
      };
      const auto schedule = [left = left, right = right](const QueryBlock&, KeyList& keys) { keys.all().band(left, right); };
      for (const bool causal : {false, true}) {
        for (const index_t width : {index_t{1}, index_t{200}, anywhere}) {
          Case c(shape(260, 260, 16, 16, causal));
          c.options.keys_per_query = width;
          check(c, schedule, allowed);
        }
      }
      check(Case(shape(100, 260, 16, 16)), schedule, allowed);
    }
  });
}

TEST_CASE("residue classes serve dilated windows") {
  on_every_isa([] {
    for (const index_t step : {2, 3, 7, 64, 500}) {
      Case c(shape(230, 230, 16, 16));
      c.options.queries = QueryBlocks::classes(step);
      const index_t reach = 5 * step;
      const auto schedule = [&](const QueryBlock& block, KeyList& keys) {
        keys.strided(block.first % step, step, c.p.kv_len).band(reach, reach);
      };
      const auto allowed = [&](index_t, index_t i, index_t j) {
        return int{(i - j) % step == 0 && j >= i - reach && j <= i + reach};
      };
      check(c, schedule, allowed);
      c.p.causal = true;
      check(c, schedule, allowed);
    }
  });
}

TEST_CASE("aligned blocks never cross a multiple") {
  on_every_isa([] {
    for (const index_t b : {1, 5, 16, 48, 64, 128, 500}) {
      Case c(shape(300, 300, 16, 16));
      c.options.queries = QueryBlocks::aligned(b);
      check(
          c,
          [&](const QueryBlock& block, KeyList& keys) {
            CHECK((block.first + block.count - 1) / b == block.first / b);
            keys.range((block.first / b - 1) * b, 3 * b);
          },
          [&](index_t, index_t i, index_t j) { return int{std::abs(i / b - j / b) <= 1}; });
    }
  });
}

TEST_CASE("runs may list, repeat, stride, exclude and filter") {
  on_every_isa([] {
    const Case c(shape(150, 150, 16, 16));
    const std::vector<std::int32_t> chosen = {140, 3, 77, 3, 12};
    const auto in_list = [&](index_t j) { return static_cast<int>(std::count(chosen.begin(), chosen.end(), j)); };
    check(
        c, [&](const QueryBlock&, KeyList& keys) { keys.listed(chosen.data(), 5); },
        [&](index_t, index_t, index_t j) { return in_list(j); });
    check(
        c,
        [&](const QueryBlock&, KeyList& keys) {
          keys.all().band(10, 10);
          keys.listed(chosen.data(), 5).outside(10, 10);
        },
        [&](index_t, index_t i, index_t j) { return std::abs(i - j) <= 10 ? 1 : in_list(j); });
    const std::vector<std::int32_t> blocks = {9, 0, 4};
    check(
        c,
        [&](const QueryBlock&, KeyList& keys) {
          keys.listed_blocks(blocks.data(), 3, 16);
          keys.blocks(5, 32, 100, 3);
        },
        [&](index_t, index_t, index_t j) {
          return int{j / 16 == 9 || j / 16 == 0 || j / 16 == 4} + int{j >= 5 && (j - 5) % 32 < 3};
        });
    const auto odd = [](index_t i, index_t j) { return (i * 7 + j * 3) % 5 < 2; };
    check(
        c, [&](const QueryBlock&, KeyList& keys) { keys.all().where(odd); },
        [&](index_t i, index_t, index_t j) { return int{odd(i, j)}; });
  });
}

TEST_CASE("pairs may be excepted bit by bit") {
  on_every_isa([] {
    for (const index_t n : {5, 64, 150}) {  // rows of 48 and of 16 lanes, across words and into the last
      const Case c(shape(n, 150, 16, 16));
      const index_t words = (n + 63) / 64;
      // Whole steps of keys that every query sees, that none does, and that some do.
      const auto hidden = [](index_t i, index_t j) { return j / 16 % 3 == 1 || (j / 16 % 3 == 2 && (i * 7 + j * 3) % 5 < 2); };
      std::vector<std::uint64_t> bits(static_cast<std::size_t>(150 * words));
      for (index_t i = 0; i < n; ++i) {
        for (index_t j = 0; j < 150; ++j)
          bits[static_cast<std::size_t>(j * words + i / 64)] |= std::uint64_t{hidden(i, j)} << (i % 64);
      }
      check(
          c, [&](const QueryBlock&, KeyList& keys) { keys.all().except(bits.data(), words); },
          [&](index_t i, index_t, index_t j) { return int{!hidden(i, j)}; });
      check(
          c, [&](const QueryBlock&, KeyList& keys) { keys.all().except(bits.data(), words).band(20, 10); },
          [&](index_t i, index_t position, index_t j) { return int{!hidden(i, j) && j >= position - 20 && j <= position + 10}; });
    }
  });
}

TEST_CASE("queries may come as lists of rows") {
  on_every_isa([] {
    for (const bool causal : {false, true}) {
      Case c(shape(200, 200, 16, 16, causal));
      std::vector<std::int32_t> order(200);
      for (index_t i = 0; i < 200; ++i) order[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i * 77 % 200);
      c.options.queries = QueryBlocks::listed(3, 90);
      const Output got =
          run_passes(c, {c.options}, [&](const SoftmaxEngine& engine, EngineArrays arrays, const Workspace& workspace) {
            engine.run(
                arrays, workspace,
                [&](index_t, index_t, index_t block) {
                  return std::span<const std::int32_t>(order).subspan(static_cast<std::size_t>(90 * block), block == 2 ? 20 : 90);
                },
                [](const QueryBlock&, KeyList& keys) { keys.all().band(30, 50); });
          });
      const Reference want = reference(c, [](index_t, index_t i, index_t j) { return int{j >= i - 30 && j <= i + 50}; });
      CHECK(distance(got.out, want.out) < 3e-6);
      CHECK(distance(got.lse, want.lse) < 1e-5);
    }
  });
}

TEST_CASE("passes add up by lse") {
  constexpr index_t step = 16;
  EngineOptions columns;
  columns.queries = QueryBlocks::classes(step);
  const auto both_passes = [&](const Case& c) {
    int pass = 0;
    return run_passes(
        c, {EngineOptions{}, columns}, [&](const SoftmaxEngine& engine, EngineArrays arrays, const Workspace& workspace) {
          if (pass++ == 0) {
            engine.run(arrays, workspace, [](const QueryBlock&, KeyList& keys) { keys.all().band(12, -2); });
          } else {
            engine.run(arrays, workspace,
                       [](const QueryBlock& block, KeyList& keys) { keys.strided(block.first % step, step, 200).outside(12, -2); });
          }
        });
  };
  const auto seen = [](index_t, index_t i, index_t j) { return int{(j >= i - 12 && j <= i - 2) || (i - j) % step == 0}; };
  on_every_isa([&] {
    for (const index_t value_dim : {16, 7}) {
      for (const double logit_scale : {1.0, 80.0}) {
        const Case c(shape(200, 200, 16, value_dim, true), logit_scale);
        const Output got = both_passes(c);
        const Reference want = reference(c, seen);
        CHECK(distance(got.out, want.out) < 3e-6 * logit_scale);
        CHECK(distance(got.lse, want.lse) < 1e-5 * logit_scale);
      }
    }
  });
}

TEST_CASE("keys are split where queries are few, with the same bits every time") {
  on_every_isa([] {
    for (const index_t q_len : {1, 5, 100}) {
      for (const int threads : {2, 3, 8}) {
        Case c({.batch = 1,
                .heads = 1,
                .kv_heads = 1,
                .q_len = q_len,
                .kv_len = 2100,
                .head_dim = 16,
                .value_dim = 16,
                .causal = true});
        c.threads = threads;
        check(c, all_keys, always);
        const Output first = run(c, all_keys);
        for (int repeat = 0; repeat < 3; ++repeat) {
          const Output again = run(c, all_keys);
          CHECK(std::memcmp(first.out.data(), again.out.data(), first.out.size() * sizeof(float)) == 0);
          CHECK(std::memcmp(first.lse.data(), again.lse.data(), first.lse.size() * sizeof(float)) == 0);
        }
      }
    }
  });
}

TEST_CASE("threads do not change the result") {
  Case c({.batch = 2, .heads = 3, .kv_heads = 3, .q_len = 700, .kv_len = 700, .head_dim = 32, .value_dim = 32, .causal = true});
  for (const int threads : {1, 2, 5}) {
    c.threads = threads;
    check(c, all_keys, always);
  }
}

// Rows of one tile whose logits reach from nothing to thousands: each takes its own way.
TEST_CASE("strided views are read and written in place") {
  const Case c(shape(100, 100, 32, 32, true));
  const Problem& p = c.p;
  // [B,N,H,D] in memory, seen as [B,H,N,D], with a margin after each row.
  const index_t row = p.heads * p.head_dim + 5;
  const auto spread = [&](const std::vector<float>& from) {
    std::vector<float> to(static_cast<std::size_t>(p.q_len * row), nan_value);
    for (index_t h = 0; h < p.heads; ++h)
      for (index_t i = 0; i < p.q_len; ++i)
        for (index_t x = 0; x < p.head_dim; ++x)
          to[static_cast<std::size_t>(i * row + h * p.head_dim + x)] =
              from[static_cast<std::size_t>((h * p.q_len + i) * p.head_dim + x)];
    return to;
  };
  const std::vector<float> q = spread(c.q), k = spread(c.k), v = spread(c.v);
  std::vector<float> out(q.size(), 42.0f);
  const std::array<index_t, 4> extents{1, p.heads, p.q_len, p.head_dim}, strides{p.q_len * row, p.head_dim, row, 1};
  WorkspacePlan plan(1);
  const SoftmaxEngine engine(p, {}, plan);
  const Workspace workspace(plan, Workspace::Mode::checked);
  Arena(1).execute([&] {
    engine.run(
        {{q.data(), extents, strides}, {k.data(), extents, strides}, {v.data(), extents, strides}, {out.data(), extents, strides}},
        workspace, all_keys);
  });
  std::vector<float> want = spread(run(c, all_keys).out);
  for (std::size_t i = 0; i < out.size(); ++i) CHECK(out[i] == (std::isnan(want[i]) ? 42.0f : want[i]));
}

// Such rows all fall into the same few sets of a cache, so the engine treats them apart.
TEST_CASE("rows 4 KiB apart give the bits of dense rows") {
  on_every_isa([] {
    const Case c(shape(150, 333, 24, 40));
    const Problem& p = c.p;
    constexpr index_t row = 1024;
    const auto spread = [&](const std::vector<float>& from, index_t rows, index_t floats) {
      std::vector<float> to(static_cast<std::size_t>(p.heads * rows * row), nan_value);
      for (index_t r = 0; r < p.heads * rows; ++r) std::copy_n(from.begin() + r * floats, floats, to.begin() + r * row);
      return to;
    };
    const std::vector<float> k = spread(c.k, p.kv_len, p.head_dim), v = spread(c.v, p.kv_len, p.value_dim);
    const auto narrow = [](const QueryBlock&, KeyList& keys) { keys.all().band(40, 30); };
    const auto lists = [](const QueryBlock&, KeyList& keys) {
      keys.strided(1, 3, 50);
      keys.blocks(7, 100, 3, 11);
    };
    for (const KeySchedule schedule : {KeySchedule(all_keys), KeySchedule(narrow), KeySchedule(lists)}) {
      for (const bool k_apart : {false, true}) {
        for (const bool v_apart : {false, true}) {
          const Output dense = run(c, schedule);
          const Output apart =
              run_passes(c, {c.options}, [&](const SoftmaxEngine& engine, EngineArrays arrays, const Workspace& workspace) {
                if (k_apart)
                  arrays.k = View<const float, 4>{k.data(), {1, p.heads, p.kv_len, p.head_dim}, {p.heads * p.kv_len * row, p.kv_len * row, row, 1}};
                if (v_apart)
                  arrays.v = View<const float, 4>{v.data(), {1, p.heads, p.kv_len, p.value_dim}, {p.heads * p.kv_len * row, p.kv_len * row, row, 1}};
                engine.run(arrays, workspace, schedule);
              });
          CHECK(std::memcmp(dense.out.data(), apart.out.data(), dense.out.size() * sizeof(float)) == 0);
          CHECK(std::memcmp(dense.lse.data(), apart.lse.data(), dense.lse.size() * sizeof(float)) == 0);
        }
      }
    }
  });
}
