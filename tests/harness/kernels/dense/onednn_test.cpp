#include "attn/kernels/dense/onednn.hpp"

#include <thread>
#include <vector>

#include "attn/kernels/dense/gemm.hpp"
#include "catch.hpp"

using namespace attn;
using namespace attn::kernels;

TEST_CASE("oneDNN says what it is") {
  CHECK(onednn_version().find('.') != std::string::npos);
  CHECK(onednn_runtime() != "unknown");
}

TEST_CASE("oneDNN's product and ours agree, from any thread") {
  const index_t m = 37, n = 50, k = 90;
  std::vector<float> a(m * k), b(k * n);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i % 13) - 6;
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i % 11) - 5;
  const auto compare = [&] {
    std::vector<float> ours(m * n), theirs(m * n);
    gemm(m, n, k, {a.data(), 1, m}, {b.data(), n}, {ours.data(), n});
    sgemm(Transposed::yes, Transposed::no, m, n, k, 1, a.data(), m, b.data(), n, 0, theirs.data(), n);
    return ours == theirs;  // small integers: exact
  };
  CHECK(compare());
  bool same = false;
  std::thread([&] { same = compare(); }).join();
  CHECK(same);
}
