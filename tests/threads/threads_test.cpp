// What many threads would find, on a machine that need not have them.
#include <algorithm>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "attn/core/text.hpp"
#include "attn/core/time.hpp"
#include "attn/exec/limits.hpp"
#include "attn/exec/recorder.hpp"
#include "attn/measure/scaling.hpp"
#include "attn/prove/trial.hpp"
#include "attn/sweep/scaling.hpp"
#include "attn/variant/planned.hpp"
#include "catch.hpp"
#include "harness/variant_of.hpp"

namespace attn {

namespace {

// With default options, all variants and their other implementations, but for those over ranks.
VariantList all_variants() {
  auto list = test::registry().configure_list("*@*");
  REQUIRE(list);
  return *std::move(list);
}

Problem supported(const Variant& variant, Problem p) {
  if (!variant.supports(p)) p.causal = !p.causal;
  INFO(variant.short_name());
  REQUIRE(variant.supports(p));
  return p;
}

}  // namespace

TEST_CASE("more threads than processors give the bits that as many would") {
  for (const auto& variant : all_variants()) {
    const Problem p =
        supported(*variant, {.heads = 3, .kv_heads = 3, .q_len = 150, .kv_len = 150, .head_dim = 16, .value_dim = 16});
    for (const int threads : {16, 64}) {
      const trial::Case c(p, trial::Layout::dense, trial::Border::soft, trial::named_for(*variant, p));
      const Planned planned = trial::plan_trial(*variant, p, threads);
      const std::vector<float> many = trial::output_of_run(planned, Arena(threads), c);
      Recorder rehearsal(threads);
      c.fill_output(0);
      planned.run(c.arrays());
      INFO(variant->short_name() << " on " << threads << " threads");
      CHECK(trial::same_bits(many, c.output()));
    }
  }
}

namespace {

constexpr int many = 192;
constexpr index_t enough = 4 * many;  // tasks of a region: equal ones are a quarter of a thread's mean share each

// Eight sequences of 1024 tokens with eight heads: 64 heads, a third of the threads.
Problem served(const Variant& variant) {
  return supported(variant,
                   {.batch = 8, .heads = 8, .kv_heads = 8, .q_len = 1024, .kv_len = 1024, .head_dim = 16, .value_dim = 16});
}

// Variants with a region of fewer tasks that has 2 % of the work or more, by what a task of it is.
const std::map<std::string, std::string> coarse = {
    {"a head, whose state goes along the sequence",
     "gru lstm cosformer efficient hedgehog linear performer rfa taylor gated_delta gla kda mamba2 retention rwkv7"},
    {"a head, whose keys or landmarks are chosen together",
     "clustered clustered_improved reformer routing sinkhorn nystrom vertical_slash quest"},
    {"a head, whose rows are transformed or scaled", "fnet softmax1"},
    {"a panel of rows that shares what it reads, of a size that suits the caches",
     "additive luong_concat entmax relu sigmoid synth_dense_factored synth_mixture dynamic_conv light_conv conv1d copy_v mean_v "
     "gat gatv2 graph "
     "moba mla compressed inducing linformer global longformer full@unfused"},
    {"a block of weights that all sequences share", "aft gmlp mlp_mixer long_conv synth_random synth_random_factored"}};

bool is_coarse(const std::string& id) {
  return std::ranges::any_of(coarse, [&](const auto& reason) {
    const auto ids = split(reason.second, ' ');
    return std::ranges::find(ids, id) != ids.end();
  });
}

// Each task's least processor time of several rehearsals: neither others on the machine nor a first touch enters.
Recording rehearsed(const Variant& variant, const Problem& p, int times) {
  const trial::Case c(p, trial::Layout::dense, trial::Border::soft, trial::named_for(variant, p));
  Planned planned(variant, p, many);
  planned.equip(make_parameters(variant.parameters(p), 1));
  std::vector<Recording> recordings;
  Recorder recorder(many, Recorder::Clock::processor);
  for (int i = 0; i < times; ++i) {
    planned.run(c.arrays());
    recordings.push_back(recorder.take());
  }
  return least_of(recordings);
}

}  // namespace

// Some fifteen seconds.
TEST_CASE("192 threads find tasks enough in every region that counts, but for the variants that are named with their reason",
          "[.many]") {
  for (const auto& variant : all_variants()) {
    const std::string id = variant->name().label();
    INFO(id);
    const Problem p = served(*variant);
    const Recording recording = rehearsed(*variant, p, is_coarse(id) ? 1 : 3);
    const Parallelism found = parallelism_of(recording);
    if (is_coarse(id)) {  // else its line above is to go
      CHECK(std::ranges::any_of(recording.regions, [](const RecordedRegion& r) { return std::ssize(r.tasks_s) < enough; }));
      continue;
    }
    CHECK(found.fewest >= enough);
    CHECK(found.largest_s <= found.work_s / many);  // four times what equal tasks would be
  }
}

// A task of these works on whole rows of weights, or transforms a channel over all tokens.
constexpr std::string_view long_rows =
    "aft fnet long_conv routing additive entmax luong_concat relu sigmoid nsa synth_dense_factored synth_mixture "
    "synth_random_factored "
    "clustered_improved vertical_slash snapkv full@unfused";

TEST_CASE("a worker's scratch memory fits its second cache, but for whole rows at long sequences: then 384 bytes a token more") {
  const auto growing = split(long_rows, ' ');
  for (const auto& variant : all_variants()) {
    const std::string id = variant->name().label();
    for (const index_t n : {1024, 16384}) {
      Problem p = served(*variant);
      p.q_len = p.kv_len = n;
      if (!variant->supports(p)) continue;
      const auto bytes = [&](int threads) { return Planned(*variant, p, threads).workspace_bytes(); };
      const bool grows = std::ranges::find(growing, id) != growing.end();
      INFO(id << " at " << n);
      CHECK((bytes(many) - bytes(many / 2)) / (many / 2) <= (index_t{1} << 20) + (grows ? 384 * (n - 1024) : 0));
    }
  }
}

// Time is taken, so it is asked for by its tag. A thread that spins for another takes the processor from it.
TEST_CASE("more threads than processors take at most half as long again", "[.time]") {
  const int cores = usable_cores();
  struct Timed {
    const char* name;
    index_t length;
  };
  for (const auto& [name, n] :
       {Timed{"full", 2048}, Timed{"performer", 8192}, Timed{"sinkhorn", 8192}}) {  // above 10 ms on two cores
    const auto variant = test::variant_of(name);
    const Problem p{.heads = 8, .kv_heads = 8, .q_len = n, .kv_len = n, .head_dim = 64, .value_dim = 64};
    const trial::Case c(p);
    const auto least_s = [&](int threads) {
      const Planned planned = trial::plan_trial(*variant, p, threads);
      const Arena arena(threads, Pinning::cores);
      double least = std::numeric_limits<double>::infinity();
      for (int i = 0; i < 12; ++i) {
        const double begin_s = monotonic_s();
        planned.run(arena, c.arrays());
        if (i > 1) least = std::min(least, monotonic_s() - begin_s);
      }
      return least;
    };
    const double alone_s = least_s(cores);
    for (const int threads : {16, 64}) {
      const double crowded_s = least_s(threads);
      INFO(name << ": " << alone_s << " s on " << cores << " threads, " << crowded_s << " s on " << threads);
      CHECK(crowded_s <= 1.5 * alone_s);
    }
  }
}

}  // namespace attn
