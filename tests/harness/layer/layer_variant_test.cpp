#include "attn/layer/layer_variant.hpp"

#include "attn/exec/arena.hpp"
#include "attn/layer/layer.hpp"
#include "attn/variant/planned.hpp"
#include "harness/algebra/samples.hpp"

using namespace attn;
using namespace attn::test;

namespace {

std::unique_ptr<Variant> layer_of(const std::string& name, std::shared_ptr<LayerClock> clock = std::make_shared<LayerClock>()) {
  Registry registry;
  register_builtin_variants(registry);
  auto variant = registry.configure(name);
  REQUIRE(variant);
  return layer_around(*std::move(variant), std::move(clock));
}

View<const float, 4> view(const Tensor<float>& x) { return {x.data(), {x.extent(0), x.extent(1), x.extent(2), x.extent(3)}}; }

// Largest difference between the fast path and the definition in double, over the definition's norm per element.
double error_of(const Variant& layer, const Problem& p, int threads) {
  const Tensor<float> x = cast<float>(random({p.batch, p.heads, p.q_len, p.head_dim}, "x"));
  const auto parameters = make_parameters(layer.parameters(p), 3);
  const auto exact = layer.definition(p, Values<double>{cast<double>(x), {}, {}, {}}, widen(parameters));

  Planned planned(layer, p, threads);
  planned.equip(parameters, Workspace::Mode::checked);
  Elements<float> out(x.shape());
  const View<float, 4> to(out.writable(), {p.batch, p.heads, p.q_len, p.head_dim});
  planned.run(Arena(threads), {.q = view(x), .out = to});  // k and v are not read
  CHECK(planned.workspace().gaps_intact());
  return largest_difference(cast<double>(Tensor<float>(out)), exact) / std::sqrt(mean(square(exact)).item());
}

Problem problem(index_t length, bool causal = false) {
  return {
      .batch = 2, .heads = 2, .kv_heads = 2, .q_len = length, .kv_len = length, .head_dim = 16, .value_dim = 16, .causal = causal};
}

}  // namespace

TEST_CASE("A layer's fast path computes its definition, whatever the mixer reads", "[layer]") {
  for (const char* name :
       {"full", "local:left=5,right=5", "linear", "synth_dense", "synth_random", "linformer:k=8", "fnet", "gmlp"}) {
    const auto layer = layer_of(name);
    for (const index_t length : {1, 70, 300}) {
      for (const bool causal : {false, true}) {
        const Problem p = problem(length, causal);
        if (!layer->supports(p)) continue;
        for (const int threads : {1, 2}) {
          INFO(name << " at " << to_string(p) << ", threads=" << threads);
          CHECK(error_of(*layer, p, threads) < 1e-4);
        }
      }
    }
  }
}

TEST_CASE("A layer costs its mixer and the products that the mixer asks for", "[layer]") {
  const Problem p = problem(50);
  const double square = 2.0 * 2 * 50 * 32 * 32;  // of one product by [width, width]
  const auto beside = [&](const char* name) {
    Registry registry;
    register_builtin_variants(registry);
    return layer_of(name)->cost(p).flops - (*registry.configure(name))->cost(p).flops;
  };
  CHECK(beside("full") == Approx((4 + 4) * square));  // Wq, Wk, Wv, Wo, and an MLP twice as wide
  CHECK(beside("synth_random") == Approx((2 + 4) * square));
  CHECK(beside("fnet") == Approx((1 + 4) * square));
}

TEST_CASE("A layer's clock adds up the mixer's time within the layer's", "[layer]") {
  const auto clock = std::make_shared<LayerClock>();
  error_of(*layer_of("full", clock), problem(64), 1);
  const LayerClock once = *clock;
  CHECK((0 < once.mixer_s && once.mixer_s < once.layer_s));
  error_of(*layer_of("full", clock), problem(64), 1);
  CHECK((once.mixer_s < clock->mixer_s && once.layer_s < clock->layer_s));
}

TEST_CASE("A problem that no layer has is refused in a sentence", "[layer]") {
  const auto layer = layer_of("full");
  Problem wide = problem(8), grouped = problem(8), cross = problem(8);
  wide.value_dim = 8;
  grouped.kv_heads = 1;
  cross.kv_len = 9;
  CHECK(layer->supports(wide).reason().find("full in a layer maps x to x and needs value_dim equal to head_dim") == 0);
  CHECK(layer->supports(grouped).reason().find("full in a layer has one kv head for each query head") == 0);
  CHECK(layer->supports(cross).reason().find("full in a layer needs q_len equal to kv_len") == 0);
  CHECK(layer->supports_backward(problem(8)).reason() == "has no backward pass of its own");
  CHECK(layer_of("linformer:sharing=none,weights=lstsq")
            ->supports(problem(8))
            .reason()
            .find("linformer in a layer fits F to one Q, K and V, and those of a layer are not known before it runs") == 0);
  CHECK_FALSE(layer_of("fnet")->supports(problem(8, true)));
}
