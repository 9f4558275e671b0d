#include <limits>

#include "attn/prove/trial.hpp"
#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("full: values of ones give ones") {
  const Problem p = problem(77);
  Qkv in = arrays(p);
  in.v = ones<float>({1, 2, 77, 16});
  check_equal(run("full", p, in), in.v, 1e-6);
}

TEST_CASE("full: equal keys give the mean of the values") {
  const Problem p = problem(50);
  Qkv in = arrays(p);
  in.k = zeros<float>({1, 2, 50, 16});
  check_equal(run("full", p, in), broadcast_to(mean(in.v, -2, Keep::yes), {1, 2, 50, 16}));
}

TEST_CASE("full: two keys by hand") {
  const Problem p = problem(2, 1, false, 1);
  const Qkv in{Tensor<float>({1, 1, 2, 1}, {0.0f, 2.0f}), Tensor<float>({1, 1, 2, 1}, {1.0f, 0.0f}),
               Tensor<float>({1, 1, 2, 1}, {10.0f, 20.0f})};
  const Tensor<float> out = run("full", p, in);
  CHECK(out(0, 0, 0, 0) == Approx(15.0));
  CHECK(out(0, 0, 1, 0) == Approx((10 * std::exp(2.0) + 20) / (std::exp(2.0) + 1)));
}

TEST_CASE("full: a NaN in an allowed key reaches the rows that see it and no other") {
  const Problem p = problem(70, 16, true, 1);
  Qkv in = arrays(p);
  std::vector<float> k(in.k.values().begin(), in.k.values().end());
  k[40 * 16 + 3] = std::nanf("");
  in.k = Tensor<float>(in.k.shape(), k);
  const Tensor<float> out = run("full", p, in);
  for (index_t i = 0; i < 70; ++i) CHECK(std::isnan(out(0, 0, i, 5)) == (i >= 40));
}

TEST_CASE("full: logits of 80 neither overflow nor lose the largest key") {
  const Problem p = problem(64, 16, false, 1);
  Qkv in = arrays(p, 4.5);
  const auto v = variant("full");
  const Tensor<float> out = run("full", p, in);
  const GateResult gate = [&] {
    const Arena arena(1);
    return check_against_definition(*v, p, {view(in.q), view(in.k), view(in.v)}, {}, 1, view(out), arena);
  }();
  CHECK(passed(gate));
}

TEST_CASE("full: with more queries than keys the early causal rows see nothing and are zero") {
  Problem p = problem(10, 8, true, 1);
  p.kv_len = 4;
  const Tensor<float> out = run("full", p, arrays(p));
  for (index_t i = 0; i < 6; ++i) {
    for (index_t d = 0; d < 8; ++d) CHECK(out(0, 0, i, d) == 0.0f);
  }
  CHECK(out(0, 0, 6, 0) != 0.0f);
}

TEST_CASE("full: the pair count is the definition's") { check_pair_count("full"); }

TEST_CASE("full: bytes count the keys that are seen") { check_bytes("full"); }

namespace {

constexpr float hidden = -std::numeric_limits<float>::infinity();

// With a mask of these extents.
Tensor<float> masked(std::string_view name, Problem p, const Qkv& in, const MaskExtents& extents,
                     const std::vector<float>& numbers) {
  p.mask = extents;
  const auto v = variant(name);
  REQUIRE(v->supports(p));
  REQUIRE(std::ssize(numbers) == extents.batch * extents.heads * extents.rows * p.kv_len);
  Planned planned(*v, p, 2);
  planned.equip(make_parameters(v->parameters(p), 1), Workspace::Mode::checked);
  std::vector<float> out(static_cast<std::size_t>(p.batch * p.heads * p.q_len * p.value_dim), std::nanf(""));
  Arrays arrays{.q = view(in.q),
                .k = view(in.k),
                .v = view(in.v),
                .out = View<float, 4>(out.data(), {p.batch, p.heads, p.q_len, p.value_dim})};
  arrays.more.set("mask", View<const float, 4>(numbers.data(), {extents.batch, extents.heads, extents.rows, p.kv_len}));
  planned.run(Arena(2), arrays);
  return Tensor<float>({p.batch, p.heads, p.q_len, p.value_dim}, out);
}

}  // namespace

TEST_CASE("full: keys that a mask hides might as well not be there, not even as NaN") {
  const index_t n = 90;
  Problem p = problem(n);
  Qkv in = arrays(p);
  std::vector<float> numbers(static_cast<std::size_t>(n));
  std::vector<index_t> left;
  for (index_t j = 0; j < n; ++j) {
    const bool seen = j % 3 != 1 && (j < 40 || j > 60);
    numbers[static_cast<std::size_t>(j)] = seen ? 0.0f : hidden;
    if (seen) left.push_back(j);
  }
  const Indices keys({std::ssize(left)}, left);
  Problem fewer = p;
  fewer.kv_len = std::ssize(left);
  const Tensor<float> expected = run("full", fewer, {in.q, take(in.k, keys, 2), take(in.v, keys, 2)});
  check_equal(masked("full@unfused", p, in, {1, 1, 1}, numbers), expected);
  for (Tensor<float>* x : {&in.k, &in.v}) {
    std::vector<float> values(x->values().begin(), x->values().end());
    for (index_t head = 0; head < 2; ++head) values[static_cast<std::size_t>((head * n + 50) * 16)] = std::nanf("");
    *x = Tensor<float>(x->shape(), values);
  }
  check_equal(masked("full", p, in, {1, 1, 1}, numbers), expected);
  std::vector<float> of_pairs;
  for (index_t i = 0; i < n; ++i) of_pairs.insert(of_pairs.end(), numbers.begin(), numbers.end());
  check_equal(masked("full", p, in, {1, 1, n}, of_pairs), expected);
}

TEST_CASE("full: a mask is added to the logits of each head, by hand; a query that sees nothing gets zeros") {
  const Problem p = problem(2, 1);
  const Qkv in{zeros<float>({1, 2, 2, 1}), zeros<float>({1, 2, 2, 1}), Tensor<float>({1, 2, 2, 1}, {10.0f, 20.0f, 10.0f, 20.0f})};
  for (const char* name : {"full", "full@unfused"}) {
    const Tensor<float> out = masked(name, p, in, {1, 2, 2}, {0.0f, std::log(3.0f), -2.0f, hidden, hidden, hidden, 1e4f, 1e4f});
    CHECK(out(0, 0, 0, 0) == Approx(10 * 0.25 + 20 * 0.75));
    CHECK(out(0, 0, 1, 0) == Approx(10));
    CHECK(out(0, 1, 0, 0) == 0.0f);
    CHECK(out(0, 1, 1, 0) == Approx(15));
  }
}

TEST_CASE("full: a causal mask in numbers, or none at all, changes no bit of what is there already") {
  const index_t n = 130;
  Problem p = problem(n);
  const Qkv in = arrays(p);
  std::vector<float> causal(static_cast<std::size_t>(n * n), 0.0f);
  for (index_t i = 0; i < n; ++i) std::fill(causal.begin() + i * n + i + 1, causal.begin() + (i + 1) * n, hidden);
  check_equal(masked("full", p, in, {1, 1, n}, std::vector<float>(causal.size(), 0.0f)), run("full", p, in), 0);
  const Tensor<float> by_mask = masked("full", p, in, {1, 1, n}, causal);
  p.causal = true;
  check_equal(by_mask, run("full", p, in), 1e-6);
}

TEST_CASE("full: of numbers that are stored in 16 bits a masked run is that of the widened ones") {
  Problem p = problem(100, 32);
  p.mask = {1, 2, 100};
  const auto v = variant("full");
  Problem stored = p;
  stored.dtype = stored.kv_dtype = DType::bf16;
  REQUIRE(v->supports(stored));
  CHECK(v->compute(stored) == kernels::Compute::f32);
  const trial::Case c(p, trial::Layout::dense, trial::Border::soft, trial::named_for(*v, p));
  const trial::Stored rounded(c, DType::bf16, DType::bf16);
  const Arena arena(2);
  const std::vector<float> expected = trial::output_of_run(trial::plan_trial(*v, p, 2), arena, c);
  Arrays arrays = rounded.arrays();
  arrays.more = c.arrays().more;
  c.fill_output(std::nanf(""));
  trial::plan_trial(*v, stored, 2).run(arena, arrays);
  CHECK(trial::same_bits(c.output(), expected));
}

TEST_CASE("masks: who takes none, and passes and layouts without one, say so") {
  Problem p = problem(16);
  p.mask = {1, 1, 1};
  CHECK(variant("performer")->supports(p).reason() ==
        "performer takes no mask but the causal one; a file's is left out by ',mask=none' after its name (given: batch=1 heads=2 "
        "q_len=16 "
        "head_dim=16 mask=1x1x1x16)");
  CHECK(variant("full")->supports(p));
  CHECK(variant("full")->cost(p).bytes == tensor_bytes(p) + 16 * 4);
  Problem trained = p;
  trained.pass = Pass::forward_backward;
  CHECK(variant("full")->supports(trained).reason().starts_with("full takes a mask in forward passes alone"));
  p.ragged = true;
  CHECK(
      variant("local")->supports(p).reason().starts_with("local takes a mask of sequences of one length whose keys lie in a row"));
}
