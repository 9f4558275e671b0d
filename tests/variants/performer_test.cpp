#include "trial.hpp"

using namespace attn;
using namespace attn::test;

namespace {

// Mean squared error against softmax attention, queries and keys N(0, tau), over `draws` sets of features.
double error(const std::string& options, index_t n, index_t d, double tau, int draws) {
  double total = 0;
  for (int draw = 0; draw < draws; ++draw) {
    Trial t("performer:" + options, square(n, d, false, 1), static_cast<std::uint64_t>(draw) + 1);
    const auto root = static_cast<float>(std::sqrt(tau));
    t.q = t.q * root, t.k = t.k * root;
    const auto out = t.run();
    t.variant = configure("full");
    const auto truth = t.definition();
    double sum = 0;
    for (index_t i = 0; i < out.size(); ++i) sum += std::pow(static_cast<double>(out.data()[i]) - truth.data()[i], 2);
    total += sum / static_cast<double>(out.size());
  }
  return total / draws;
}

}  // namespace

TEST_CASE("performer: the fast path is its definition") {
  for (const char* options : {"m=100", "m=128,projection=iid", "m=7", "m=1", "m=64,kernel=relu"}) {
    for (const bool causal : {false, true}) {
      for (const index_t n : {1, 2, 31, 33, 64, 65, 300}) {
        const Trial t("performer:" + std::string(options), square(n, n == 65 ? 40 : 64, causal));
        INFO(t.variant->name() << " " << to_string(t.p));
        CHECK(distance(t.run(), t.definition()) < 3e-5);
      }
    }
  }
}

TEST_CASE("performer: sequences of different lengths, shared keys, many threads") {
  for (const bool causal : {false, true}) {
    for (const auto& [queries, keys] : {std::pair<index_t, index_t>{100, 300}, {300, 100}, {1, 64}}) {
      Problem p = square(queries, 32, causal, 4);
      p.kv_len = keys;
      p.kv_heads = 2;
      const Trial t("performer:m=50", p);
      CHECK(distance(t.run(), t.definition()) < 3e-5);
    }
    const Trial t("performer:m=32", square(3000, 32, causal, 1));
    CHECK(distance(t.run(4), t.run(1)) < 1e-5);
    CHECK(std::ranges::equal(t.run(4).values(), t.run(4).values()));
  }
}

TEST_CASE("performer: values of one give one") {
  Trial t("performer:m=128", square(200));
  t.q = t.q * 0.25f, t.k = t.k * 0.25f;  // the guard adds to denominators below 1e-6, as unit normal tokens have
  t.v = ones<float>(t.v.shape());
  CHECK(distance(t.run(), t.v) < 1e-5);
}

TEST_CASE("performer: blocks of W are orthogonal, rows as long as Gaussian vectors") {
  const auto parameters = make_parameters(configure("performer:m=100")->parameters(square(8, 64)), 3);
  const auto& w = parameters["W"];
  const auto dot = [&](index_t a, index_t b) {
    double sum = 0;
    for (index_t x = 0; x < 64; ++x) sum += static_cast<double>(w(a, x)) * static_cast<double>(w(b, x));
    return sum;
  };
  double lengths = 0;
  for (index_t i = 0; i < 100; ++i) {
    lengths += dot(i, i);
    for (index_t j = 0; j < i; ++j) {
      if (i / 64 == j / 64) CHECK(std::abs(dot(i, j)) < 1e-4);
    }
  }
  CHECK(lengths / 100 == Approx(64).epsilon(0.1));
}

// The mean squared errors of /reference/accuracy.md, section 3.2, at a quarter of its length: they do not depend on N much.
TEST_CASE("performer: the error falls as one over m, and orthogonal features err less") {
  const double m16 = error("m=16,projection=iid", 1024, 16, 0.25, 6), m64 = error("m=64,projection=iid", 1024, 16, 0.25, 6);
  const double m256 = error("m=256,projection=iid", 1024, 16, 0.25, 6);
  CHECK(m64 < m16 * 0.6);
  CHECK(m256 < m64 * 0.6);
  CHECK(m256 > m16 / 64);
  CHECK(error("m=64,projection=orthogonal", 1024, 16, 0.0625, 6) < error("m=64,projection=iid", 1024, 16, 0.0625, 6));
}

TEST_CASE("performer: large norms and all-negative inputs stay finite") {
  for (const bool causal : {false, true}) {
    for (const float scale : {5.0f, 40.0f, 1e4f}) {
      Trial t("performer:m=64", square(100, 64, causal));
      t.q = t.q * scale, t.k = t.k * scale;
      INFO("scale=" << scale << " causal=" << causal);
      CHECK(finite(t.run()));
    }
    Trial t("performer:m=64,kernel=relu", square(100, 64, causal));
    t.q = t.q - 40.0f, t.k = t.k - 40.0f;
    CHECK(finite(t.run()));
  }
  CHECK(refusal("performer:m=0", square(8)).find("m=0") != std::string::npos);
}
