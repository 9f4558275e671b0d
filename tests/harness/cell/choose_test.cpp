// The part of a run that chooses keys from the data: what there is to clock apart.
#include "attn/cell/cell_run.hpp"
#include "attn/core/time.hpp"
#include "attn/exec/choice_time.hpp"
#include "catch.hpp"
#include "harness/variant_of.hpp"

using namespace attn;

namespace {

// Of one more run: seconds that go into choosing, over all.
double share(const std::string& variant, bool causal, Pass pass = Pass::forward) {
  Problem p{.heads = 2, .kv_heads = 2, .q_len = 130, .kv_len = 130, .head_dim = 16, .value_dim = 16, .causal = causal};
  if (pass == Pass::decode) p.q_len = 1, p.pass = pass;
  const auto run = CellRun::open(test::registry(), {.variant = variant, .problem = p, .input = "iid:1", .threads = 2}, false);
  INFO(variant << ": " << (run ? std::string() : run.reason()));
  REQUIRE(run);
  (*run)->equip(make_parameters((*run)->specs(), 1, (*run)->fitted()));
  (*run)->run();
  const double begin_s = monotonic_s(), chosen_s = choice_s();
  (*run)->again();
  return (choice_s() - chosen_s) / (monotonic_s() - begin_s);
}

}  // namespace

TEST_CASE("what chooses keys from the data says how long it took, once") {
  const auto check = [](const std::string& variant, double part) {
    INFO(variant);
    CHECK((part > 0 && part < 1));
  };
  for (const char* variant : {"block_topk:block=16,keep=3", "reformer:chunk=16", "routing", "clustered:clusters=8",
                              "clustered_improved:clusters=8,topk=8"})
    check(variant, share(variant, false));
  for (const char* variant :
       {"block_topk:block=16,keep=3", "moba:block=16,keep=3", "nsa:block=8,stride=4,select=16,keep=4,window=20",
        "vertical_slash:block=16,vertical=8,slash=2", "quest:page=8,keep=4", "snapkv:keep=20,prompt=100"})
    check(variant, share(variant, true));
  for (const char* variant : {"moba:block=16,keep=3", "quest:page=8,keep=4"}) check(variant, share(variant, true, Pass::decode));
}

TEST_CASE("what chooses nothing spends no time on it") {
  for (const char* variant : {"full", "local", "linear"}) CHECK(share(variant, true) == 0);
  CHECK(share("full", true, Pass::decode) == 0);
}
