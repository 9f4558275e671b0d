#include "attn/kernels/machine/isa.hpp"

#include <algorithm>
#include <string>
#include <vector>

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
    CHECK(available_isas().front() == best);
  }
  REQUIRE(force_isa(""));
  CHECK(active_isa() == best);
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
