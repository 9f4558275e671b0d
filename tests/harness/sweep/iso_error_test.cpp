#include "attn/sweep/iso_error.hpp"

#include <vector>

#include "catch.hpp"

namespace attn {

constexpr Goal small_error{Goal::Of::error, 0.1};

TEST_CASE("the smallest budget is found to a sixteenth, by few probes") {
  for (const index_t needed : {1, 2, 3, 17, 64, 100, 777, 1000}) {
    std::vector<index_t> probes;
    const auto found = smallest_budget(1, 1000, small_error, [&](index_t value) -> Result<double> {
      probes.push_back(value);
      return value >= needed ? 0.1 : 0.2;
    });
    REQUIRE(found);
    CHECK(found->value >= needed);
    CHECK(found->value <= needed + needed / 15 + 1);
    CHECK(found->reached == 0.1);
    CHECK(probes.size() <= 16);
  }
}

TEST_CASE("an error out of reach is refused with what the largest budget gave") {
  const auto found =
      smallest_budget(4, 100, small_error, [](index_t value) -> Result<double> { return 10.0 / static_cast<double>(value + 1); });
  REQUIRE(found);
  const auto none =
      smallest_budget(4, 50, small_error, [](index_t value) -> Result<double> { return 10.0 / static_cast<double>(value + 1); });
  REQUIRE_FALSE(none);
  CHECK(none.reason() == "no budget up to 50 reaches an error of 0.1: 50 gives 0.196");
}

TEST_CASE("a budget that a variant refuses is too small") {
  const auto found = smallest_budget(1, 64, small_error, [](index_t value) -> Result<double> {
    if (value < 10) return refuse("too few");
    return 0.0;
  });
  REQUIRE(found);
  CHECK(found->value == 10);
}

TEST_CASE("a skill is reached from below") {
  const Goal skill{Goal::Of::skill, 0.9};
  const auto rising = [](index_t value) -> Result<double> { return 1 - 1 / static_cast<double>(value); };
  const auto found = smallest_budget(1, 1000, skill, rising);
  REQUIRE(found);
  CHECK(found->value == 10);
  CHECK(smallest_budget(1, 8, skill, rising).reason() == "no budget up to 8 reaches a skill of 0.9: 8 gives 0.875");
}

TEST_CASE("one number sets every option that is marked") {
  const Budget window{{"left", "right"}, 1, 1000};
  CHECK(with_budget("local:left=128,right=128,sinks=4", window, 7) == "local:left=7,right=7,sinks=4");
}

}  // namespace attn
