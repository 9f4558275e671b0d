#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("nystrom: the fast path is its definition") {
  for (const char* options : {"landmarks=16", "landmarks=7,conv=5", "landmarks=64", "landmarks=33,iterations=0", "landmarks=1"}) {
    for (const index_t n : {1, 2, 63, 65, 300}) {
      Problem p = square(n, 40, false, 2);
      p.value_dim = 24;
      p.batch = 2;
      const Trial t("nystrom:" + std::string(options), p);
      INFO(t.variant->name().text() << " " << to_string(p));
      CHECK(distance(t.run(), t.definition()) < 1e-3);
    }
  }
  Problem p = square(100, 64, false, 2);
  p.kv_len = 257;
  const Trial t("nystrom:landmarks=16", p);
  CHECK(distance(t.run(), t.definition()) < 1e-3);
}

TEST_CASE("nystrom: up to as many tokens as landmarks it is full attention") {
  CHECK(distance(Trial("nystrom", square(64)).run(), Trial("full", square(64)).definition()) < 1e-5);
  CHECK(distance(Trial("nystrom", square(64)).definition(), Trial("full", square(64)).definition()) < 1e-12);
}

TEST_CASE("nystrom: with the inverse converged, segments of equal tokens lose nothing") {
  // Every token four times: landmarks are the tokens, and the method is exact.
  Trial t("nystrom:landmarks=16,iterations=30", square(64, 32, false, 1));
  const auto fourfold = [](const Tensor<float>& x) { return repeat(slice(x, 2, 0, 16), 2, 4); };
  t.q = fourfold(t.q), t.k = fourfold(t.k);
  const auto out = t.run();
  t.variant = configure("full");
  CHECK(distance(out, t.definition()) < 1e-3);
}

TEST_CASE("nystrom: the convolution alone, by hand") {
  // One landmark and zero queries: attention gives the mean of V. A filter with a one at its first tap adds the token before the
  // last one.
  Trial t("nystrom:landmarks=1,conv=3", square(4, 1, false, 1));
  t.q = t.q * 0.0f;
  t.v = Tensor<float>({1, 1, 4, 1}, {1, 2, 3, 6});
  t.parameters.set("conv", Tensor<float>({1, 3, 1}, {1, 0, 0}));
  const auto out = t.run();
  const double expected[] = {3, 4, 5, 6};
  for (index_t i = 0; i < 4; ++i) CHECK(static_cast<double>(out(0, 0, i, 0)) == Approx(expected[i]));
}

TEST_CASE("nystrom: refusals name the limit") {
  CHECK(refusal("nystrom:conv=4", square(100)).find("conv=4") != std::string::npos);
  Problem p = square(100);
  p.kv_len = 200;
  CHECK(refusal("nystrom:conv=3", p).find("kv_len=200") != std::string::npos);
  CHECK(refusal("nystrom", square(100, 64, true)) != "");
}

TEST_CASE("nystrom: denominators near zero, negative inputs and large norms stay finite") {
  for (const char* name : {"nystrom:landmarks=16", "nystrom:landmarks=130", "nystrom:landmarks=64,iterations=30"})
    check_stays_finite(name);
}

// Segments of 5 tokens by 2 landmarks: tokens 0, 1 and 2, 3, 4. The inverse of a 2 x 2 matrix is known.
TEST_CASE("nystrom: landmarks that do not divide N leave the longer segments at the end") {
  Trial t("nystrom:landmarks=2,iterations=30", square(5, 3, false, 1));
  const Tensor<double> q = cast<double>(t.q), k = cast<double>(t.k), v = cast<double>(t.v);
  const auto means = [](const Tensor<double>& x) {
    return concat<double>({mean(slice(x, 2, 0, 2), 2, Keep::yes), mean(slice(x, 2, 2, 5), 2, Keep::yes)}, 2);
  };
  const auto weights = [](const Tensor<double>& a, const Tensor<double>& b) {
    return softmax(matmul_transposed(a, b) / std::sqrt(3.0));
  };
  const auto a = weights(means(q), means(k));
  const double w = a(0, 0, 0, 0), x = a(0, 0, 0, 1), y = a(0, 0, 1, 0), z = a(0, 0, 1, 1), det = w * z - x * y;
  const Tensor<double> inverse({1, 1, 2, 2}, {z / det, -x / det, -y / det, w / det});
  CHECK(distance(t.run(), matmul(weights(q, means(k)), matmul(inverse, matmul(weights(means(q), k), v)))) < 1e-3);
}

TEST_CASE("nystrom: no landmarks are refused with the range") {
  CHECK(refusal("nystrom:landmarks=0", square(8)).find("landmarks=0") != std::string::npos);
}

TEST_CASE("nystrom: the note tells how far the pseudo-inverse came") {
  const auto residual = [](const std::string& options) {
    const std::string note = Trial("nystrom:" + options, square(64, 16)).note(), before = "up to ";
    INFO(note);
    REQUIRE(note.find(before) != std::string::npos);
    return std::stod(note.substr(note.find(before) + before.size()));
  };
  CHECK(residual("landmarks=1") < 1e-12);  // A = (1)
  const double none = residual("landmarks=8,iterations=0"), six = residual("landmarks=8"),
               thirty = residual("landmarks=8,iterations=30");
  CHECK(none > 0.01);
  CHECK(six < none);
  CHECK(thirty < 1e-6);
  CHECK(thirty < six);
  CHECK(Trial("nystrom", square(64, 16)).note().find("full attention") != std::string::npos);
}
