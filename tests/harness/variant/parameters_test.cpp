#include "attn/variant/parameters.hpp"

#include "attn/variant/registry.hpp"
#include "catch.hpp"

using namespace attn;

namespace {

// Every element the first of Q.
void first_query(std::span<float> values, const Shape&, const FloatArrays& in) {
  std::fill(values.begin(), values.end(), in.q(0, 0, 0, 0));
}

const Parameters specs{{.name = "drawn", .shape = {3}, .init = init::normal(1)},
                       {.name = "fitted", .shape = {2, 2}, .init = init::constant(5), .fit = first_query}};

}  // namespace

TEST_CASE("What a variant fits comes from the inputs, all else from the seed", "[variant]") {
  const float seven = 7;
  const Arrays in{.q = View<const float, 4>(&seven, {1, 1, 1, 1})};
  const ParameterSet<float> fitted = fit_parameters(specs, in);
  CHECK(fitted.all().size() == 1);

  const ParameterSet<float> with = make_parameters(specs, 1, fitted), without = make_parameters(specs, 1);
  CHECK(std::ranges::equal(with["drawn"].values(), without["drawn"].values()));
  CHECK(std::ranges::count(with["fitted"].values(), 7.0f) == 4);
  CHECK(std::ranges::count(without["fitted"].values(), 5.0f) == 4);
  CHECK(with["fitted"].data() != fitted["fitted"].data());  // a copy: it lies where the run's memory is measured
}

TEST_CASE("An index table is refused by the first element that is no whole number of its range", "[variant]") {
  const Check check = whole_numbers(-1, 3);
  CHECK(check(std::vector<float>{-1, 0, 3}));
  CHECK(check(std::vector<float>{}));
  for (const float bad : {-2.0f, 4.0f, 0.5f, 1e30f}) {
    const Status status = check(std::vector<float>{0, bad, bad});
    REQUIRE(!status);
    CHECK(status.reason() == "element 1 is no whole number from -1 to 3");
  }
}
