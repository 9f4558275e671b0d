#include "attn/measure/head_figures.hpp"

#include <vector>

#include "catch.hpp"

using namespace attn;

namespace {

Problem square(index_t n) { return {.heads = 1, .kv_heads = 1, .q_len = n, .kv_len = n}; }

}  // namespace

TEST_CASE("A head that looks at itself has no entropy and no distance, and prefers no key", "[measure]") {
  std::vector<float> weights(16 * 16);
  for (std::size_t i = 0; i < 16; ++i) weights[17 * i] = 0.5f;
  const HeadFigures f = head_figures(square(16), weights);
  CHECK(f.entropy == 0);
  CHECK(f.distance == 0);
  CHECK(f.sink_share == Approx(1.0 / 16));
  CHECK(f.least_sum == 0.5);
  CHECK(f.largest_sum == 0.5);
}

TEST_CASE("A head that averages has the entropy of all keys and the mean distance of two tokens", "[measure]") {
  const std::vector<float> weights(8 * 8, 1.0f / 8);
  const HeadFigures f = head_figures(square(8), weights);
  CHECK(f.entropy == Approx(3));
  CHECK(f.distance == Approx((8.0 * 8 - 1) / (3 * 8)));
  CHECK(f.sink == 0);
}

TEST_CASE("A sink is the key that most is looked at, by the size of weights of either sign", "[measure]") {
  const std::vector<float> weights{0.25f, -0.75f, 0, 1};
  const HeadFigures f = head_figures(square(2), weights);
  CHECK(f.sink == 1);
  CHECK(f.sink_share == Approx((0.75 + 1) / 2));
  CHECK(f.least_sum == -0.5);
}

TEST_CASE("Rows without any weight do not count, and the last queries stand at the last keys", "[measure]") {
  const Problem p{.heads = 1, .kv_heads = 1, .q_len = 2, .kv_len = 4};
  const HeadFigures f = head_figures(p, std::vector<float>{0, 0, 0, 0, 1, 0, 0, 0});  // query 1 stands at key 3
  CHECK(f.distance == 3);
  CHECK(f.sink_share == 1);
  CHECK(head_figures(p, std::vector<float>(8)).largest_sum == 0);
}
