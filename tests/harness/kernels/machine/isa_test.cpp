#include "attn/kernels/machine/isa.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "attn/core/isa.hpp"
#include "attn/kernels/dense/onednn.hpp"
#include "catch.hpp"

using namespace attn;
using namespace attn::kernels;

namespace {

bool has(const std::string& isa) {
  const auto list = available_isas();
  return std::find(list.begin(), list.end(), isa) != list.end();
}

}  // namespace

TEST_CASE("isa: this machine has those which the compiler's own detection finds, best first") {
  std::vector<std::string> found;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd")) {
    found.emplace_back("avx512");
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.emplace_back("avx2");
#elif defined(__aarch64__)
  found.emplace_back("neon");
#endif
  found.emplace_back("scalar");
  CHECK(available_isas() == found);
}

TEST_CASE("isa: each that this machine has can be forced, and the best one is taken again") {
  const std::string best = active_isa();
  CHECK(best == available_isas().front());
  for (const std::string& isa : available_isas()) {
    REQUIRE(force_isa(isa));
    CHECK(active_isa() == isa);
    CHECK(to_string(chosen_isa()) == isa);
    CHECK(available_isas().front() == best);
  }
  REQUIRE(force_isa(""));
  CHECK(active_isa() == best);
  CHECK(to_string(chosen_isa()) == best);
}

TEST_CASE("isa: one that this machine has not is refused with those that it has, and nothing changes") {
  const std::string before = active_isa();
  for (const char* isa : {"mmx", "AVX2", "avx512", "neon"}) {
    if (has(isa)) continue;
    const Status refused = force_isa(isa);
    REQUIRE(!refused);
    CHECK(refused.reason().find(isa) != std::string::npos);
    CHECK(refused.reason().find(before) != std::string::npos);
    CHECK(active_isa() == before);
  }
}

// In a process of its own: oneDNN takes its limit before its first product.
TEST_CASE("onednn in this process may use what is forced", "[.onednn_alone]") {
  const std::string isa = std::getenv("ATTN_ISA");
  REQUIRE(force_isa(isa));
  float a[4] = {1, 2, 3, 4}, c[4] = {};
  sgemm(Transposed::no, Transposed::no, 2, 2, 2, 1, a, 2, a, 2, 0, c, 2);
  CHECK(std::vector<float>(c, c + 4) == std::vector<float>{7, 10, 15, 22});
  if (isa == "scalar") CHECK(onednn_isa() == "sse41");
  if (isa == "avx2") CHECK(onednn_isa() == "avx2");
  if (isa == "avx512") CHECK(onednn_isa().starts_with("avx512"));
  const std::string before = onednn_isa();
  REQUIRE(force_isa(""));
  CHECK(onednn_isa() == before);
}

#if defined(__x86_64__)
TEST_CASE("isa: oneDNN obeys what is forced before its first product") {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe");
  for (const std::string& isa : available_isas()) {
    INFO(isa);
    CHECK(std::system(("ATTN_ISA=" + isa + " '" + program + "' '[.onednn_alone]' > /dev/null").c_str()) == 0);
  }
}
#endif
