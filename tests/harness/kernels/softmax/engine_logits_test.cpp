#include <array>
#include <cstring>
#include <span>

#include "attn/core/time.hpp"
#include "harness/kernels/softmax/engine_case.hpp"

using namespace attn;
using namespace attn::kernels;
using namespace attn::kernels::engine_case;

TEST_CASE("large logits stay exact") {
  on_every_isa([] {
    for (const double scale : {0.0, 1e-3, 20.0, 80.0, 400.0})
      check(Case(shape(100, 300, 16, 16), scale), all_keys, always, 2e-5 * std::max(1.0, scale / 20));
    // The largest logit last, first, or rising by 200 a key: the reference has to move.
    for (const double slope : {-200.0, -3.0, 3.0, 30.0, 200.0}) {
      Case c(shape(60, 300, 1, 4));
      std::fill(c.q.begin(), c.q.end(), 1.0f);
      for (index_t j = 0; j < 600; ++j) c.k[static_cast<std::size_t>(j)] = static_cast<float>(slope * static_cast<double>(j % 300));
      check(c, all_keys, always, 1e-4);
    }
  });
}

TEST_CASE("logits of eighty either way, and masks made of huge negative logits, stay exact") {
  on_every_isa([] {
    for (const double size : {1.0, 80.0, 1e4, 1e9}) {
      for (const bool some_positive : {false, true}) {
        Case c(shape(70, 300, 1, 4));
        std::fill(c.q.begin(), c.q.end(), 1.0f);
        // Every third key is masked, once all of the first batches are; the others lie around zero, or all are masked.
        for (index_t j = 0; j < 600; ++j) {
          float& k = c.k[static_cast<std::size_t>(j)];
          k = j % 300 < 170 || j % 3 == 0 ? static_cast<float>(-size)
              : some_positive             ? static_cast<float>(std::min(size, 80.0))
                                          : k;
        }
        check(c, all_keys, always, 1e-5);
        std::fill(c.k.begin(), c.k.end(), static_cast<float>(-size));
        check(c, all_keys, always, 1e-5 * std::max(1.0, size));
      }
    }
  });
}

TEST_CASE("a logit of minus infinity has weight zero") {
  on_every_isa([] {
    Case c(shape(70, 300, 1, 4));
    std::fill(c.q.begin(), c.q.end(), 1.0f);
    for (index_t j = 0; j < 600; j += 3) c.k[static_cast<std::size_t>(j)] = -infinity;
    std::fill_n(c.k.begin(), 170, -infinity);
    check(c, all_keys, always, 1e-5);
  });
}

TEST_CASE("a row's bits do not depend on the other rows of its tile") {
  on_every_isa([] {
    // Weights of 2^43 are scaled. The last key, which only the last row sees, takes that row's weights out of range or does not.
    for (const float first_logit : {30.0f, -30.0f}) {
      Case c({.batch = 1, .heads = 1, .kv_heads = 1, .q_len = 90, .kv_len = 90, .head_dim = 3, .value_dim = 5, .causal = true});
      std::fill(c.q.begin(), c.q.end(), 1.7f);
      for (index_t j = 0; j < 90; ++j) c.k_row(j)[0] += first_logit;
      const Output before = run(c, all_keys);
      for (const float last_logit : {1e5f, -1e5f, nan_value}) {
        std::fill_n(c.k_row(89), 3, last_logit);
        const Output after = run(c, all_keys);
        CHECK(std::memcmp(before.out.data(), after.out.data(), 89 * 5 * sizeof(float)) == 0);
        CHECK(std::memcmp(before.lse.data(), after.lse.data(), 89 * sizeof(float)) == 0);
      }
    }
  });
}

TEST_CASE("a row's bits are the same among rows of larger logits as among rows of none") {
  on_every_isa([] {
    const std::array<float, 6> scales = {0.1f, 2.0f, 9.0f, 30.0f, 300.0f, 4000.0f};
    for (const index_t head_dim : {3, 16}) {
      Case c({.batch = 1,
              .heads = 1,
              .kv_heads = 1,
              .q_len = 96,
              .kv_len = 400,
              .head_dim = head_dim,
              .value_dim = 8,
              .causal = true});
      const auto row = [&](Case& of, index_t i) { return std::span(of.q).subspan(static_cast<std::size_t>(i * head_dim), 3); };
      const auto scale_of = [&](index_t i) { return static_cast<std::size_t>(i * 7 % 6); };
      for (index_t i = 0; i < 96; ++i)
        for (float& x : row(c, i)) x *= scales[scale_of(i)];
      const Output together = run(c, all_keys);
      for (std::size_t scale = 0; scale < scales.size(); ++scale) {
        INFO(active_isa() << " scale=" << scales[scale] << " head_dim=" << head_dim);
        Case alone = c;
        for (index_t i = 0; i < 96; ++i)
          if (scale_of(i) != scale) std::fill_n(alone.q.begin() + i * head_dim, head_dim, 0.0f);
        const Output got = run(alone, all_keys);
        for (index_t i = 0; i < 96; ++i) {
          if (scale_of(i) != scale) continue;
          CHECK(std::memcmp(&got.out[static_cast<std::size_t>(i * 8)], &together.out[static_cast<std::size_t>(i * 8)], 32) == 0);
          CHECK(got.lse[static_cast<std::size_t>(i)] == together.lse[static_cast<std::size_t>(i)]);
        }
      }
    }
  });
}

TEST_CASE("a NaN in a row does not hide that another's logits rise") {
  on_every_isa([] {
    Case c(shape(48, 300, 16, 16));
    for (index_t i = 0; i < 48; ++i) c.q[static_cast<std::size_t>(i * 16)] = i == 5 ? 1.0f : 0.0f;
    c.k_row(250)[0] = 1e4f;  // not in the first batch, whose references are looked at in any case
    const Output before = run(c, all_keys);
    for (const index_t i : {21, 37}) c.q[static_cast<std::size_t>(i * 16 + 1)] = nan_value;  // of the same lane in later vectors
    const Output after = run(c, all_keys);
    for (index_t i = 0; i < 48; ++i) {
      const auto at = static_cast<std::size_t>(i * 16);
      INFO(active_isa() << " row " << i);
      if (i == 21 || i == 37)
        CHECK(std::isnan(after.out[at]));
      else
        CHECK(std::memcmp(&before.out[at], &after.out[at], 64) == 0);
    }
  });
}

TEST_CASE("parts of the keys meet at the higher reference, whichever part it stands in") {
  on_every_isa([] {
    for (const index_t large : {100, 8000}) {
      Case c({.batch = 1, .heads = 1, .kv_heads = 1, .q_len = 16, .kv_len = 8192, .head_dim = 16, .value_dim = 16});
      c.threads = 2;
      for (index_t i = 0; i < 16; ++i) c.q[static_cast<std::size_t>(i * 16)] = 1.0f;
      c.k_row(large)[0] = 800.0f;  // a logit of 200
      check(c, all_keys, always, 1e-4);
      const Output got = run(c, all_keys);
      CHECK(got.out[0] == Approx(c.v_row(large)[0]).epsilon(1e-5));
    }
  });
}

TEST_CASE("large logits take as long as small ones") {
  on_every_isa([] {
    for (const index_t width : {index_t{64}, anywhere}) {
      const auto schedule = [&](const QueryBlock&, KeyList& keys) { keys.all().band(width, width); };
      std::array<double, 2> least = {infinity, infinity};
      std::array<Case, 2> cases = {Case(shape(256, 256, 64, 64)), Case(shape(256, 256, 64, 64), 100)};
      for (Case& c : cases) c.options.keys_per_query = width;
      for (int repeat = 0; repeat < 20; ++repeat) {
        for (std::size_t at = 0; at < 2; ++at) {
          const auto once = [&](const SoftmaxEngine& engine, const EngineArrays& arrays, const Workspace& workspace) {
            const double start = thread_cpu_s();
            engine.run(arrays, workspace, schedule);
            least[at] = std::min(least[at], thread_cpu_s() - start);
          };
          run_passes(cases[at], {cases[at].options}, once);
        }
      }
      INFO(active_isa() << " width=" << width << ": " << least[0] << " s and " << least[1] << " s");
      CHECK(least[1] < 1.3 * least[0]);
    }
  });
}

TEST_CASE("NaN and infinity reach exactly the rows that see them") {
  on_every_isa([] {
    for (const float poison : {nan_value, infinity, -infinity}) {
      for (const bool in_keys : {true, false}) {
        Case c(shape(130, 130, 16, 16));
        if (in_keys)
          std::fill_n(c.k_row(70), 16, poison);
        else
          std::fill_n(c.v_row(70), 16, poison);
        const auto schedule = [](const QueryBlock&, KeyList& keys) { keys.all().band(20, 9); };
        const Output got = run(c, schedule);
        Case clean(shape(130, 130, 16, 16));
        const Output want = run(clean, schedule);
        for (index_t i = 0; i < 130; ++i) {
          INFO(active_isa() << " keys=" << in_keys << " poison=" << poison << " i=" << i);
          const bool sees = 70 >= i - 20 && 70 <= i + 9;
          for (index_t x = 0; x < 16; ++x) {
            const auto at = static_cast<std::size_t>(i * 16 + x);
            if (!sees)
              CHECK(std::memcmp(&got.out[at], &want.out[at], sizeof(float)) == 0);
            else if (std::isnan(poison))
              CHECK(std::isnan(got.out[at]));
            else if (!in_keys)
              CHECK(got.out[at] == poison);
          }
        }
      }
    }
    Case c(shape(60, 60, 16, 16));
    c.q[5 * 16 + 3] = nan_value;
    const Output got = run(c, all_keys);
    for (index_t i = 0; i < 60; ++i) CHECK(std::isnan(got.out[static_cast<std::size_t>(i * 16)]) == (i == 5));
  });
}

TEST_CASE("denormal inputs count as zero and leave no trace in the thread") {
  on_every_isa([] {
    Case c(shape(20, 20, 16, 16));
    for (std::size_t i = 0; i < c.v.size(); i += 3) c.v[i] = 1e-41f;
    for (std::size_t i = 0; i < c.k.size(); i += 5) c.k[i] = 1e-40f;
    check(c, all_keys, always);
    volatile float tiny = 1e-30f;
    CHECK(tiny * 1e-10f != 0.0f);
  });
}
