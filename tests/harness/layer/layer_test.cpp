#include "attn/layer/layer.hpp"

#include "attn/layer/model.hpp"
#include "harness/algebra/samples.hpp"
#include "harness/variant_of.hpp"

using namespace attn;
using namespace attn::test;

namespace {

std::vector<std::string> names_of(const Parameters& parameters) {
  std::vector<std::string> names;
  for (const auto& spec : parameters) names.push_back(spec.name);
  return names;
}

bool has(const Parameters& parameters, const std::string& name) {
  const auto names = names_of(parameters);
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string refusal(const LayerShape& shape, const std::string& variant) {
  const Status status = supports(shape, *variant_of(variant), 16);
  return status ? "" : status.reason();
}

}  // namespace

TEST_CASE("A layer has only the projections that its mixer reads", "[layer]") {
  const LayerShape shape{.width = 8, .heads = 2};
  const auto full = layer_parameters(shape, *variant_of("full"), 6);
  CHECK((has(full, "Wq") && has(full, "Wk") && has(full, "Wv") && has(full, "Wo")));
  const auto synthesizer = layer_parameters(shape, *variant_of("synth_random:cached=no"), 6);
  CHECK((!has(synthesizer, "Wq") && !has(synthesizer, "Wk") && has(synthesizer, "Wv") && has(synthesizer, "mixer.R")));
  const auto fourier = layer_parameters(shape, *variant_of("fnet"), 6);
  CHECK((!has(fourier, "Wq") && !has(fourier, "Wk") && !has(fourier, "Wv") && has(fourier, "Wo")));
}

TEST_CASE("Gradients of a whole model agree with central differences", "[layer]") {
  for (const char* name :
       {"full", "efficient", "local:left=2,right=1", "synth_random:cached=no", "linformer:k=3", "fnet", "gmlp", "gru"}) {
    for (const Positions positions : {Positions::learned, Positions::rotary}) {
      const auto variant = variant_of(name);
      // The MLP's ReLU has kinks that differences may straddle; none does at this seed.
      const index_t mlp = positions == Positions::learned ? 6 : 0;
      ModelShape shape{.layer = {.width = 8, .heads = 2, .mlp = mlp, .conv = 3, .positions = positions},
                       .layers = 2,
                       .length = 6,
                       .symbols = 5,
                       .classes = 3,
                       .pool = positions == Positions::learned ? Pool::mean : Pool::chosen};
      if (positions == Positions::rotary && variant->info().reads != Reads::qkv) continue;
      INFO(name << " " << to_string(positions));
      REQUIRE(supports(shape, *variant));
      const auto specs = model_parameters(shape, *variant);
      const auto start = widen(make_parameters(specs, 3));
      std::vector<Tensor<double>> leaves;
      for (const auto& spec : specs) leaves.push_back(start[spec.name]);
      const Tokens tokens{Indices::from({2, 6, 1}, [](index_t b, index_t i, index_t) { return (3 * b + i * i) % 5; }),
                          Indices::from({2, 1}, [](index_t b, index_t) { return 2 + b; })};
      check_gradient(leaves, [&](const auto& in) {
        ParameterSet<double> set;
        for (std::size_t i = 0; i < specs.size(); ++i) set.set(specs[i].name, in[i]);
        return logits(shape, *variant, set, tokens);
      });
    }
  }
}

TEST_CASE("Rotary positions make a product depend on the distance alone", "[layer]") {
  const auto one = [](const char* name) { return broadcast_to(random({1, 1, 1, 6}, name), {1, 1, 9, 6}); };
  const auto logits = matmul_transposed(rotate(one("q")), rotate(one("k")));
  for (index_t i = 0; i + 1 < 9; ++i) {
    for (index_t j = 0; j + 1 < 9; ++j) CHECK(logits(0, 0, i, j) == Approx(logits(0, 0, i + 1, j + 1)).margin(1e-12));
  }
  CHECK(std::abs(logits(0, 0, 0, 0) - logits(0, 0, 0, 5)) > 1e-3);
}

TEST_CASE("ALiBi is softmax with -m (i - j) on the logits", "[layer]") {
  const LayerShape shape{.width = 8, .heads = 2, .positions = Positions::alibi, .causal = true};
  const Problem p = mixer_problem(shape, 1, 7);
  auto q = random({1, 2, 7, 4}, "q"), k = random({1, 2, 7, 4}, "k");
  const auto v = random({1, 2, 7, 4}, "v");
  const auto bias = tabulate<double>({2, 7, 7}, [](index_t h, index_t i, index_t j) {
    return -std::exp2(-8.0 * static_cast<double>(h + 1) / 2) * static_cast<double>(i - j);
  });
  const auto expected =
      matmul(softmax(matmul_transposed(q, k) * 0.5 + bias, mask({7, 7}, [](index_t i, index_t j) { return j <= i; })), v);
  add_alibi(q, k);
  const auto got = mix(*variant_of("full"), p, q, k, v, {});
  for (index_t i = 0; i < got.size(); ++i) CHECK(got.data()[i] == Approx(expected.data()[i]).margin(1e-12));
}

TEST_CASE("A layer that cannot be is refused in a sentence", "[layer]") {
  CHECK(refusal({.width = 10, .heads = 3}, "full") == "width=10 is no multiple of heads=3");
  CHECK(refusal({.width = 8, .heads = 1, .causal = true}, "fnet").find("has no causal form") != std::string::npos);
  CHECK(refusal({.width = 8, .positions = Positions::rotary}, "gmlp") ==
        "rotary positions act on queries and keys, which gmlp does not read");
  CHECK(refusal({.width = 6, .heads = 2, .positions = Positions::rotary}, "full") ==
        "rotary positions need an even head_dim, given 3");
  CHECK(refusal({.width = 8, .positions = Positions::alibi}, "full") ==
        "alibi positions are for causal softmax attention, given full in a bidirectional layer");
  CHECK(parse_positions("rope").reason().find("is not one of none, sinusoidal, learned, rotary, alibi") != std::string::npos);
  CHECK(refusal({.width = 8}, "full").empty());
}

TEST_CASE("The short convolution of a causal layer sees no later token", "[layer]") {
  const LayerShape shape{.width = 8, .heads = 2, .conv = 3, .causal = true};
  const auto variant = variant_of("full");
  const auto set = widen(make_parameters(layer_parameters(shape, *variant, 6), 1));
  const auto x = random({1, 6, 8}, "x");
  const auto changed = concat<double>({slice(x, 1, 0, 5), random({1, 1, 8}, "other")}, 1);
  const auto a = layer(shape, *variant, Weights<double>(set), x), b = layer(shape, *variant, Weights<double>(set), changed);
  for (index_t i = 0; i < 5 * 8; ++i) CHECK(a.data()[i] == Approx(b.data()[i]).margin(1e-12));
  CHECK(std::abs(a.data()[5 * 8] - b.data()[5 * 8]) > 1e-3);
}

TEST_CASE("A token is the sum of its symbols, and none is nothing", "[layer]") {
  const auto variant = variant_of("mean_v");
  const ModelShape shape{.layer = {.width = 4, .mlp = 0, .positions = Positions::none}, .length = 2, .symbols = 3, .classes = 2};
  const auto set = widen(make_parameters(model_parameters(shape, *variant), 1));
  const auto of = [&](std::vector<index_t> symbols) {
    return logits(shape, *variant, set, {Indices({1, 2, 2}, symbols), Indices({1, 1})});
  };
  CHECK(largest_difference(of({0, 1, 2, -1}), of({1, 0, -1, 2})) < 1e-12);
  CHECK(largest_difference(of({0, 1, 2, -1}), of({0, -1, 2, -1})) > 1e-3);
}
