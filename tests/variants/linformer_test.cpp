#include "attn/prove/conformance.hpp"
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
        INFO(t.variant->name().text() << " " << to_string(p));
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

namespace {

// x[i]
template <class T>
Tensor<T> at(const Tensor<T>& x, index_t i) {
  return reshape(slice(x, 0, i, i + 1), Shape(x.shape().begin() + 1, x.shape().end()));
}

// F by its normal equations, all queries of a matrix in one piece: C^T C + r I and C^T (P - C E), for the heads that share one.
void check_normal_equations(const Trial& t, index_t matrix, index_t first_head, index_t end_head) {
  const Tensor<double> e = cast<double>(t.parameters["E"]), f = cast<double>(t.parameters["F"]);
  const auto rows = [&](const Tensor<float>& x, index_t batch, index_t head, index_t step) {
    return slice(at(at(cast<double>(x), batch), head), 0, 0, x.extent(2), step);
  };
  const index_t k = e.extent(1), m = t.p.kv_len;
  const Tensor<double> mine = slice(at(e, matrix), -1, 0, m), change = slice(at(f, matrix), -1, 0, m) - mine;
  Tensor<double> seen = zeros<double>({k, k}), missed = zeros<double>({k, m});
  for (index_t batch = 0; batch < t.p.batch; ++batch) {
    for (index_t head = first_head; head < end_head; ++head) {
      const Tensor<double> q = rows(t.q, batch, head, 2), keys = rows(t.k, batch, head / (t.p.heads / t.p.kv_heads), 1);
      const auto weights = [&](const Tensor<double>& to) { return softmax(matmul_transposed(q, to) * t.p.scale()); };
      const Tensor<double> c = weights(matmul(mine, keys));
      seen = seen + matmul(transpose(c), c);
      missed = missed + matmul(transpose(c), weights(keys) - matmul(c, mine));
    }
  }
  const Tensor<double> ridge = identity<double>(k) * (1e-6 * sum(seen * identity<double>(k)).item());
  CHECK(distance(matmul(seen + ridge, change), missed) < 1e-5);  // F is rounded to float
}

}  // namespace

TEST_CASE("linformer: least squares solves its equations, for the heads that share a matrix") {
  Problem p = square(150, 16, false, 4);
  p.batch = 2;
  p.kv_heads = 2;
  p.kv_len = 130;
  p.value_dim = 24;
  for (const char* longest : {"130", "200"}) {
    const std::string options = "k=9,weights=lstsq,max_len=" + std::string(longest);
    const Trial apart("linformer:sharing=none," + options, p), together("linformer:sharing=headwise," + options, p);
    check_normal_equations(apart, 0, 0, 2);
    check_normal_equations(apart, 1, 2, 4);
    check_normal_equations(together, 0, 0, 4);
    for (const Trial* t : {&apart, &together}) {
      CHECK(distance(t->run(), t->definition()) < 1e-5);
      CHECK(distance(t->run(), Trial("full", p).definition()) <
            distance(Trial("linformer:k=9,weights=mean,max_len=" + std::string(longest), p).run(), Trial("full", p).definition()));
    }
  }
}

TEST_CASE("linformer: least squares leaves F = I where there is a mixture for each key") {
  const Trial full("full", square(90));
  for (const char* sharing : {"none", "headwise"}) {
    const std::string options = "weights=lstsq,sharing=" + std::string(sharing);
    const Trial t("linformer:k=90," + options, square(90));
    for (const char* name : {"E", "F"}) {
      for (index_t matrix = 0; matrix < t.parameters[name].extent(0); ++matrix)
        CHECK(std::ranges::equal(at(t.parameters[name], matrix).values(), identity<float>(90).values()));
    }
    CHECK(distance(t.run(), full.definition()) < 1e-5);
    CHECK(distance(t.definition(), full.definition()) < 1e-12);
    CHECK(distance(Trial("linformer:k=180," + options, square(90)).run(), full.definition()) < 1e-5);
  }
  for (const index_t n : {1, 2, 3}) {
    const Trial few("linformer:k=7,sharing=none,weights=lstsq", square(n));
    CHECK(distance(few.run(), few.definition()) < 1e-5);
  }
}

TEST_CASE("linformer: a fit is the same on one thread and on four") {
  const Trial t("linformer:k=16,sharing=none,weights=lstsq", square(500, 32, false, 4));
  Arena(4).execute([&] {
    const Parameters specs = t.variant->parameters(t.p);
    const auto view = [](const Tensor<float>& x) {
      return View<const float, 4>(x.data(), {x.extent(0), x.extent(1), x.extent(2), x.extent(3)});
    };
    const ParameterSet<float> fitted = fit_parameters(specs, {view(t.q), view(t.k), view(t.v)});
    CHECK(fitted.all().size() == 1);  // E is not fitted
    CHECK(std::ranges::equal(fitted["F"].values(), t.parameters["F"].values()));
  });
}

TEST_CASE("linformer: a fit conforms, and says how many queries it saw") {
  const auto v = configure("linformer:k=8,sharing=none,weights=lstsq");
  for (const Finding& finding : check_conformance(*v, {.threads = 2})) {
    INFO(finding.property);
    CHECK(finding.failure == "");
  }
  CHECK(Trial("linformer:k=8,sharing=none,weights=lstsq", square(101)).note() == "F is fitted to 51 of 101 queries of this input");
  CHECK(Trial("linformer:k=8,weights=mean", square(101)).note() == "");
}

TEST_CASE("linformer: what cannot be fitted is refused, with the reason") {
  const auto says = [](const std::string& options, const Problem& p, const char* what) {
    const std::string reason = refusal("linformer:weights=lstsq," + options, p);
    INFO(reason);
    CHECK(reason.find(what) != std::string::npos);
  };
  says("sharing=kv", square(100), "give sharing=none or sharing=headwise, not kv");
  says("sharing=none,k=2049", square(100), "at most 2048, not k=2049");
  says("sharing=none,k=1024", square(16385), "at most 16777216, not k=1024 times kv_len=16385");
  says("sharing=none", square(100, 16, true), "no causal form");
  CHECK(refusal("linformer:weights=lstsq,sharing=none,k=1024", square(16384)) == "");
  CHECK(configure("linformer:weights=lstsq,sharing=none")->supports_backward(square(100)).reason().find("no gradient") !=
        std::string::npos);
  CHECK(configure("linformer:weights=mean,sharing=none")->supports_backward(square(100)));
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
