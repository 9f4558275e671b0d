// How every page's learned tensors and random tables are drawn: kind and spread, as its paper or its authors' code has them. Of 64 heads,
// 96 tokens, head_dim 12 and value_dim 10, or 12 where a page wants that.
#include <set>

#include "variants/run.hpp"

using namespace attn;
using namespace attn::test;

namespace {

constexpr double h = 64, n = 96, d = 12, dv = 10;

struct Spread {
  double mean, std, most = 0;  // most: no element is further from the mean, and some are nearly as far; 0: nothing is said
};
Spread normal_of(double std) { return {0, std}; }
Spread uniform_of(double bound) { return {0, bound / std::sqrt(3.0), bound}; }
Spread glorot(double in, double out) { return uniform_of(std::sqrt(6 / (in + out))); }
Spread constant(double x) { return {x, 0, 0}; }
// b with sigmoid(b) = 2^(-tau / half_life)
Spread gate(double half_life, double tau) { return constant(-std::log(std::exp2(tau / half_life) - 1)); }

// ln u of a uniform u between 1 and 16: mean 16 ln 16 / 15 - 1, and from 0.001 to 16.
const Spread log_1_to_16{1.9574, 0.673}, log_to_16{1.7732, 0.997};
// b whose softplus is 0.001 to 0.1, uniform in its logarithm.
const Spread small_steps{-4.594, 1.337};

struct Drawn {
  const char *variant, *parameter;
  Spread spread;
};

const Drawn table[] = {
    {"aft", "w", normal_of(0.01)},
    {"aft:form=local", "w", normal_of(0.01)},
    {"aft:form=conv", "w", normal_of(0.01)},
    {"dynamic_conv", "W", glorot(d, 31)},
    {"light_conv", "w", glorot(h, 31)},
    {"gmlp", "W", uniform_of(1e-3 / n)},
    {"gmlp", "b", constant(1)},
    {"long_conv", "h", normal_of(1 / std::sqrt(n))},
    {"long_conv:filter=ema,order=4", "c", normal_of(1 / std::sqrt(4.0))},
    {"mlp_mixer", "W1", normal_of(1 / std::sqrt(n))},
    {"mlp_mixer", "b1", constant(0)},
    {"mlp_mixer", "W2", normal_of(1 / std::sqrt(512.0))},
    {"mlp_mixer", "b2", constant(0)},

    {"gat", "a", glorot(d, 1)},
    {"gat", "b", glorot(d, 1)},
    {"gatv2", "a", glorot(d, 1)},

    {"conv1d:width=7", "W", uniform_of(1 / std::sqrt(7 * d))},
    {"conv1d:width=7", "b", uniform_of(1 / std::sqrt(7 * d))},
    {"conv1d:width=7,depthwise=yes", "W", uniform_of(1 / std::sqrt(7.0))},
    {"gru", "W", uniform_of(1 / std::sqrt(d))},
    {"gru", "U", uniform_of(1 / std::sqrt(d))},
    {"gru", "b", uniform_of(1 / std::sqrt(d))},
    {"gru", "c", uniform_of(1 / std::sqrt(d))},
    {"lstm", "W", uniform_of(1 / std::sqrt(d))},
    {"lstm", "U", uniform_of(1 / std::sqrt(d))},
    {"lstm", "b", uniform_of(1 / std::sqrt(d))},
    {"lstm", "c", uniform_of(1 / std::sqrt(d))},

    {"clustered", "planes", normal_of(1)},
    {"clustered_improved", "planes", normal_of(1)},
    {"reformer", "rotations", normal_of(1)},
    {"routing", "centroids", normal_of(1)},
    {"sinkhorn:block=16", "W1", glorot(d, d)},
    {"sinkhorn:block=16", "b1", constant(0)},
    {"sinkhorn:block=16", "W2", glorot(d, 6)},
    {"sinkhorn:block=16", "b2", constant(0)},
    {"sinkhorn:block=16,noise=yes", "gumbel", {0.5772, 1.2825}},

    {"gated_delta", "a_log", log_to_16},
    {"gated_delta", "gate_w", normal_of(1 / std::sqrt(d))},
    {"gated_delta", "gate_b", small_steps},
    {"gated_delta", "beta_w", normal_of(1 / std::sqrt(d))},
    {"gated_delta", "beta_b", constant(0)},
    {"gla:rank=5", "gate_in", normal_of(1 / std::sqrt(d))},
    {"gla:rank=5", "gate_out", normal_of(1 / std::sqrt(5.0))},
    {"gla:half_life=64,tau=16", "gate_b", gate(64, 16)},
    {"kda", "a_log", log_1_to_16},
    {"kda:rank=5", "gate_in", normal_of(1 / std::sqrt(d))},
    {"kda:rank=5", "gate_out", normal_of(1 / std::sqrt(5.0))},
    {"kda", "gate_b", small_steps},
    {"kda", "beta_w", normal_of(1 / std::sqrt(d))},
    {"kda", "beta_b", constant(0)},
    {"mamba2", "a_log", log_1_to_16},
    {"mamba2", "dt_w", normal_of(1 / std::sqrt(d))},
    {"mamba2", "dt_b", small_steps},
    {"mamba2", "skip", constant(1)},
    {"fox", "gate_w", normal_of(1 / std::sqrt(d))},
    {"fox:half_life=64", "gate_b", gate(64, 1)},
    {"nsa", "W", constant(0)},
    {"nsa", "b", constant(0)},
    {"qk_norm", "q_weight", constant(1)},
    {"qk_norm", "k_weight", constant(1)},
    {"qk_norm:norm=l2", "scale", constant(10)},
    {"retention:decay=learned", "gate_w", normal_of(1 / std::sqrt(d))},
    {"retention:decay=learned,half_life=64", "gate_b", gate(64, 1)},
    {"rwkv7", "k_k", {0.71, 0.1 * std::sqrt((d + 1) / (d - 1) / 12), 0.05}},
    {"rwkv7", "k_a", constant(1.02)},
    {"rwkv7", "r", constant(-0.04)},
    {"rwkv7:rank=5", "w_in", normal_of(1 / std::sqrt(d))},
    {"rwkv7:rank=5", "w_out", normal_of(1 / std::sqrt(5.0))},
    {"rwkv7", "w_b", {-2.5, 6 * std::sqrt((d + 1) / (d - 1) / 12), 3}},
    {"rwkv7:rank=5", "a_in", normal_of(1 / std::sqrt(d))},
    {"rwkv7:rank=5", "a_out", normal_of(1 / std::sqrt(5.0))},
    {"rwkv7", "a_b", constant(0)},

    {"hedgehog", "W_q", {1 / d, std::sqrt(1 / d - 1 / (d * d))}},
    {"hedgehog", "W_k", {1 / d, std::sqrt(1 / d - 1 / (d * d))}},
    {"performer:m=1024", "W", normal_of(1)},
    {"performer:m=1024,projection=iid", "W", normal_of(1)},
    {"rfa:m=1024", "w", normal_of(1)},
    {"rfa", "sigma", constant(1)},
    {"rfa:gate=yes", "gate_w", constant(0)},
    {"rfa:gate=yes", "gate_b", constant(0)},
    {"taylor:dim=5", "W_q", normal_of(1 / std::sqrt(d))},
    {"taylor:dim=5", "W_k", normal_of(1 / std::sqrt(d))},

    {"mla:rope=3", "U", normal_of(1 / std::sqrt(d - 3 + dv))},
    {"mla:rope=3", "V", normal_of(1 / std::sqrt(d - 3 + dv))},
    {"compressed:r=4", "W_k", glorot(4 * d, 4 * d)},
    {"compressed:r=4", "W_v", glorot(4 * dv, 4 * dv)},
    {"compressed", "null_k", constant(0)},
    {"compressed", "null_v", constant(0)},
    {"inducing:m=32", "I", glorot(32, d)},
    {"inducing", "W_k", glorot(dv, d)},
    {"inducing", "W_v", glorot(dv, dv)},
    {"linformer:k=48,sharing=none", "E", normal_of(1 / std::sqrt(48.0))},
    {"linformer:k=48,sharing=none", "F", normal_of(1 / std::sqrt(48.0))},
    {"linformer:k=48,weights=small", "E", normal_of(0.02)},
    {"nystrom:conv=33", "conv", uniform_of(1 / std::sqrt(33.0))},

    {"additive:size=20", "W", glorot(d, 20)},
    {"additive:size=20", "U", glorot(d, 20)},
    {"additive:size=20", "v", glorot(20, 1)},
    {"luong_concat:size=20", "W", glorot(2 * d, 20)},
    {"luong_concat:size=20", "v", glorot(20, 1)},
    {"luong_general", "W", normal_of(1 / d)},
    {"softmax1:sink=learned", "sink", normal_of(0.02)},
    {"diff", "lambda_q1", normal_of(0.1)},
    {"diff", "lambda_k1", normal_of(0.1)},
    {"diff", "lambda_q2", normal_of(0.1)},
    {"diff", "lambda_k2", normal_of(0.1)},

    {"synth_dense", "W1", glorot(d, d)},
    {"synth_dense", "W2", glorot(d, n)},
    {"synth_dense_factored:a=8", "W", glorot(d, d)},
    {"synth_dense_factored:a=8", "Wa", glorot(d, 8)},
    {"synth_dense_factored:a=8", "Wc", glorot(d, n / 8)},
    {"synth_mixture", "alpha", constant(0)},
    {"synth_mixture", "R", glorot(n, n)},
    {"synth_mixture:with=dense", "W1", glorot(d, d)},
    {"synth_mixture:with=dense", "W2", glorot(d, n)},
    {"synth_random:cached=no", "R", glorot(n, n)},
    // e^x over the sum of n, of a uniform x up to b = sqrt(3 / n): relative to the mean, sqrt((b / tanh b - 1)(1 - 1/n)), as b sinh 2b / (2 sinh^2 b) is b / tanh b
    {"synth_random", "P", {1 / n, std::sqrt((std::sqrt(3 / n) / std::tanh(std::sqrt(3 / n)) - 1) * (1 - 1 / n)) / n}},
    {"synth_random_factored:k=8", "R1", glorot(n, 8)},
    {"synth_random_factored:k=8", "R2", glorot(8, n)},
};

// Whole numbers, whose tests are their pages'; and half-lives spread over octaves, long_conv_test's.
const std::set<std::string> elsewhere = {"clustered starts", "clustered_improved starts", "bigbird random_blocks", "long_conv A"};

Problem wide(const Variant& v) {
  Problem p =
      problem(static_cast<index_t>(n), static_cast<index_t>(d), v.info().causality == Causality::always, static_cast<index_t>(h));
  p.value_dim = static_cast<index_t>(dv);
  if (!v.supports(p)) p.value_dim = p.head_dim;
  if (!v.supports(p) || v.name().id == "compressed") p.causal = true;
  return p;
}

}  // namespace

TEST_CASE("learned tensors and random tables are drawn as their papers say") {
  for (const auto& [name, parameter, spread] : table) {
    const auto v = variant(name);
    const Problem p = wide(*v);
    INFO(name << ", " << parameter);
    REQUIRE(v->supports(p));
    const ParameterSet<float> drawn = make_parameters(v->parameters(p), 3);
    const Tensor<float>& tensor = drawn[parameter];
    double sum = 0, squares = 0, most = 0;
    for (const float x : tensor.values()) {
      sum += x - spread.mean;
      squares += (x - spread.mean) * (x - spread.mean);
      most = std::max(most, std::abs(x - spread.mean));
    }
    const auto count = static_cast<double>(tensor.size());
    // Five standard errors of a mean, and of a standard deviation of normal numbers.
    CHECK(std::abs(sum / count) <= 5 * spread.std / std::sqrt(count) + 1e-6 * std::abs(spread.mean));
    CHECK(std::abs(std::sqrt(squares / count) - spread.std) <=
          5 * spread.std / std::sqrt(2 * count) + 1e-6 * std::abs(spread.mean));
    if (spread.most > 0) {
      CHECK(most <= spread.most * (1 + 1e-6));
      CHECK(most >= spread.most * (1 - 8 / count));
    }
  }
}

TEST_CASE("no page draws what is not in the table") {
  std::set<std::string> known = elsewhere;
  for (const auto& [name, parameter, spread] : table) known.insert(variant(name)->name().id + " " + parameter);
  const auto all = registry().configure_list("*");
  REQUIRE(all);
  for (const auto& v : *all) {
    for (const ParameterSpec& spec : v->parameters(wide(*v))) {
      INFO("add '" << v->name().id << " " << spec.name << "' to the table");
      CHECK(known.count(v->name().id + " " + spec.name) == 1);
    }
  }
}
