#include "attn/train/training.hpp"

#include <cmath>
#include <map>
#include <set>

#include "attn/core/text.hpp"
#include "attn/train/plan.hpp"
#include "attn/train/row.hpp"
#include "catch.hpp"
#include "harness/variant_of.hpp"

using namespace attn;
using namespace attn::test;

namespace {

RunSettings small(index_t steps) {
  return {.layer = {.width = 16, .mlp = 16}, .batch = 8, .steps = steps, .rate = 3e-3, .seed = 1, .test_samples = 64};
}

}  // namespace

TEST_CASE("AdamW's first step has the size of the rate, against the gradient's sign", "[train]") {
  AdamW optimiser;
  std::vector<Tensor<float>> p{Tensor<float>({2}, {1.0f, -1.0f})};
  const double norm = optimiser.step(p, {Tensor<float>({2}, {0.3f, -0.4f})}, 0.1);
  CHECK(norm == Approx(0.5));
  CHECK(p[0](0) == Approx(0.9f).margin(1e-5));
  CHECK(p[0](1) == Approx(-0.9f).margin(1e-5));
}

TEST_CASE("AdamW clips by the norm over all parameters and decays matrices only", "[train]") {
  // Two steps, the second ten times as long: clipped, both enter alike.
  AdamW optimiser({.clip = 1});
  std::vector<Tensor<float>> p{Tensor<float>({1}, {0.0f}), Tensor<float>({1, 1}, {1.0f})};
  const Tensor<float> none({1, 1}, {0.0f});
  optimiser.step(p, {Tensor<float>({1}, {1.0f}), none}, 0.1);
  optimiser.step(p, {Tensor<float>({1}, {10.0f}), none}, 0.1);
  CHECK(p[0](0) == Approx(-0.2f).margin(1e-5));
  CHECK(p[1](0, 0) == Approx((1 - 0.1 * 0.01) * (1 - 0.1 * 0.01)));
}

TEST_CASE("The schedule warms up, then falls to nothing", "[train]") {
  CHECK(schedule(0, 1000) == Approx(0.02));
  CHECK(schedule(49, 1000) == Approx(1));
  CHECK(schedule(524, 1000) == Approx(0.5).margin(0.01));
  CHECK(schedule(999, 1000) < 1e-5);
  for (const index_t steps : {1, 2, 10, 60}) {
    for (index_t step = 0; step < steps; ++step) CHECK((schedule(step, steps) > 0 && schedule(step, steps) <= 1));
  }
}

TEST_CASE("Wilson's interval has its known values", "[train]") {
  CHECK(wilson(0.5, 100).low == Approx(0.4038).margin(1e-4));
  CHECK(wilson(0.5, 100).high == Approx(0.5962).margin(1e-4));
  CHECK(wilson(1, 2048).low == Approx(0.99813).margin(1e-5));
  CHECK(wilson(1, 2048).high == Approx(1));
}

TEST_CASE("Skill is 0 at the highest floor and 1 at the top", "[train]") {
  const std::vector<Level> levels{{"constant", 0.1}, {"some", 0.25}, {"window", 0.6, false}};
  CHECK(highest_floor(levels).name == "some");
  CHECK(skill(0.25, 0.25) == 0);
  CHECK(skill(1, 0.25) == 1);
}

TEST_CASE("A run gives the same bits twice, and others for another seed", "[train]") {
  const auto task = make_task("mqar:kv=2", 16);
  REQUIRE(task);
  const auto variant = variant_of("reformer:chunk=4");
  auto settings = small(12);
  const RunResult a = train(**task, *variant, settings), b = train(**task, *variant, settings);
  settings.seed = 2;
  const RunResult c = train(**task, *variant, settings);
  CHECK(a.loss == b.loss);
  CHECK(a.accuracy == b.accuracy);
  CHECK(a.loss != c.loss);
}

TEST_CASE("Weights are drawn from the seed: untrained models of several seeds answer the same questions differently", "[train]") {
  const auto task = make_task("mqar:kv=2", 16);
  REQUIRE(task);
  std::set<double> accuracies;
  for (const std::uint64_t seed : {1, 2, 3, 4, 5, 6}) {
    auto settings = small(0);
    settings.seed = seed, settings.test_samples = 512;
    accuracies.insert(train(**task, *variant_of("full"), settings).accuracy);
  }
  CHECK(accuracies.size() > 1);
}

TEST_CASE("Random tables are no trained parameters", "[train]") {
  const auto task = make_task("mqar:kv=2", 16);
  const auto trained = [&](const char* name) { return train(**task, *variant_of(name), small(1)).parameter_count; };
  CHECK(trained("performer:m=8") == trained("full"));
  CHECK(trained("linformer:k=4,sharing=kv") == trained("full") + 4 * 16);
}

TEST_CASE("A model is tested on longer sequences of its task: what it solves at any length it solves there", "[train]") {
  auto settings = small(300);
  settings.layer.positions = Positions::none, settings.extrapolate = 4;
  settings.rate = 1e-2;
  const auto task = make_task("majority", 15);
  const auto variant = variant_of("mean_v");
  REQUIRE(supports_longer(**task, *variant, settings));
  const RunResult r = train(**task, *variant, settings);
  CHECK(r.accuracy > 0.9);
  CHECK(r.longer_accuracy > 0.75);
  CHECK(r.longer_skill > 0.5);
  settings.extrapolate = 1;
  CHECK(train(**task, *variant, settings).accuracy == r.accuracy);
}

TEST_CASE("What is learned for one length is not tested at another, and says so", "[train]") {
  auto settings = small(1);
  settings.extrapolate = 4;
  const auto mqar = make_task("mqar:kv=2", 16);
  CHECK(supports_longer(**mqar, *variant_of("full"), settings).reason().find("for N=16 and cannot be tested at N=64") !=
        std::string::npos);
  settings.layer.positions = Positions::none;
  CHECK(supports_longer(**mqar, *variant_of("full"), settings));
  CHECK_FALSE(supports_longer(**mqar, *variant_of("synth_random:cached=no"), settings));
  CHECK(
      supports_longer(**make_task("mqar", 128), *variant_of("full"), settings).reason().find("other symbols or answers at N=512") !=
      std::string::npos);
}

TEST_CASE("At equal state bytes each variant has the heads that come nearest, and what keeps more is refused", "[train]") {
  Registry registry;
  register_builtin_variants(registry);
  TrainOptions options;
  options.tasks = {"mqar:kv=4"};
  options.variants = "linear,gated_delta,taylor:dim=4,local:left=3,right=0,local:left=60,right=0";
  options.causal = "yes";
  options.state_bytes = "4700";  // linear of width 64: 256 (D + 1)
  const auto plan = plan_training(options, registry);
  INFO((plan ? "" : plan.reason()));
  REQUIRE(plan);
  std::map<std::string, const PlannedRun*> run_of;
  for (const PlannedRun& run : plan->runs) run_of[registry.short_text(run.job.variant)] = &run;
  const auto state = [&](const std::string& name) {
    const PlannedRun& run = *run_of.at(name);
    CHECK(run.refusal.empty());
    return variant_of(name)->state_bytes(mixer_problem(run.job.settings.layer, 1, 64));
  };
  CHECK(run_of.at("full")->job.settings.layer.heads == 1);
  CHECK(run_of.at("linear")->job.settings.layer.heads == 4);
  CHECK(state("linear") == 256 * 17);
  CHECK(state("gated_delta") == 256 * 16);
  CHECK(state("local:left=3,right=0") == 4 * 128 * 4);
  CHECK(run_of.at("local:left=3,right=0")->job.settings.layer.heads == 1);
  CHECK(run_of.at("local:left=60,right=0")->refusal.find("bytes of a sequence, above --state-bytes 4700") != std::string::npos);
}

TEST_CASE("A run whose loss is no number ends as diverged, with the step", "[train]") {
  const auto task = make_task("mqar:kv=2", 16);
  auto settings = small(40);
  settings.rate = 1e30;
  const RunResult r = train(**task, *variant_of("full"), settings);
  CHECK(r.ending == Ending::diverged);
  CHECK((r.steps > 0 && r.steps < 40));
}

TEST_CASE("Question and answer survive the way to a worker and back", "[train]") {
  Job job{"mqar:kv=2", "full", 16, small(7)};
  job.settings.extrapolate = 4;
  job.settings.layer.positions = Positions::sinusoidal;
  job.settings.layer.causal = true;
  CHECK(job_key(job_from_json(to_json(job))) == job_key(job));
  RunResult r;
  r.ending = Ending::diverged;
  r.loss = std::nan("");
  r.steps = 5;
  r.levels = {{"chance", 0.5, true}, {"window_8", 0.75, false}};
  r.longer_accuracy = 0.25, r.longer_skill = 0.125;
  index_t peak = 0;
  const RunResult back = result_from_json(to_json(r, 1234), peak);
  CHECK(peak == 1234);
  CHECK((back.longer_accuracy == 0.25 && back.longer_skill == 0.125));
  CHECK((back.ending == Ending::diverged && std::isnan(back.loss) && back.steps == 5));
  CHECK((back.levels.size() == 2 && back.levels[1].name == "window_8" && !back.levels[1].floor));
}

TEST_CASE("Every length has full attention as a control, once, and before the others", "[train]") {
  Registry registry;
  register_builtin_variants(registry);
  TrainOptions options;
  options.tasks = {"mqar:kv=4", "listops:depth=2"};
  options.variants = "linear,full,fnet";
  options.n = "16,128";
  options.seed = "1,2";
  options.rate = "sweep";
  options.causal = "yes";
  const auto plan = plan_training(options, registry);
  REQUIRE(plan);
  CHECK(plan->points.size() == 4);
  CHECK(plan->runs.size() == 4 * 3 * 2 * 3);
  for (std::size_t i = 0; i < plan->runs.size(); ++i) {
    const auto& run = plan->runs[i];
    CHECK(run.control == (i < 4 * 2 * 3));
    CHECK(run.control == (run.job.variant == "full"));
    const bool fits = run.job.task == "mqar:kv=4";
    CHECK(run.refusal.empty() == (fits && run.job.variant != "fnet"));
    if (fits && !run.control && !run.refusal.empty()) CHECK(run.refusal.find("has no causal form") != std::string::npos);
  }
}

TEST_CASE("What is given twice is trained once", "[train]") {
  Registry registry;
  register_builtin_variants(registry);
  TrainOptions options;
  options.tasks = {"mqar:kv=4", "mqar", "mqar:kv=4", "mqar:kv=0"};  // 0 is the default
  options.n = "64,64";
  options.rate = "0.1,0.3,1e-1";
  const auto plan = plan_training(options, registry);
  REQUIRE(plan);
  REQUIRE(plan->points.size() == 2);
  CHECK(plan->points[0].task == "mqar:kv=4");
  CHECK(plan->points[1].task == "mqar");
  CHECK(plan->runs.size() == 2 * 2 * 2);
}

TEST_CASE("A state is what must be kept of a sequence: it grows with N where all tokens are kept, and only there", "[train]") {
  const auto bytes = [](const char* name, index_t length) {
    return variant_of(name)->state_bytes(mixer_problem({.width = 16, .heads = 2}, 1, length));
  };
  CHECK(bytes("full", 64) == 64 * (16 + 16) * 4);
  CHECK(bytes("synth_random:cached=no", 64) == 64 * 16 * 4);
  CHECK(bytes("local:left=4,right=3", 64) == 8 * (16 + 16) * 4);
  CHECK(bytes("local:left=4,right=3", 5) == 5 * (16 + 16) * 4);
  CHECK(bytes("blockwise:block=4,before=1,after=0", 64) == 8 * (16 + 16) * 4);
  CHECK(bytes("dilated:window=2,step=3", 64) == 13 * (16 + 16) * 4);
  CHECK(bytes("linear", 64) == 2 * 8 * 9 * 4);
  CHECK(bytes("linear", 64) == bytes("linear", 640));
  CHECK(bytes("linformer:k=4", 640) == 4 * (16 + 16) * 4);
  CHECK(bytes("gru", 640) == 16 * 4);
}
