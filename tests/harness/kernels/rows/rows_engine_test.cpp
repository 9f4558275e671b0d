#include "attn/kernels/rows/rows_engine.hpp"

#include "harness/kernels/rows/cache.hpp"

using namespace attn;
using namespace attn::kernels;
using namespace attn::kernels::test;

namespace {

// Of fp32 sums over a part of 512 keys, over the largest value.
constexpr double bound = 3e-6;

Problem problem(index_t batch, index_t heads, index_t kv_heads, index_t step, index_t keys, index_t d, index_t dv,
                bool causal = true) {
  return {.batch = batch,
          .heads = heads,
          .kv_heads = kv_heads,
          .q_len = step,
          .kv_len = keys,
          .head_dim = d,
          .value_dim = dv,
          .causal = causal};
}

}  // namespace

TEST_CASE("rows: decoding agrees with double at any number of rows, widths and lengths") {
  on_every_isa([] {
    for (const index_t group : {1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 32, 50}) {
      for (const auto& [d, dv] : {std::pair<index_t, index_t>{64, 64}, {40, 72}, {128, 96}, {17, 3}}) {
        for (const index_t keys : {1, 13, 130}) {
          Decode decode(problem(1, 2 * group, 2, 1, keys, d, dv));
          decode.run();
          INFO(group << " rows, D=" << d << ", Dv=" << dv << ", " << keys << " keys");
          REQUIRE(decode.error() < bound);
        }
      }
    }
  });
}

TEST_CASE("rows: every width from 1 to 256 is a width") {
  for (const index_t rows : {1, 2, 4, 20}) {
    for (index_t d = 1; d <= 256; d += d < 70 ? 1 : 31) {
      Decode decode(problem(1, rows, 1, 1, 37, d, 257 - d));
      decode.run();
      INFO(rows << " rows, D=" << d << ", Dv=" << 257 - d);
      REQUIRE(decode.error() < bound);
    }
  }
}

TEST_CASE("rows: lengths around every block and part agree with double") {
  for (const index_t group : {1, 4, 18}) {
    for (const index_t keys : {15, 16, 17, 31, 32, 33, 127, 128, 129, 511, 512, 513, 1024, 1025, 1537}) {
      Decode decode(problem(1, group, 1, 1, keys, 32, 16));
      decode.run();
      INFO(group << " rows, " << keys << " keys");
      REQUIRE(decode.error() < bound);
    }
  }
}

TEST_CASE("rows: a step of several tokens is causal at the end, or sees all where the problem is not causal") {
  on_every_isa([] {
    for (const index_t step : {2, 3, 8, 64}) {
      for (const index_t keys : {1, 2, 8, 63, 64, 65, 600}) {
        for (const bool causal : {true, false}) {
          Decode decode(problem(1, 4, 2, step, keys, 24, 20, causal));
          decode.run();
          INFO(step << " tokens, " << keys << " keys, causal " << causal);
          REQUIRE(decode.error() < bound);
        }
      }
    }
  });
}

TEST_CASE("rows: a sequence in a ragged batch has the bits that it has alone, and padding is never read") {
  const std::vector<index_t> lengths{700, 1, 0, 3000, 513, 30, 512, 1024};
  for (const index_t group : {1, 3, 8, 20}) {
    Decode batch(problem(8, 2 * group, 2, 2, 3000, 32, 48), lengths);
    batch.run(2);
    REQUIRE(batch.error() < bound);
    for (index_t b = 0; b < 8; ++b) {
      Decode alone(problem(1, 2 * group, 2, 2, lengths[static_cast<std::size_t>(b)], 32, 48));
      for (index_t h = 0; h < 2 * group; ++h) {
        for (index_t i = 0; i < 2; ++i) std::copy_n(batch.query(b, h, i), 32, alone.query(0, h, i));
      }
      for (index_t h = 0; h < 2; ++h) {
        for (index_t j = 0; j < alone.p.kv_len; ++j) {
          std::copy_n(batch.key(b, h, j), 32, alone.key(0, h, j));
          std::copy_n(batch.value(b, h, j), 48, alone.value(0, h, j));
        }
      }
      alone.run();
      const auto begin = batch.out.begin() + b * static_cast<index_t>(alone.out.size());
      INFO("sequence " << b << ", " << group << " rows");
      REQUIRE(same_bits(alone.out, {begin, begin + static_cast<index_t>(alone.out.size())}));
    }
  }
}

TEST_CASE("rows: results have the same bits on 1, 2, 3 and 8 threads") {
  for (const index_t group : {1, 4, 6, 24}) {
    Decode decode(problem(2, group, 1, 1, 5000, 64, 64), {5000, 1700});
    decode.run(1);
    REQUIRE(decode.error() < bound);
    const std::vector<float> once = decode.out, lse = decode.lse;
    for (const int threads : {2, 3, 8}) {
      decode.run(threads);
      INFO(group << " rows, " << threads << " threads");
      REQUIRE(same_bits(once, decode.out));
      REQUIRE(same_bits(lse, decode.lse));
    }
  }
}

TEST_CASE("rows: what a row sees does not depend on the room of the cache") {
  Decode small(problem(1, 4, 1, 1, 900, 64, 64));
  small.run();
  Decode large(problem(1, 4, 1, 1, 4000, 64, 64), {900});
  large.q = small.q;
  std::copy(small.k.begin(), small.k.end(), large.k.begin());
  std::copy(small.v.begin(), small.v.end(), large.v.begin());
  large.run(2);
  CHECK(same_bits(small.out, large.out));
}

TEST_CASE("rows: an empty sequence gives zeros, and so do rows before the first key") {
  for (const index_t group : {1, 4, 17}) {
    Decode decode(problem(3, group, 1, 4, 10, 16, 16), {0, 1, 3});
    decode.run();
    REQUIRE(decode.error() < bound);  // asks for exact zeros there
    for (index_t c = 0; c < 16; ++c) REQUIRE(decode.result(1, 0, 0)[c] == 0.0f);
    CHECK(decode.lse[0] == -INFINITY);
  }
}

TEST_CASE("rows: no keys at all, in a cache without room") {
  Decode decode(problem(1, 2, 1, 1, 0, 8, 8));
  decode.run();
  CHECK(decode.error() == 0);
}

TEST_CASE("rows: schedules say which keys are seen: windows, sinks, strides, blocks and numbers") {
  static const std::vector<std::int32_t> numbers{0, 7, 8, 9, 250, 251, 700, 1100};
  struct Pattern {
    const char* name;
    std::function<void(const QueryBlock&, KeyList&)> list;
    std::function<bool(index_t distance, index_t key)> sees;  // distance: key's position less the query's
  };
  const std::vector<Pattern> patterns{
      {"window", [](const QueryBlock&, KeyList& keys) { keys.all().band(100, 0); },
       [](index_t distance, index_t) { return distance >= -100 && distance <= 0; }},
      {"window both ways", [](const QueryBlock&, KeyList& keys) { keys.all().band(40, 2); },
       [](index_t distance, index_t) { return distance >= -40 && distance <= 2; }},
      {"sinks and window",
       [](const QueryBlock&, KeyList& keys) {
         keys.range(0, 4).outside(128, 0);
         keys.all().band(128, 0);
       },
       [](index_t distance, index_t key) { return (distance >= -128 && distance <= 0) || key < 4; }},
      {"strided",
       [](const QueryBlock&, KeyList& keys) {
         keys.strided(5, 7, anywhere / 8).band(anywhere, -7);
         keys.all().band(6, 0);
       },
       [](index_t distance, index_t key) { return (distance >= -6 && distance <= 0) || (key % 7 == 5 && distance <= -7); }},
      {"blocks", [](const QueryBlock&, KeyList& keys) { keys.blocks(24, 32, 1000, 8); },
       [](index_t, index_t key) { return key % 32 >= 24; }},
      {"numbers", [](const QueryBlock&, KeyList& keys) { keys.listed(numbers.data(), static_cast<index_t>(numbers.size())); },
       [](index_t, index_t key) {
         return std::find(numbers.begin(), numbers.end(), static_cast<std::int32_t>(key)) != numbers.end();
       }},
      {"all but the window", [](const QueryBlock&, KeyList& keys) { keys.all().outside(20, 0); },
       [](index_t distance, index_t) { return distance < -20 || distance > 0; }},
  };
  on_every_isa([&] {
    for (const Pattern& pattern : patterns) {
      for (const index_t group : {1, 3, 20}) {
        for (const index_t step : {1, 5}) {
          for (const bool causal : {true, false}) {
            Decode decode(problem(2, group, 1, step, 1200, 24, 24, causal), {1200, 90});
            const RowsEngine::Schedule schedule = pattern.list;
            decode.run(2, nullptr, &schedule);
            INFO(pattern.name << ", " << group << " rows, step " << step << ", causal " << causal);
            REQUIRE(decode.error([&](index_t b, index_t, index_t query, index_t key) {
              return pattern.sees(key - (decode.length(b) - step + query), key);
            }) < bound);
          }
        }
      }
    }
  });
}

TEST_CASE("rows: a predicate decides pair by pair, and a schedule may differ between kv heads") {
  const auto odd = [](index_t query, index_t key) { return (query + key) % 3 != 0; };
  const auto list = [&](const QueryBlock& block, KeyList& keys) {
    CHECK(block.head == 2 * block.kv_head);
    if (block.kv_head == 0)
      keys.range(10, 50).where(odd);
    else
      keys.range(60, 20);
  };
  const RowsEngine::Schedule schedule = list;
  for (const index_t step : {1, 4}) {
    Decode decode(problem(1, 4, 2, step, 100, 16, 16));
    decode.run(1, nullptr, &schedule);
    CHECK(decode.error([&](index_t, index_t kv_head, index_t query, index_t key) {
      return kv_head == 0 ? key >= 10 && key < 60 && odd(query, key) : key >= 60 && key < 80;
    }) < bound);
  }
}

TEST_CASE("rows: a key that two runs list counts twice") {
  const auto list = [](const QueryBlock&, KeyList& keys) {
    keys.all();
    keys.range(3, 1);
  };
  const RowsEngine::Schedule schedule = list;
  Decode twice(problem(1, 1, 1, 1, 6, 8, 8));
  twice.run(1, nullptr, &schedule, {.keys = 7});
  // The same by a seventh key that is a copy.
  Decode copied(problem(1, 1, 1, 1, 7, 8, 8));
  copied.q = twice.q;
  for (index_t j = 0; j < 7; ++j) {
    std::copy_n(twice.key(0, 0, j < 6 ? j : 3), 8, copied.key(0, 0, j));
    std::copy_n(twice.value(0, 0, j < 6 ? j : 3), 8, copied.value(0, 0, j));
  }
  copied.run();
  CHECK(same_bits(copied.out, twice.out));
}

TEST_CASE("rows: a ring, and pages in any order, give the bits of the same keys in a row") {
  for (const index_t group : {1, 4, 20}) {
    for (const index_t step : {1, 3}) {
      Decode decode(problem(2, group, 1, step, 1500, 32, 48), {1500, 1111});
      const auto window = [](const QueryBlock&, KeyList& keys) { keys.all().band(700, 0); };
      const RowsEngine::Schedule schedule = window;
      decode.run(1, nullptr, &schedule);
      const std::vector<float> plain = decode.out;

      constexpr index_t ring = 720, page = 16, pages = 96;
      const index_t ks = 32, vs = 48;
      std::vector<float> rk(static_cast<std::size_t>(2 * ring * ks), unset), rv(static_cast<std::size_t>(2 * ring * vs), unset);
      std::vector<float> pk(static_cast<std::size_t>(2 * pages * page * ks), unset);
      std::vector<float> pv(static_cast<std::size_t>(2 * pages * page * vs), unset);
      std::vector<std::int32_t> table(2 * pages);
      for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::int32_t>((i * 77 + 5) % table.size());
      for (index_t b = 0; b < 2; ++b) {
        for (index_t j = 0; j < decode.length(b); ++j) {
          const index_t row = table[static_cast<std::size_t>(b * pages + j / page)] * page + j % page;
          std::copy_n(decode.key(b, 0, j), ks, pk.data() + row * ks);
          std::copy_n(decode.value(b, 0, j), vs, pv.data() + row * vs);
          if (j < decode.length(b) - ring) continue;
          std::copy_n(decode.key(b, 0, j), ks, rk.data() + (b * ring + j % ring) * ks);
          std::copy_n(decode.value(b, 0, j), vs, rv.data() + (b * ring + j % ring) * vs);
        }
      }
      RowsArrays arrays = decode.arrays();
      arrays.k = View<const float, 4>{rk.data(), {2, 1, ring, ks}};
      arrays.v = View<const float, 4>{rv.data(), {2, 1, ring, vs}};
      arrays.layout = {.ring = ring};
      decode.run(2, &arrays, &schedule);
      INFO(group << " rows, step " << step);
      REQUIRE(same_bits(plain, decode.out));

      arrays.k = View<const float, 4>{pk.data(), {2, 1, page, ks}, {0, 0, ks, 1}};
      arrays.v = View<const float, 4>{pv.data(), {2, 1, page, vs}, {0, 0, vs, 1}};
      arrays.layout = {
          .pages = table.data(), .pages_stride = pages, .page_rows = page, .k_page_stride = page * ks, .v_page_stride = page * vs};
      decode.run(2, &arrays, &schedule);
      REQUIRE(same_bits(plain, decode.out));
    }
  }
}

TEST_CASE("rows: keys of all heads side by side give the bits of heads one after another") {
  Decode decode(problem(2, 6, 3, 1, 600, 32, 32));
  decode.run();
  const std::vector<float> plain = decode.out;
  std::vector<float> k(2 * 600 * 3 * 32), v(k.size());
  for (index_t b = 0; b < 2; ++b) {
    for (index_t h = 0; h < 3; ++h) {
      for (index_t j = 0; j < 600; ++j) {
        std::copy_n(decode.key(b, h, j), 32, k.data() + ((b * 600 + j) * 3 + h) * 32);
        std::copy_n(decode.value(b, h, j), 32, v.data() + ((b * 600 + j) * 3 + h) * 32);
      }
    }
  }
  RowsArrays arrays = decode.arrays();
  arrays.k = View<const float, 4>{k.data(), {2, 3, 600, 32}, {600 * 96, 32, 96, 1}};
  arrays.v = View<const float, 4>{v.data(), {2, 3, 600, 32}, {600 * 96, 32, 96, 1}};
  decode.run(1, &arrays);
  CHECK(same_bits(plain, decode.out));
}
