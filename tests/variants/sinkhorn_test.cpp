#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("sinkhorn: one block is full attention, its keys counted twice") {
  for (const index_t n : {1, 5, 64}) {
    const Problem p = problem(n);
    const Qkv in = arrays(p);
    for (const char* name : {"sinkhorn:block=64", "sinkhorn:block=64,sort_net=attention", "sinkhorn:block=100,sees=sorted"})
      check_equal(run(name, p, in), run("full", p, in));
    const Problem causal = problem(n, 16, true);
    check_equal(run("sinkhorn:block=64", causal, in), run("full", causal, in));
  }
}

TEST_CASE("sinkhorn: a sorting network that keeps blocks in place is blockwise attention") {
  const Problem p = problem(80);
  const Qkv in = arrays(p);
  const auto v = variant("sinkhorn:block=16,noise=yes");
  ParameterSet<float> parameters = make_parameters(v->parameters(p), 1);
  for (const char* name : {"W1", "W2"}) parameters.set(name, zeros<float>(parameters[name].shape()));
  parameters.set("gumbel", broadcast_to(identity<float>(5) * 100, {2, 5, 5}));
  check_equal(run(*v, p, in, {.parameters = &parameters}), run("blockwise:block=16,before=0,after=0", p, in), 1e-5);
}

TEST_CASE("sinkhorn: a hard permutation shows each block another one, of the mixture or its largest entry") {
  const Problem p = problem(80, 16, false, 1);
  const Qkv in = arrays(p);
  const auto v = variant(GENERATE("sinkhorn:block=16,noise=yes,sees=sorted", "sinkhorn:block=16,noise=yes,sees=sorted,pick=top1"));
  ParameterSet<float> parameters = make_parameters(v->parameters(p), 1);
  for (const char* name : {"W1", "W2"}) parameters.set(name, zeros<float>(parameters[name].shape()));
  const Tensor<float> rotated =
      tabulate<float>({1, 5, 5}, [](index_t, index_t u, index_t w) { return w == (u + 1) % 5 ? 100 : 0; });
  parameters.set("gumbel", rotated);
  Qkv moved = in;
  const auto rotate = [](const Tensor<float>& x) { return concat<float>({slice(x, 2, 16, 80), slice(x, 2, 0, 16)}, 2); };
  moved.k = rotate(in.k);
  moved.v = rotate(in.v);
  check_equal(run(*v, p, in, {.parameters = &parameters}), run("blockwise:block=16,before=0,after=0", p, moved), 1e-5);
}

TEST_CASE("sinkhorn: all sorted blocks, in whatever order, are full attention") {
  const Problem p = problem(80, 16, false, 1);
  const Qkv in = arrays(p);
  for (const char* name :
       {"sinkhorn:block=16,noise=yes,sees=sorted,cut=5", "sinkhorn:block=16,noise=yes,sees=sorted,cut=99,pick=top1"}) {
    const auto v = variant(name);
    ParameterSet<float> parameters = make_parameters(v->parameters(p), 1);
    for (const char* net : {"W1", "W2"}) parameters.set(net, zeros<float>(parameters[net].shape()));
    parameters.set("gumbel",
                   tabulate<float>({1, 5, 5}, [](index_t, index_t u, index_t w) { return w == (u + 2) % 5 ? 100.0f : 0.0f; }));
    check_equal(run(*v, p, in, {.parameters = &parameters}), run("full", p, in), 1e-5);
  }
}

TEST_CASE("sinkhorn: what all queries see has no causal form") {
  CHECK(refusal("sinkhorn:cut=2", problem(100, 16, true)).find("causal") != std::string::npos);
  CHECK(refusal("sinkhorn:cut=2", problem(100)) == "");
}

TEST_CASE("sinkhorn: more blocks than the network orders are refused") {
  CHECK(refusal("sinkhorn:block=10,max_blocks=4", problem(50)).find("max_blocks") != std::string::npos);
  CHECK(refusal("sinkhorn:block=10,max_blocks=4,sort_net=attention", problem(50)) == "");
}

TEST_CASE("sinkhorn: conforms with other options") {
  for (const char* name : {"sinkhorn:block=16", "sinkhorn:block=7,sort_net=attention,iterations=2", "sinkhorn:block=16,sees=sorted",
                           "sinkhorn:block=16,noise=yes,max_blocks=100", "sinkhorn:block=16,cut=2,sees=sorted"}) {
    check_conforms(name);
  }
  // The largest entry of a row jumps from block to block: in ten causal blocks no surroundings of b2 are smooth enough for
  // differences.
  for (const char* name :
       {"sinkhorn:block=16,pick=top1", "sinkhorn:block=7,pick=top1,sort_net=attention", "sinkhorn:block=8,cut=3,pick=top1"}) {
    check_conforms(name, {.threads = 2, .gradient = false});
  }
}

TEST_CASE("sinkhorn: equal keys, zero keys and NaN are survived") {
  const Problem p = problem(100);
  Qkv in = arrays(p);
  for (const double value : {0.0, 1.0}) {
    in.k = full<float>(in.k.shape(), static_cast<float>(value));
    CHECK(finite(run("sinkhorn:block=16", p, in)));
    CHECK(finite(run("sinkhorn:block=16,sort_net=attention", p, in)));
    CHECK(finite(run("sinkhorn:block=16,pick=top1", p, in)));
  }
  in.k = full<float>(in.k.shape(), std::nanf(""));
  for (const char* name : {"sinkhorn:block=16", "sinkhorn:block=16,pick=top1", "sinkhorn:block=16,cut=2"}) run(name, p, in);
}
