// What special numbers do in the rows engine.
#include "harness/kernels/rows/cache.hpp"

using namespace attn;
using namespace attn::kernels;
using namespace attn::kernels::test;

namespace {

Problem problem(index_t heads, index_t step, index_t keys) {
  return {
      .batch = 1, .heads = heads, .kv_heads = 1, .q_len = step, .kv_len = keys, .head_dim = 32, .value_dim = 32, .causal = true};
}

bool finite(Decode& decode, index_t head, index_t query) {
  const float* row = decode.result(0, head, query);
  return std::all_of(row, row + 32, [](float x) { return std::isfinite(x); });
}

}  // namespace

TEST_CASE("rows: logits of a hundred thousand have their weights exactly where they are exact numbers") {
  on_every_isa([] {
    for (const index_t heads : {1, 4, 6}) {
      for (const float sign : {1.0f, -1.0f}) {
        Problem p = problem(heads, 1, 1300);
        p.head_dim = 64;
        Decode decode(p);
        for (index_t h = 0; h < heads; ++h) std::fill_n(decode.query(0, h, 0), 64, sign * 512.0f);
        for (index_t j = 0; j < 1300; ++j) {
          // logit = sign * (139264 + 31 j mod 7): every partial sum is a number of fp32.
          std::fill_n(decode.key(0, 0, j), 64, 34.0f + static_cast<float>((j * 31) % 7) / 4096.0f);
        }
        decode.run();
        INFO(heads << " rows");
        CHECK(decode.error() < 3e-6);
        CHECK(std::abs(decode.lse[0]) > 1e5f);
      }
    }
  });
}

TEST_CASE("rows: logits that climb by hundreds from part to part do not overflow") {
  for (const index_t heads : {1, 4, 20}) {
    Decode decode(problem(heads, 1, 2000));
    for (index_t h = 0; h < heads; ++h) std::fill_n(decode.query(0, h, 0), 32, 1.0f);
    for (index_t j = 0; j < 2000; ++j) std::fill_n(decode.key(0, 0, j), 32, static_cast<float>(j % 500) / 4.0f - 60.0f);
    for (const int threads : {1, 2}) {
      decode.run(threads);
      INFO(heads << " rows, " << threads << " threads");
      CHECK(decode.error() < 1e-4);
    }
  }
}

TEST_CASE("rows: NaN in a query reaches its own row and no other") {
  for (const index_t heads : {1, 2, 5, 20}) {
    Decode decode(problem(heads, 2, 700));
    decode.query(0, heads - 1, 1)[3] = unset;
    decode.run(2);
    for (index_t h = 0; h < heads; ++h) {
      for (index_t i = 0; i < 2; ++i) {
        INFO(heads << " heads: " << h << ", " << i);
        CHECK(finite(decode, h, i) == (h != heads - 1 || i != 1));
      }
    }
  }
}

TEST_CASE("rows: NaN and infinity in a key or value reach the rows that see it and no others") {
  for (const index_t heads : {1, 4, 20}) {
    for (const float bad : {unset, static_cast<float>(INFINITY)}) {
      for (const bool of_key : {true, false}) {
        Decode decode(problem(heads, 3, 600));
        // Seen by the last two of three rows.
        (of_key ? decode.key(0, 0, 598) : decode.value(0, 0, 598))[5] = bad;
        if (of_key) {
          for (index_t h = 0; h < heads; ++h) {
            for (index_t i = 0; i < 3; ++i) decode.query(0, h, i)[5] = 1.0f;  // infinite logits, and positive
          }
        }
        decode.run();
        for (index_t h = 0; h < heads; ++h) {
          for (index_t i = 0; i < 3; ++i) {
            INFO(heads << " heads, " << bad << " in a " << (of_key ? "key" : "value") << ": row " << i);
            CHECK(finite(decode, h, i) == (i == 0));
          }
        }
      }
    }
  }
}

TEST_CASE("rows: a key at minus infinity has no weight, and nothing else changes") {
  for (const index_t heads : {1, 3, 20}) {
    Decode decode(problem(heads, 1, 540));
    for (index_t h = 0; h < heads; ++h) decode.query(0, h, 0)[0] = 1.0f;
    for (const index_t j : {0, 1, 100, 530}) decode.key(0, 0, j)[0] = -INFINITY;
    decode.run(2);
    INFO(heads << " rows");
    CHECK(decode.error() < 3e-6);
  }
}
