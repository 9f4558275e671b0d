#include <cmath>
#include <tuple>

#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

namespace {

// U takes the latent's first numbers and V its last: each head then has the keys and values that came in.
ParameterSet<float> picking(const Problem& p, index_t rope) {
  const index_t own = p.head_dim - rope, latent = own + p.value_dim;
  ParameterSet<float> parameters;
  parameters.set("U", tabulate<float>({p.heads, own, latent}, [](index_t, index_t i, index_t c) { return i == c; }));
  parameters.set("V", tabulate<float>({p.heads, p.value_dim, latent}, [=](index_t, index_t i, index_t c) { return own + i == c; }));
  return parameters;
}

}  // namespace

TEST_CASE("mla: conforms in both forms") {
  for (const char* name : {"mla:form=expand", "mla:rope=3,form=absorb"}) check_conforms(name);
}

TEST_CASE("mla: maps that pick their part of the latent make it full attention, in both forms") {
  for (const bool causal : {false, true}) {
    Problem p = problem(120, 32, causal, 4);
    p.kv_heads = 1;
    p.value_dim = 24;
    const Qkv in = arrays(p);
    const ParameterSet<float> parameters = picking(p, 8);
    const Tensor<float> full = run("full", p, in);
    for (const char* name : {"mla:rope=8,form=expand", "mla:rope=8,form=absorb"})
      check_equal(run(name, p, in, {.parameters = &parameters}), full);
  }
}

TEST_CASE("mla: by hand, two heads make their own of one latent") {
  Problem p = problem(2, 2, false, 2);
  p.kv_heads = p.value_dim = 1;
  Qkv in;
  in.q = Tensor<float>({1, 2, 2, 2}, {1, 1, 0, 0, 1, 1, 0, 0});
  in.k = Tensor<float>({1, 1, 2, 2}, {1, 0, 0, 1});  // c = (1, 2) and (0, 3), shared parts 0 and 1
  in.v = Tensor<float>({1, 1, 2, 1}, {2, 3});
  ParameterSet<float> parameters;
  parameters.set("U", Tensor<float>({2, 1, 2}, {1, 0, 0, 1}));
  parameters.set("V", Tensor<float>({2, 1, 2}, {1, 1, 0, 2}));
  for (const char* name : {"mla:rope=1,form=expand", "mla:rope=1,form=absorb"}) {
    const auto out = run(name, p, in, {.parameters = &parameters});
    const double root = std::sqrt(2.0);
    CHECK(out(0, 0, 0, 0) == Approx(3));                                   // logits (1 + 0) and (0 + 1), values 3 and 3
    const double first = std::exp(2 / root), second = std::exp(4 / root);  // 2 + 0 and 3 + 1; values 4 and 6
    CHECK(out(0, 1, 0, 0) == Approx((4 * first + 6 * second) / (first + second)));
    CHECK(out(0, 1, 1, 0) == Approx(5));
  }
}

TEST_CASE("mla: both forms agree, and with the definition, over a long cache on one and more threads") {
  Problem p = problem(2100, 48, true, 8);
  p.kv_heads = 2;
  p.value_dim = 40;
  p.q_len = 3;
  const Trial expand("mla:form=expand", p), absorb("mla:form=absorb", p);
  const Tensor<double> truth = absorb.definition();
  for (const int threads : {1, 3}) {
    CHECK(distance(absorb.run(threads), truth) < 1e-6);
    CHECK(distance(expand.run(threads), truth) < 1e-6);
  }
}

TEST_CASE("mla: takes what has fewer flops: absorbed for a step, expanded for a prompt") {
  Problem p = problem(4096, 64, true, 16);
  p.kv_heads = 1;
  const auto flops = [&](const char* name) { return variant(name)->cost(p).flops; };
  CHECK(flops("mla") == flops("mla:form=expand"));
  CHECK(flops("mla") < flops("mla:form=absorb"));
  p.q_len = 1;
  CHECK(flops("mla") == flops("mla:form=absorb"));
  CHECK(flops("mla") < flops("mla:form=expand"));
}

TEST_CASE("mla: a token's state is one row of k and v for all heads that share them") {
  Problem p = problem(1000, 64, true, 16);
  p.kv_heads = 1;
  p.q_len = 1;
  p.pass = Pass::decode;
  CHECK(variant("mla")->state_bytes(p) == 4 * 1000 * (64 + 64));
}

TEST_CASE("mla: latents of up to 512 numbers, and groups of few and of many heads, are absorbed") {
  for (const auto& [heads, head_dim, value_dim] :
       {std::tuple{3, 20, 9}, std::tuple{16, 64, 64}, std::tuple{17, 24, 40}, std::tuple{40, 144, 128}, std::tuple{5, 256, 256}}) {
    INFO(heads << " heads of " << head_dim << " and " << value_dim);
    for (const index_t queries : {1, 2}) {
      Problem p = problem(700, head_dim, true, heads);
      p.kv_heads = 1, p.value_dim = value_dim, p.q_len = queries;
      const Trial absorb("mla:form=absorb", p);
      CHECK(distance(absorb.run(2), absorb.definition()) < 1e-6);
    }
  }
}

TEST_CASE("mla: refuses shared parts as wide as the heads") {
  CHECK(refusal("mla:rope=16", problem(10, 16)).find("below head_dim") != std::string::npos);
  CHECK(refusal("mla", problem(10, 256)) == "");
}
