#include "trial.hpp"

using namespace attn;
using namespace attn::test;

namespace {

Tensor<float> gaussian(const Shape& shape, float size) {
  const Rng rng(5, "shape");
  return generate<float>(shape, [&](index_t i) { return size * static_cast<float>(rng.normal(i)); });
}

}  // namespace

TEST_CASE("rfa: the fast path is its definition") {
  for (const bool causal : {false, true}) {
    for (const index_t n : {1, 2, 31, 33, 64, 65, 300}) {
      Trial t("rfa:m=50,tau=0.8", square(n, n == 65 ? 40 : 64, causal));
      t.parameters.set("sigma", gaussian(t.parameters["sigma"].shape(), 0.2f) + 1.0f);
      INFO("N=" << n << " causal=" << causal);
      CHECK(distance(t.run(), t.definition()) < 3e-5);
    }
    Problem p = square(100, 32, causal, 2);
    p.kv_len = 257;
    const Trial t("rfa", p);
    CHECK(distance(t.run(), t.definition()) < 3e-5);
  }
}

TEST_CASE("rfa with a gate: the fast path is its definition, on one thread or many") {
  for (const index_t n : {1, 2, 31, 33, 65, 300, 2000}) {
    Trial t("rfa:m=30,gate=yes", square(n, 24, true, 1));
    t.parameters.set("gate_w", gaussian(t.parameters["gate_w"].shape(), 0.5f));
    t.parameters.set("gate_b", gaussian(t.parameters["gate_b"].shape(), 1.0f) + 2.0f);
    INFO("N=" << n);
    CHECK(distance(t.run(1), t.definition()) < 3e-5);
    CHECK(distance(t.run(4), t.definition()) < 3e-5);
  }
  CHECK(refusal("rfa:gate=yes", square(10)).find("causal") != std::string::npos);
}

TEST_CASE("rfa with a gate: queries at the end of longer keys see them faded as of their own position") {
  for (const auto& [n, m] : {std::pair{37, 50}, {1, 30}, {20, 257}, {60, 41}}) {
    Problem p = square(n, 24, true, 2);
    p.kv_len = m;
    Trial t("rfa:m=30,gate=yes", p);
    t.parameters.set("gate_w", gaussian(t.parameters["gate_w"].shape(), 0.5f));
    t.parameters.set("gate_b", gaussian(t.parameters["gate_b"].shape(), 1.0f));
    INFO("N=" << n << " M=" << m);
    CHECK(distance(t.run(), t.definition()) < 3e-5);
  }
}

TEST_CASE("rfa with a gate of the input: the learned gate's numbers give the learned gate's output, to rounding") {
  const Problem p = square(60, 24, true, 2);
  Trial t("rfa:m=30,gate=yes", p);
  t.parameters.set("gate_w", gaussian(t.parameters["gate_w"].shape(), 0.5f));
  t.parameters.set("gate_b", gaussian(t.parameters["gate_b"].shape(), 1.0f));
  const Tensor<float> logit =
      sum(t.k * unsqueeze(t.parameters["gate_w"], 1), -1) + unsqueeze(t.parameters["gate_b"], 1);
  const Tensor<float> gate = sigmoid(logit);  // [B,H,M]

  Trial given("rfa:m=30,gate=input", p);
  REQUIRE(given.more.size() == 1);
  CHECK(given.more.at("gate").shape() == Shape{1, 2, 60});
  CHECK(t.more.empty());
  CHECK(distance(given.run(), given.definition()) < 3e-5);
  given.more.insert_or_assign("gate", gate);
  CHECK(distance(given.run(), t.definition()) < 3e-5);
}

TEST_CASE("rfa with a gate that is all but closed: what it lets in has all its digits") {
  // phi = [0, 1] again; 1 - gate is e^-16, some ulps of one.
  Trial t("rfa:m=1,gate=yes", square(1, 1, true, 1));
  t.parameters.set("w", zeros<float>({1, 1}));
  t.parameters.set("gate_w", zeros<float>({1, 1}));
  t.parameters.set("gate_b", zeros<float>({1}) + 16.0f);
  t.v = Tensor<float>({1, 1, 1, 1}, {1});
  const double let_in = 1 / (1 + std::exp(16.0));
  CHECK(static_cast<double>(t.run()(0, 0, 0, 0)) == Approx(let_in / 0.1).epsilon(1e-5));
}

TEST_CASE("rfa with a gate of one half: weights halve with every step") {
  // One frequency of zero: phi = [0, 1], so all products are 1.
  Trial t("rfa:m=1,gate=yes", square(4, 1, true, 1));
  t.parameters.set("w", zeros<float>({1, 1}));
  t.v = Tensor<float>({1, 1, 4, 1}, {1, 0, 0, 0});
  const auto out = t.run();
  for (index_t i = 0; i < 4; ++i) {
    const double newest = 0.5, sum = 1 - std::pow(0.5, i + 1);
    CHECK(static_cast<double>(out(0, 0, i, 0)) == Approx(newest * std::pow(0.5, i) / sum));
  }
}

namespace {

// Softmax of q^.k^, the unit vectors' products: what rfa estimates at tau = 1.
Tensor<double> softmax_of_unit_vectors(const Trial& t) {
  const auto unit = [](const Tensor<float>& x) { return l2_normalize(cast<double>(x)); };
  return matmul(softmax(matmul_transposed(unit(t.q), unit(t.k))), cast<double>(t.v));
}

double squared_error(const Trial& t, const Tensor<double>& truth) { return std::pow(distance(t.run(), truth), 2); }

}  // namespace

TEST_CASE("rfa: the error against softmax of unit vectors falls as m^(-1/2)") {
  std::vector<double> error;
  for (const index_t m : {16, 64, 256, 1024}) {
    double total = 0;
    for (std::uint64_t seed = 1; seed <= 8; ++seed) {
      const Trial t("rfa:m=" + std::to_string(m), square(512, 16, false, 1), seed);
      total += squared_error(t, softmax_of_unit_vectors(t));
    }
    error.push_back(total);
  }
  for (std::size_t i = 1; i < error.size(); ++i) CHECK(error[i] < 0.35 * error[i - 1]);  // a quarter each time
  CHECK(std::log(error[3] / error[0]) / std::log(64.0) == Approx(-1).epsilon(0.1));
}

TEST_CASE("rfa: the mean over draws of the features approaches softmax attention") {
  Trial t("rfa:m=64", square(256, 16, false, 1));
  const auto truth = softmax_of_unit_vectors(t);
  constexpr int draws = 64;
  double single = 0;
  Tensor<double> mean = zeros<double>(truth.shape());
  for (int draw = 1; draw <= draws; ++draw) {
    t.parameters = make_parameters(t.variant->parameters(t.p), static_cast<std::uint64_t>(draw));
    const auto out = t.run();
    single += std::pow(distance(out, truth), 2) / draws;
    mean = mean + cast<double>(out) / static_cast<double>(draws);
  }
  CHECK(std::pow(distance(mean, truth), 2) < 1.5 * single / draws + 1e-5);  // the 1e-3 beside |x| leaves 2e-3 of bias
}

// For unit vectors x and y: (1/m) sum cos(w.(x - y)) has the mean e^(-|x-y|^2 / 2) and the variance (1/2m) (1 - e^(-|x-y|^2))^2.
TEST_CASE("rfa: w estimates the Gaussian kernel without bias and with the variance of theory") {
  const auto variant = configure("rfa:m=16");
  constexpr int draws = 20000;
  for (const double distance2 : {0.25, 1.0, 4.0}) {
    double mean = 0, square_mean = 0;
    for (int draw = 0; draw < draws; ++draw) {
      const auto parameters = make_parameters(variant->parameters(square(8, 16)), static_cast<std::uint64_t>(draw));
      const auto& w = parameters["w"];
      double estimate = 0;
      for (index_t f = 0; f < 16; ++f) {  // x - y lies along (1, .., 1)
        double u = 0;
        for (index_t d = 0; d < 16; ++d) u += static_cast<double>(w(f, d)) * std::sqrt(distance2 / 16);
        estimate += std::cos(u) / 16;
      }
      mean += estimate / draws, square_mean += estimate * estimate / draws;
    }
    const double variance = std::pow(1 - std::exp(-distance2), 2) / 32;
    INFO("|x-y|^2=" << distance2);
    CHECK(std::abs(mean - std::exp(-distance2 / 2)) < 4 * std::sqrt(variance / draws));
    CHECK(square_mean - mean * mean == Approx(variance).epsilon(0.05));
  }
}

TEST_CASE("rfa: denominators near zero, negative inputs and large norms stay finite") {
  for (const char* name : {"rfa", "rfa:tau=0.05", "rfa:gate=yes", "rfa:tau=0.05,gate=yes"}) check_stays_finite(name);
}

// Keys whose features nearly cancel: sums of w_ij are around zero, of either sign, and the clamp decides.
TEST_CASE("rfa: denominators around zero are held to one, as the definition says") {
  for (const bool causal : {false, true}) {
    Trial t("rfa:m=16,tau=0.05", square(120, 16, causal));
    const auto out = t.run();
    CHECK(distance(out, t.definition()) < 3e-4);  // angles of 100 radians carry the rounding of their products
    CHECK(finite(out));
  }
}

TEST_CASE("rfa: no features are refused with the range") { CHECK(refusal("rfa:m=0", square(8)).find("m=0") != std::string::npos); }
