#include <cmath>

#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

namespace {

ParameterSet<float> lambdas(const Problem& p, float first, float second) {
  ParameterSet<float> parameters;
  for (const char* name : {"lambda_q1", "lambda_q2"}) parameters.set(name, ones<float>({p.head_dim / 2}));
  parameters.set("lambda_k1", full<float>({p.head_dim / 2}, first / static_cast<float>(p.head_dim / 2)));
  parameters.set("lambda_k2", full<float>({p.head_dim / 2}, second / static_cast<float>(p.head_dim / 2)));
  return parameters;
}

}  // namespace

TEST_CASE("diff: conforms without its norm too") { check_conforms("diff:norm=none,lambda=0.2"); }

TEST_CASE("diff: is the difference of two attentions on half a query and key") {
  Problem p = problem(90, 32, true);
  const Qkv in = arrays(p);
  const ParameterSet<float> parameters = lambdas(p, 0.5f, 0.25f);
  Problem half = p;
  half.head_dim = 16;
  const auto part = [&](index_t from) {
    return run("full", half, {slice(in.q, -1, from, from + 16), slice(in.k, -1, from, from + 16), in.v});
  };
  const auto l = static_cast<float>(std::exp(0.5) - std::exp(0.25) + 0.3);
  const Tensor<float> difference = part(0) - part(16) * l;
  check_equal(run("diff:norm=none,lambda=0.3", p, in, {.parameters = &parameters}), difference);
  check_equal(run("diff:lambda=0.3", p, in, {.parameters = &parameters}), rms_norm(difference, 1e-5) * 0.7f, 2e-5);
}

TEST_CASE("diff: equal halves leave 1 - l of one") {
  const Problem p = problem(60, 16);
  Qkv in = arrays(p);
  const Tensor<float> q = slice(in.q, -1, 0, 8), k = slice(in.k, -1, 0, 8);
  in.q = concat<float>({q, q}, -1);
  in.k = concat<float>({k, k}, -1);
  const ParameterSet<float> parameters = lambdas(p, 0, 0);
  Problem half = p;
  half.head_dim = 8;
  check_equal(run("diff:norm=none,lambda=0.25", p, in, {.parameters = &parameters}), run("full", half, {q, k, in.v}) * 0.75f);
}

TEST_CASE("diff: halves an even head_dim alone") {
  CHECK(refusal("diff", problem(10, 7)).find("even head_dim") != std::string::npos);
  CHECK(refusal("diff", problem(10, 8)) == "");
}
