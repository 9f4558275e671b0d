#include <cmath>

#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

namespace {

// The weights of one query with these logits.
std::vector<float> weights(const char* name, const std::vector<float>& logits) {
  const index_t m = std::ssize(logits);
  const Problem p{.batch = 1, .heads = 1, .kv_heads = 1, .q_len = 1, .kv_len = m, .head_dim = 1, .value_dim = m};
  const Qkv in{ones<float>({1, 1, 1, 1}), Tensor<float>({1, 1, m, 1}, logits), reshape(identity<float>(m), {1, 1, m, m})};
  const Tensor<float> out = run(name, p, in);
  return {out.data(), out.data() + m};
}

}  // namespace

TEST_CASE("entmax: conforms with the other power") { check_conforms("entmax:alpha=2"); }

TEST_CASE("entmax: two logits by hand") {
  for (const double d : {0.0, 0.3, 0.9}) {
    const auto sparse = weights("entmax:alpha=2", {static_cast<float>(d), 0});
    CHECK(sparse[0] == Approx((1 + d) / 2));
    CHECK(sparse[1] == Approx((1 - d) / 2));
    const auto squares = weights("entmax", {static_cast<float>(2 * d), 0});
    const double root = std::sqrt((1 - d * d / 2) / 2);
    CHECK(squares[0] == Approx((d / 2 + root) * (d / 2 + root)));
    CHECK(squares[1] == Approx((root - d / 2) * (root - d / 2)));
  }
}

TEST_CASE("entmax: equal logits share, and one that is ahead by 1, or 2, has it all") {
  for (const char* name : {"entmax", "entmax:alpha=2"}) {
    for (const float weight : weights(name, std::vector<float>(200, 3))) CHECK(weight == Approx(1.0 / 200));
    std::vector<float> ahead(50, 1);
    ahead[7] = std::string(name) == "entmax" ? 3.0f : 2.0f;
    const auto w = weights(name, ahead);
    for (std::size_t j = 0; j < w.size(); ++j) CHECK(w[j] == (j == 7 ? 1.0f : 0.0f));
  }
}

TEST_CASE("entmax: weights add up to 1, are zero below a threshold, and do not change with all logits together") {
  for (const char* name : {"entmax", "entmax:alpha=2"}) {
    const Tensor<float> z = normal({150}, "logits");
    std::vector<float> logits(z.data(), z.data() + 150), moved = logits;
    for (float& x : moved) x += 16;
    const auto w = weights(name, logits), v = weights(name, moved);
    double sum = 0, smallest_in = 1e9, largest_out = -1e9;
    index_t zero = 0;
    for (std::size_t j = 0; j < w.size(); ++j) {
      sum += static_cast<double>(w[j]);
      CHECK(v[j] == Approx(w[j]).margin(1e-5));
      const auto logit = static_cast<double>(logits[j]);
      if (w[j] > 0) smallest_in = std::min(smallest_in, logit);
      if (!(w[j] > 0)) largest_out = std::max(largest_out, logit), ++zero;
    }
    CHECK(sum == Approx(1));
    CHECK(zero > 50);
    CHECK(largest_out < smallest_in);
  }
}

TEST_CASE("entmax: long rows are the definition's to float accuracy, even where all logits are alike") {
  for (const char* name : {"entmax", "entmax:alpha=2"}) {
    for (const float scale : {1.0f, 0.01f}) {
      Problem p = problem(6000, 16, true);
      p.q_len = 7;
      Trial t(name, p);
      t.q = t.q * scale;
      CHECK(distance(t.run(2), t.definition()) < 3e-6);
    }
  }
}
