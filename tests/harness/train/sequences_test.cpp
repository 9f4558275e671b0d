#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "attn/train/plan.hpp"
#include "attn/train/training.hpp"
#include "catch.hpp"
#include "harness/variant_of.hpp"

using namespace attn;
using namespace attn::test;

namespace {

std::unique_ptr<Task> task_of(const std::string& name, index_t length) {
  auto task = make_task(name, length);
  INFO((task ? "" : task.reason()));
  REQUIRE(task);
  return *std::move(task);
}

std::vector<Sample> some(const Task& task, index_t count) { return samples(task, Split::test, 1, 0, count); }

std::string refusal(const std::string& name, index_t length) {
  const auto task = make_task(name, length);
  return task ? "" : task.reason();
}

RunSettings settings_of(const Task& task, index_t steps) {
  RunSettings s{.layer = task.recipe.layer, .layers = task.recipe.layers, .body = task.recipe.body, .steps = steps, .rate = 1e-2};
  s.layer.width = 32;
  s.test_samples = 200;
  return s;
}

TrainPlan plan_of(TrainOptions options) {
  auto plan = plan_training(options, registry());
  INFO((plan ? "" : plan.reason()));
  REQUIRE(plan);
  return *std::move(plan);
}

}  // namespace

TEST_CASE("reverse asks for the sequence backwards, sort for it in order", "[train]") {
  const auto reverse = task_of("reverse", 12), sort = task_of("sort:alphabet=5", 12);
  for (const Sample& s : some(*reverse, 20))
    CHECK(std::equal(s.symbols.begin(), s.symbols.end(), s.targets.rbegin(), s.targets.rend()));
  for (const Sample& s : some(*sort, 20)) {
    CHECK(std::ranges::is_sorted(s.targets));
    CHECK(std::ranges::is_permutation(s.targets, s.symbols));
    CHECK(*std::ranges::max_element(s.targets) < 5);
  }
  CHECK(some(*reverse, 1)[0].targets.size() == 12);
  CHECK(refusal("reverse", 1) == "reverse: N of at least 2 is needed, given N=1");
}

TEST_CASE("A decoder is told what was answered before, and at first that nothing was", "[train]") {
  const auto task = task_of("reverse:alphabet=4", 3);
  const auto list = some(*task, 2);
  const Batch batch = to_batch(*task, list);
  for (index_t b = 0; b < 2; ++b) {
    CHECK(batch.tokens.before(b, 0) == 4);
    for (index_t t = 1; t < 3; ++t) CHECK(batch.tokens.before(b, t) == batch.targets(b, t - 1));
  }
}

TEST_CASE("A short sequence is reversed by attention after a few steps, and the accuracy is of sequences right as a whole",
          "[train]") {
  const auto task = task_of("reverse:alphabet=4", 4);
  const RunResult learned = train(*task, *variant_of("full"), settings_of(*task, 200));
  CHECK(learned.accuracy >= 0.95);
  // Untrained answers are right one by one with a quarter, as a whole with 1/256.
  const RunResult untrained = train(*task, *variant_of("full"), settings_of(*task, 0));
  CHECK(untrained.accuracy < 0.05);
  CHECK_FALSE(learned.chrf);
  CHECK(learned.levels.front().accuracy < 0.05);
}

TEST_CASE("A caption names the one object that is unlike the others, and where it is", "[train]") {
  constexpr index_t colours = 4, shapes = 4, streams = 16;
  const auto task = task_of("captions", 16);
  std::map<index_t, int> by;
  for (const Sample& s : some(*task, 300)) {
    REQUIRE(s.symbols.size() == 16 * streams);
    std::map<std::vector<index_t>, std::vector<index_t>> patches;  // by what they show
    for (index_t patch = 0; patch < 16; ++patch) {
      const auto first = s.symbols.begin() + patch * streams;
      patches[std::vector<index_t>(first, first + streams)].push_back(patch);
    }
    REQUIRE(patches.size() == 3);
    std::vector<std::size_t> sizes;
    for (const auto& [look, places] : patches) sizes.push_back(places.size());
    std::ranges::sort(sizes);
    CHECK(sizes == std::vector<std::size_t>{1, 4, 11});
    std::set<index_t> colours_seen;
    for (const auto& [look, places] : patches) {
      for (index_t pixel = 0; pixel < streams; ++pixel) {
        const index_t colour = look[static_cast<std::size_t>(pixel)] - pixel * (colours + 1);
        REQUIRE((0 <= colour && colour <= colours));
        if (colour > 0) colours_seen.insert(colour - 1);
        if (places.size() == 1 && colour > 0) CHECK(colour - 1 == s.targets[0]);
      }
      if (places.size() != 1) continue;
      CHECK(s.targets[2] == colours + shapes + places[0] / 4);
      CHECK(s.targets[3] == colours + shapes + 4 + places[0] % 4);
    }
    CHECK((colours <= s.targets[1] && s.targets[1] < colours + shapes));
    ++by[static_cast<index_t>(colours_seen.size())];
  }
  // Odd by its shape in half of the pictures, by its colour in the others.
  CHECK((by.size() == 2 && by[1] > 100 && by[2] > 100));
}

TEST_CASE("Pictures of one colour have an odd shape; of one colour and one shape there are none", "[train]") {
  const auto task = task_of("captions:colours=1", 16);
  for (const Sample& s : some(*task, 50)) {
    CHECK(s.targets[0] == 0);
    CHECK((1 <= s.targets[1] && s.targets[1] < 5));
  }
  CHECK(refusal("captions:colours=1,shapes=1", 16) ==
        "captions: objects of one colour and one shape have no odd one; accepted: two of either");
  CHECK(refusal("captions", 20).find("the square of a side of at least 2 patches, such as 16 or 36, given N=20") !=
        std::string::npos);
  CHECK(refusal("captions:objects=5", 4) == "captions: objects=5 need as many patches, given N=4");
}

TEST_CASE("Of few samples training draws those alone, again and again: they are known by heart, and others are not", "[train]") {
  RunSettings few{.layer = {.width = 16, .mlp = 16}, .batch = 8, .steps = 120, .rate = 1e-2, .test_samples = 500, .samples = 4};
  const auto parity = task_of("parity", 16);
  const RunResult by_heart = train(*parity, *variant_of("full"), few);
  CHECK(by_heart.train_accuracy > 0.99);
  CHECK(by_heart.accuracy < 0.7);
  few.samples = 0;
  CHECK(train(*parity, *variant_of("full"), few).train_accuracy < 0.9);
}

TEST_CASE("Each number of training samples is a point of its own, without a bar for its control", "[train]") {
  TrainOptions options;
  options.tasks = {"glyphs"};
  options.n = "256";
  options.samples = "100..10000*10,0";
  options.variants = "conv1d";
  const TrainPlan plan = plan_of(options);
  REQUIRE(plan.points.size() == 4);
  CHECK(plan.runs.size() == 8);
  for (const Point& point : plan.points) CHECK(point.control_bar == (point.samples == 0 ? 0.8 : 0));
  std::set<std::string> keys;
  for (const PlannedRun& run : plan.runs) keys.insert(job_key(run.job));
  CHECK(keys.size() == 8);
  CHECK(repeat_command(plan.runs.back().job, options).find("--samples 0 ") != std::string::npos);
  options.samples = "many";
  CHECK(plan_training(options, registry()).reason().find("--samples: ") == 0);
}

TEST_CASE("A task says which body carries its tokens, and what cannot is a run with a refusal", "[train]") {
  TrainOptions options;
  options.tasks = {"reverse"};
  options.n = "6";
  options.variants = "additive,gru,fnet";
  std::map<std::string, std::string> refusals;
  for (const PlannedRun& run : plan_of(options).runs) {
    CHECK(run.job.settings.body == Body::recurrent);
    refusals[run.job.variant.substr(0, run.job.variant.find(':'))] = run.refusal;
  }
  CHECK((refusals["full"].empty() && refusals["additive"].empty() && refusals["gru"].empty()));
  CHECK(refusals["fnet"].find("has no cross form") != std::string::npos);
  options.body = "layers";
  for (const PlannedRun& run : plan_of(options).runs) CHECK(run.job.settings.body == Body::layers);
  options.body = "lstm";
  CHECK(plan_training(options, registry()).reason() == "--body: 'lstm' is not one of layers, recurrent");
}
