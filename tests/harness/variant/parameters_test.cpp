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
