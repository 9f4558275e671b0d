#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("fnet: every kind of length is its definition") {
  for (const index_t n : {3, 5, 12, 49, 121, 509, 640, 1009, 2048}) {
    for (const index_t d : {1, 2, 3, 64, 68, 96}) {
      if ((n > 1024 && d != 3) || (d > 64 && n > 121)) continue;  // the definition takes N^2 sines
      const Problem p = problem(n, d, false, 1);
      const Qkv in = arrays(p);
      INFO("N=" << n << " D=" << d);
      const double size = std::sqrt(static_cast<double>(n * d));
      CHECK(largest_difference(run("fnet", p, in), cast<float>(real_dft2(cast<double>(in.q)))) < 4e-6 * size);
    }
  }
}

TEST_CASE("fnet: is its own adjoint") {
  const Problem p = problem(90, 16, false, 1);
  const Qkv in = arrays(p);
  Qkv other = in;
  other.q = in.v;
  const double left = sum(run("fnet", p, in) * in.v).item(), right = sum(in.q * run("fnet", p, other)).item();
  CHECK(left == Approx(right).epsilon(1e-5));
}

TEST_CASE("fnet: twice is x and its mirror image, N D / 2 times") {
  for (const index_t n : {64, 65}) {
    const Problem p = problem(n, 16, false, 1);
    const Qkv in = arrays(p);
    Qkv again = in;
    again.q = run("fnet", p, in);
    const auto mirrored = tabulate<float>(
        {1, 1, n, 16}, [&](index_t, index_t, index_t k, index_t l) { return in.q(0, 0, (n - k) % n, (16 - l) % 16); });
    const float half = static_cast<float>(n) * 16 / 2;
    check_equal(run("fnet", p, again) / half, in.q + mirrored, 1e-5);
  }
}

TEST_CASE("fnet: a constant becomes one spike") {
  const Problem p = problem(32, 8, false, 1);
  Qkv in = arrays(p);
  in.q = ones<float>(in.q.shape());
  const auto out = run("fnet", p, in);
  CHECK(out(0, 0, 0, 0) == Approx(32 * 8));
  CHECK(std::abs(out(0, 0, 5, 3)) < 1e-4);
}

TEST_CASE("fnet: has no causal form") { CHECK(!variant("fnet")->supports(problem(64, 16, true))); }

TEST_CASE("fnet: the roots of unity of its passes are part of its workspace") {
  WorkspacePlan booked(1);
  const auto plan = variant("fnet")->plan(problem(4096, 2, false, 1), booked);
  const index_t blocks = 2 * 4096 * 2, roots = 2 * 3 * (1 + 4 + 16 + 64 + 256 + 1024);
  CHECK(booked.bytes() >= (blocks + roots) * index_t{sizeof(float)});
}
