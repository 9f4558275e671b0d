#include "attn/layer/encoder_decoder.hpp"

#include <set>

#include "attn/algebra/recurrent.hpp"
#include "attn/layer/cross.hpp"
#include "harness/algebra/samples.hpp"
#include "harness/variant_of.hpp"

using namespace attn;
using namespace attn::test;

namespace {

constexpr index_t source_length = 5, answers = 4, classes = 3;

ModelShape shape_of(Body body, bool causal = false) {
  return {.layer = {.width = 8, .heads = 2, .mlp = body == Body::layers ? 6 : 0, .causal = causal},
          .layers = body == Body::layers ? 2 : 1,
          .body = body,
          .length = source_length,
          .symbols = 6,
          .classes = classes,
          .pool = Pool::decoded,
          .answers = answers};
}

Tokens some_tokens() {
  return {Indices::from({3, source_length, 1}, [](index_t b, index_t i, index_t) { return (3 * b + i * i) % 6; }),
          Indices({3, answers}),
          Indices::from({3, answers}, [](index_t b, index_t t) { return t == 0 ? classes : (b + t) % classes; })};
}

ParameterSet<double> drawn(const ModelShape& shape, const Variant& variant) {
  return widen(make_parameters(model_parameters(shape, variant), 3));
}

std::set<std::string> names_of(const Parameters& parameters) {
  std::set<std::string> names;
  for (const auto& spec : parameters) names.insert(spec.name);
  return names;
}

std::string refusal(const ModelShape& shape, const std::string& variant) {
  const Status status = supports(shape, *variant_of(variant));
  return status ? "" : status.reason();
}

}  // namespace

TEST_CASE("Gradients of an encoder and a decoder agree with central differences, whatever score joins them", "[layer]") {
  const auto check = [](Body body, const char* name) {
    INFO(name << " " << to_string(body));
    const auto variant = variant_of(name);
    const ModelShape shape = shape_of(body);
    REQUIRE(supports(shape, *variant));
    const auto specs = model_parameters(shape, *variant);
    const auto start = drawn(shape, *variant);
    std::vector<Tensor<double>> leaves;
    for (const auto& spec : specs) leaves.push_back(start[spec.name]);
    check_gradient(leaves, [&](const auto& in) {
      ParameterSet<double> set;
      for (std::size_t i = 0; i < specs.size(); ++i) set.set(specs[i].name, in[i]);
      return logits(shape, *variant, set, some_tokens());
    });
  };
  for (const char* name : {"full", "additive:size=3", "luong_general", "luong_concat", "linear", "mean_v", "gru"})
    check(Body::recurrent, name);
  for (const char* name : {"full", "additive:size=3", "luong_general", "linear"}) check(Body::layers, name);
}

TEST_CASE("The gradient of cross-attention agrees with central differences, and a row of it is that of the whole", "[layer]") {
  const LayerShape shape{.width = 8, .heads = 2};
  index_t joined = 0;
  for (const auto& type : registry().all()) {
    const std::string& name = type->id;
    const auto variant = variant_of(name);
    if (!supports_cross(shape, *variant, 3, 5)) continue;
    INFO(name);
    ++joined;
    const auto specs = cross_parameters(shape, *variant, 3, 5);
    const auto set = widen(make_parameters(specs, 1));
    const Weights<double> weights(set);
    const auto x = random({2, 3, 8}, "x"), others = random({2, 5, 8}, "others");
    const auto whole = cross(shape, *variant, weights, x, cross_memory(shape, *variant, weights, others), 3);
    for (index_t row = 0; row < 3; ++row) {
      const auto alone =
          cross(shape, *variant, weights, slice(x, 1, row, row + 1), cross_memory(shape, *variant, weights, others), 3, row);
      CHECK(largest_difference(alone, slice(whole, 1, row, row + 1)) < 1e-12);
    }
    if (variant->info().exactness != Exactness::exact && name != "additive") continue;
    check_gradient({x, others}, [&](const auto& in) {
      return cross(shape, *variant, weights, in[0], cross_memory(shape, *variant, weights, in[1]), 3);
    });
  }
  CHECK(joined > 15);
}

TEST_CASE("Cross-attention by full is softmax over the other sequence", "[layer]") {
  const LayerShape shape{.width = 4, .heads = 1};
  const auto variant = variant_of("full");
  const auto set = widen(make_parameters(cross_parameters(shape, *variant, 2, 3), 1));
  const auto x = random({1, 2, 4}, "x"), others = random({1, 3, 4}, "others");
  const auto weights = softmax(matmul_transposed(matmul(x, set["Wq"]), matmul(others, set["Wk"])) * 0.5);
  const auto expected = matmul(matmul(weights, matmul(others, set["Wv"])), set["Wo"]);
  const Weights<double> own(set);
  CHECK(largest_difference(cross(shape, *variant, own, x, cross_memory(shape, *variant, own, others), 2), expected) < 1e-12);
}

TEST_CASE("What is decoded is what teacher forcing answers when it is told the same", "[layer]") {
  for (const Body body : {Body::recurrent, Body::layers}) {
    for (const char* name : {"full", "additive:size=3", "linear", "gru"}) {
      const auto variant = variant_of(name);
      const ModelShape shape = shape_of(body);
      if (!supports(shape, *variant)) continue;
      INFO(name << " " << to_string(body));
      auto set = drawn(shape, *variant);
      set.set("head", set["head"] * 5.0);  // answers that are far from a tie, and depend on those before
      Tokens tokens = some_tokens();
      const Indices decoded = decode(shape, *variant, set, tokens);
      tokens.before = Indices::from({3, answers}, [&](index_t b, index_t t) { return t == 0 ? classes : decoded(b, t - 1); });
      CHECK(list(argmax(logits(shape, *variant, set, tokens))) == list(decoded));
    }
  }
}

TEST_CASE("A beam that holds every sequence of answers finds the likeliest, which greedy decoding may miss", "[layer]") {
  const auto variant = variant_of("full");
  index_t missed = 0;
  for (const std::uint64_t seed : {1, 2, 3, 4, 5, 6}) {
    for (const Body body : {Body::recurrent, Body::layers}) {
      ModelShape shape = shape_of(body);
      shape.answers = 3;
      const auto set = widen(make_parameters(model_parameters(shape, *variant), seed));
      Tokens tokens = some_tokens();
      const auto probability = [&](const Indices& of, index_t b) {
        tokens.before = Indices::from({3, 3}, [&](index_t i, index_t t) { return t == 0 ? classes : of(i, t - 1); });
        const auto log_p = log_softmax(logits(shape, *variant, set, tokens));
        double sum = 0;
        for (index_t t = 0; t < 3; ++t) sum += log_p(b, t, of(b, t));
        return sum;
      };
      const Indices greedy = decode(shape, *variant, set, tokens);
      shape.beam = 27;
      const Indices found = decode(shape, *variant, set, tokens);
      for (index_t b = 0; b < 3; ++b) {
        double likeliest = -1e300;
        for (index_t code = 0; code < 27; ++code) {
          const Indices all = Indices::from({3, 3}, [&](index_t, index_t t) { return code / (t == 0 ? 1 : t == 1 ? 3 : 9) % 3; });
          likeliest = std::max(likeliest, probability(all, b));
        }
        CHECK(probability(found, b) == Approx(likeliest).margin(1e-9));
        missed += probability(greedy, b) < likeliest - 1e-9;
      }
    }
  }
  CHECK(missed > 0);
}

TEST_CASE("Behind its end an answer repeats it, and a hypothesis that has ended keeps its likelihood", "[layer]") {
  const auto variant = variant_of("full");
  for (const index_t beam : {1, 3}) {
    ModelShape shape = shape_of(Body::recurrent);
    shape.end = 1, shape.beam = beam;
    auto set = drawn(shape, *variant);
    set.set("head_bias", Tensor<double>({classes}, {0, 50, 0}));
    CHECK(list(decode(shape, *variant, set, some_tokens())) == std::vector<index_t>(3 * answers, 1));
  }
}

TEST_CASE("An answer depends on what was answered before it and on nothing behind", "[layer]") {
  for (const Body body : {Body::recurrent, Body::layers}) {
    const auto variant = variant_of("full");
    const ModelShape shape = shape_of(body);
    const auto set = drawn(shape, *variant);
    const Tokens tokens = some_tokens();
    Tokens other = tokens;
    other.before = Indices::from(
        {3, answers}, [&](index_t b, index_t t) { return t < 2 ? tokens.before(b, t) : (tokens.before(b, t) + 1) % classes; });
    const auto a = logits(shape, *variant, set, tokens), b = logits(shape, *variant, set, other);
    CHECK(largest_difference(slice(a, 1, 0, 2), slice(b, 1, 0, 2)) < 1e-12);
    CHECK(largest_difference(slice(a, 1, 2, 3), slice(b, 1, 2, 3)) > 1e-3);
  }
}

TEST_CASE("Every token of the source reaches the first answer", "[layer]") {
  for (const char* name : {"full", "gru"}) {
    const auto variant = variant_of(name);
    const ModelShape shape = shape_of(Body::recurrent);
    const auto set = drawn(shape, *variant);
    const Tokens tokens = some_tokens();
    const auto first = slice(logits(shape, *variant, set, tokens), 1, 0, 1);
    for (index_t changed = 0; changed < source_length; ++changed) {
      Tokens other = tokens;
      other.symbols = Indices::from(
          tokens.symbols.shape(), [&](index_t b, index_t i, index_t s) { return (tokens.symbols(b, i, s) + (i == changed)) % 6; });
      CHECK(largest_difference(slice(logits(shape, *variant, set, other), 1, 0, 1), first) > 1e-6);
    }
  }
}

TEST_CASE("gru joins an encoder and a decoder by the last state alone: it has every parameter but those of cross-attention",
          "[layer]") {
  const ModelShape shape = shape_of(Body::recurrent);
  std::set<std::string> joined = names_of(model_parameters(shape, *variant_of("full")));
  CHECK(std::erase_if(joined, [](const std::string& name) { return name.starts_with("cross."); }) == 4);
  CHECK(names_of(model_parameters(shape, *variant_of("gru"))) == joined);
}

TEST_CASE("A causal encoder has one direction of all the width, another has two of half of it", "[layer]") {
  const auto shape_of_w = [](bool causal) {
    return drawn(shape_of(Body::recurrent, causal), *variant_of("full"))["encoder.W"].shape();
  };
  CHECK(shape_of_w(true) == Shape{1, 8, 24});
  CHECK(shape_of_w(false) == Shape{2, 8, 12});
}

TEST_CASE("A gated recurrent unit that keeps its state does, and one that forgets becomes its candidate", "[layer]") {
  const auto h = random({1, 2}, "h");
  const auto none = zeros<double>({2, 6});
  const auto step = [&](double keep) {
    return gru_step(Tensor<double>({1, 6}, {0, 0, keep, keep, 0.3, -0.4}), h, none, zeros<double>({1, 6}));
  };
  CHECK(largest_difference(step(50), h) < 1e-12);
  CHECK(largest_difference(step(-50), tanh(Tensor<double>({1, 2}, {0.3, -0.4}))) < 1e-12);
}

TEST_CASE("An encoder and a decoder that cannot be are refused in a sentence", "[layer]") {
  const ModelShape recurrent = shape_of(Body::recurrent), layers = shape_of(Body::layers);
  CHECK(refusal(recurrent, "fnet") == "fnet has no cross form: it mixes the tokens of one sequence");
  CHECK(refusal(recurrent, "lstm").find("has no cross form") != std::string::npos);
  CHECK(refusal(layers, "gru").find("gru has no cross form") != std::string::npos);
  CHECK(refusal(recurrent, "clustered").find("clustered makes no row without all others") != std::string::npos);
  ModelShape odd = recurrent;
  odd.layer.width = 9, odd.layer.heads = 3;
  CHECK(refusal(odd, "full") == "an encoder that reads both ways needs an even width, given 9");
  odd.layer.causal = true;
  CHECK(refusal(odd, "full").empty());
  odd.layer.heads = 2;
  CHECK(refusal(odd, "full") == "width=9 is no multiple of heads=2");
  ModelShape deep = recurrent;
  deep.layers = 2, deep.layer.mlp = 7;
  CHECK(refusal(deep, "full") ==
        "a recurrent encoder and decoder have one layer, no MLP and no convolution, given layers=2 mlp=7 conv=0");
  ModelShape turned = recurrent;
  turned.layer.positions = Positions::rotary;
  CHECK(refusal(turned, "full").find("take positions none, sinusoidal or learned, given rotary") != std::string::npos);
  ModelShape labelled = recurrent;
  labelled.pool = Pool::mean;
  CHECK(refusal(labelled, "full") == "a recurrent encoder and decoder answer in sequences, and this task does not");
  CHECK(parse_body("lstm").reason() == "'lstm' is not one of layers, recurrent");
  CHECK(*parse_body("recurrent") == Body::recurrent);
}
