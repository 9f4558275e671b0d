// The stranger's page inside this build: it registers, and its fast path agrees with its definition.
#include <cmath>
#include <limits>
#include <vector>

#include "attn/variant/planned.hpp"
#include "attn/variant/variant.hpp"
#include "catch.hpp"

namespace attn {
void register_uniform_window(Registry& registry, const std::string& family);
}

using namespace attn;

namespace {

// Largest difference between run and definition, both on seeded normal values.
double worst_error(const Variant& variant, const Problem& p) {
  const auto values = [](index_t count, const char* stream) {
    std::vector<float> data(static_cast<std::size_t>(count));
    const Rng rng(7, stream);
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(rng.normal(static_cast<index_t>(i)));
    return data;
  };
  const auto q = values(p.batch * p.heads * p.q_len * p.head_dim, "q");
  const auto k = values(p.batch * p.kv_heads * p.kv_len * p.head_dim, "k");
  const auto v = values(p.batch * p.kv_heads * p.kv_len * p.value_dim, "v");
  const View<const float, 4> q_view(q.data(), {p.batch, p.heads, p.q_len, p.head_dim});
  const View<const float, 4> k_view(k.data(), {p.batch, p.kv_heads, p.kv_len, p.head_dim});
  const View<const float, 4> v_view(v.data(), {p.batch, p.kv_heads, p.kv_len, p.value_dim});
  std::vector<float> result(static_cast<std::size_t>(p.batch * p.heads * p.q_len * p.value_dim),
                            std::numeric_limits<float>::quiet_NaN());
  const View<float, 4> out(result.data(), {p.batch, p.heads, p.q_len, p.value_dim});

  const Arena arena(2);
  Planned planned(variant, p, arena.threads());
  planned.equip({}, Workspace::Mode::checked);
  planned.run(arena, {.q = q_view, .k = k_view, .v = v_view, .out = out});
  CHECK(planned.workspace().gaps_intact());

  Values<double> exact;
  exact.q = Tensor<double>::from(q_view);
  exact.k = Tensor<double>::from(k_view);
  exact.v = Tensor<double>::from(v_view);
  for (index_t row = 0; row < p.q_len; ++row) exact.position.push_back(p.query_position(row));
  const Tensor<double> truth = variant.definition(p, exact, {});

  double worst = 0;
  for (std::size_t i = 0; i < result.size(); ++i) {
    const double error = std::abs(static_cast<double>(result[i]) - truth.data()[i]);
    worst = error <= worst ? worst : error;  // a NaN is an error too
  }
  return worst;
}

}  // namespace

TEST_CASE("a stranger's page works unedited inside the tree") {
  Registry registry;
  register_uniform_window(registry, "plugin");
  CHECK(registry.find("uniform_window")->family == "plugin");
  for (const char* name : {"uniform_window", "uniform_window:left=3,right=0", "uniform_window:left=0,right=9"}) {
    const auto variant = registry.configure(name);
    REQUIRE(variant);
    for (const bool causal : {false, true}) {
      for (const auto& [q_len, kv_len] : {std::pair<index_t, index_t>{1, 1}, {65, 65}, {200, 200}, {10, 70}, {70, 10}}) {
        const Problem p{2, 3, 3, q_len, kv_len, 16, 8, causal};
        INFO(name << " on " << to_string(p));
        CHECK(worst_error(**variant, p) < 1e-6);
      }
    }
  }
}
