#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("linformer: the fast path is its definition") {
  for (const char* sharing : {"none", "headwise", "kv"}) {
    for (const index_t n : {1, 2, 63, 65, 300}) {
      for (const index_t k : {1, 7, 64, 400}) {
        Problem p = square(n, 40, false, 4);
        p.kv_len = 2 * n + 1;
        p.kv_heads = 2;
        p.value_dim = 24;
        p.batch = 2;
        const Trial t("linformer:sharing=" + std::string(sharing) + ",k=" + std::to_string(k), p);
        INFO(t.variant->name() << " " << to_string(p));
        CHECK(distance(t.run(), t.definition()) < 1e-5);
      }
    }
  }
}

TEST_CASE("linformer: k = N with E = F = I is full attention") {
  for (const char* sharing : {"none", "headwise", "kv"}) {
    Trial t("linformer:k=200,sharing=" + std::string(sharing), square(200));
    const index_t matrices = t.parameters["E"].extent(0);
    for (const char* name : {"E", "F"}) t.parameters.set(name, repeat(unsqueeze(identity<float>(200), 0), 0, matrices));
    Trial full("full", square(200));
    CHECK(distance(t.run(), full.definition()) < 1e-5);
    CHECK(distance(t.definition(), full.definition()) < 1e-12);
  }
}

TEST_CASE("linformer: one head over many threads gives what one thread gives, and always the same bits") {
  const Trial t("linformer:k=32", square(3000, 64, false, 1));
  const auto shared = t.run(4);
  CHECK(distance(shared, t.run(1)) < 1e-5);
  CHECK(std::ranges::equal(shared.values(), t.run(4).values()));
}

TEST_CASE("linformer: shorter sequences use the first columns, longer ones are refused with the limit") {
  const Trial t("linformer:k=16,max_len=100", square(80));
  CHECK(t.parameters["E"].extent(2) == 100);
  CHECK(distance(t.run(), t.definition()) < 1e-5);
  const std::string reason = refusal("linformer:k=16,max_len=100", square(101));
  CHECK(reason.find("101") != std::string::npos);
  CHECK(reason.find("max_len=100") != std::string::npos);
  CHECK(refusal("linformer:k=0", square(10)).find("k=0") != std::string::npos);
  CHECK(refusal("linformer", square(10, 16, true)) != "");
}

TEST_CASE("linformer: denominators near zero, negative inputs and large norms stay finite") {
  for (const char* name : {"linformer:k=16", "linformer:k=200,sharing=none"}) check_stays_finite(name);
}

TEST_CASE("linformer: E of segment means is full attention for as many segments as keys, and a mean for one") {
  const Trial full("full", square(90));
  for (const char* k : {"90", "180"}) {
    CHECK(distance(Trial("linformer:weights=mean,k=" + std::string(k), square(90)).run(), full.definition()) < 1e-5);
  }
  const Trial mean("mean_v", square(90));
  CHECK(distance(Trial("linformer:weights=mean,k=1", square(90)).run(), mean.definition()) < 1e-5);
  const Trial seven("linformer:weights=mean,k=7", square(90));  // 90 = 7 * 12 + 6: segments of 12 and 13
  CHECK(distance(seven.run(), seven.definition()) < 1e-5);
  for (const double total : sum(cast<double>(seven.parameters["E"]), -1, Keep::no).values()) CHECK(total == Approx(1));
}

TEST_CASE("linformer: E starts at 1/sqrt(k), or small") {
  const auto spread = [](const char* name) {
    const Trial t(name, square(100));
    double sum = 0;
    for (const float x : t.parameters["E"].values()) sum += static_cast<double>(x) * static_cast<double>(x);
    return std::sqrt(sum / static_cast<double>(t.parameters["E"].size()));
  };
  CHECK(spread("linformer:k=64") == Approx(0.125).epsilon(0.05));  // 6400 numbers know it to 0.9 %
  CHECK(spread("linformer:k=64,weights=small") == Approx(0.02).epsilon(0.05));
}
