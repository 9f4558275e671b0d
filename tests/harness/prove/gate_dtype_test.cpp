// The gate of what is stored, or multiplied, in fewer bits than f32's.
#include <algorithm>
#include <cmath>
#include <vector>

#include "attn/core/rng.hpp"
#include "attn/prove/gate.hpp"
#include "attn/variant/variant.hpp"
#include "catch.hpp"

namespace attn {

namespace {

// Softmax attention whose fast path is never run: the tests write the outputs. It says of itself what it multiplies with.
template <kernels::Compute kCompute>
struct Page {
  struct Engine {
    static kernels::Compute compute(const Problem&) { return kCompute; }
  };
  static VariantInfo info() { return {.title = "test", .formula = "of the test"}; }
  static Cost cost(const Problem&, const NoOptions&) { return {}; }
  template <class T>
  static Tensor<T> definition(const Problem& p, const NoOptions&, const Values<T>& in, const ParameterSet<T>&) {
    return softmax_attention(p, in, every_key);
  }
  Page(const Problem&, const NoOptions&, WorkspacePlan&) {}
  void run(const Arrays&, const ParameterSet<float>&, Workspace&) const {}
};

template <kernels::Compute kCompute>
std::unique_ptr<Variant> page() {
  Registry registry;
  registry.add(std::make_unique<erase::TypeOf<Page<kCompute>>>("page", "test"));
  auto variant = registry.configure("page");
  REQUIRE(variant);
  return *std::move(variant);
}

// The same, computed by a program of another kind.
class Elsewhere final : public Implementation {
 public:
  Elsewhere() { id = "page", name = "guest"; }
  Status supports(const Problem&, const OptionValues&) const override { return {}; }
  Status supports_backward(const Problem&, const OptionValues&) const override { return {}; }
  std::unique_ptr<Plan> plan(const Problem&, const OptionValues&, WorkspacePlan&) const override { return nullptr; }
  std::span<const DType> dtypes() const override { return stored_dtypes; }
  bool reads_layouts() const override { return false; }
  bool steps() const override { return false; }
  bool merges() const override { return false; }
  bool is_guest() const override { return true; }
  std::string note(const Problem&, const OptionValues&, const Arrays&) const override { return ""; }
};

std::unique_ptr<Variant> guest() {
  Registry registry;
  registry.add(std::make_unique<erase::TypeOf<Page<kernels::Compute::f32>>>("page", "test"));
  registry.add(std::make_shared<const Elsewhere>());
  auto variant = registry.configure("page@guest");
  REQUIRE(variant);
  return *std::move(variant);
}

constexpr index_t n = 200, width = 32;
const Problem problem{.heads = 1,
                      .kv_heads = 1,
                      .q_len = n,
                      .kv_len = n,
                      .head_dim = width,
                      .value_dim = width,
                      .dtype = DType::bf16,
                      .kv_dtype = DType::bf16};

// Inputs as they were given and as bf16 stores them.
struct Inputs {
  std::vector<float> given[3];
  std::vector<bf16> kept[3];

  explicit Inputs(float factor = 1) {
    for (std::size_t t = 0; t < 3; ++t) {
      given[t].resize(n * width);
      kept[t].resize(n * width);
      Rng(1, "inputs").substream(t).normals(given[t]);
      for (float& value : given[t]) value *= factor;
      round_row(given[t].data(), n * width, DType::bf16, kept[t].data());
    }
  }
  Arrays stored() const {
    const auto view = [&](std::size_t t) { return View<const bf16, 4>(kept[t].data(), {1, 1, n, width}); };
    return {.q = view(0), .k = view(1), .v = view(2)};
  }
  Arrays floats() const {
    const auto view = [&](std::size_t t) { return View<const float, 4>(given[t].data(), {1, 1, n, width}); };
    return {.q = view(0), .k = view(1), .v = view(2)};
  }
};

GateResult judge(const Variant& variant, const Inputs& in, const std::vector<float>& out) {
  return check_against_definition(variant, problem, in.stored(), {}, 1, {out.data(), {1, 1, n, width}}, Arena(1));
}

template <class T>
std::vector<float> values_of(const Tensor<T>& t) {
  return {t.values().begin(), t.values().end()};
}

// The weights, before they are divided by their sum, as 16 bits hold them; the sum of these, or of those that were not yet rounded.
std::vector<float> with_rounded_weights(const Inputs& in, bool truncate, float factor) {
  const AsFloats floats(in.stored());
  const auto views = floats.views();
  std::vector<float> out(n * width);
  for (index_t i = 0; i < n; ++i) {
    std::vector<double> weight(n);
    double sum = 0;
    for (index_t j = 0; j < n; ++j) {
      double dot = 0;
      for (index_t d = 0; d < width; ++d) dot += double{views.q(0, 0, i, d)} * double{views.k(0, 0, j, d)};
      const auto w = static_cast<float>(std::exp(dot * problem.scale() - 3));
      const float kept =
          truncate ? to_float(bf16{static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(w) >> 16)}) : to_float(to_bf16(w));
      weight[static_cast<std::size_t>(j)] = kept * factor;
      sum += kept;
    }
    for (index_t d = 0; d < width; ++d) {
      double o = 0;
      for (index_t j = 0; j < n; ++j) o += weight[static_cast<std::size_t>(j)] * double{views.v(0, 0, j, d)};
      out[static_cast<std::size_t>(i * width + d)] = static_cast<float>(o / sum);
    }
  }
  return out;
}

}  // namespace

TEST_CASE("the truth is the definition of the stored numbers", "[gate]") {
  const Inputs in;
  const auto variant = page<kernels::Compute::f32>();
  const std::vector<float> of_stored = values_of(evaluate_definition(*variant, problem, in.stored(), {}).exact);
  CHECK(passed(judge(*variant, in, of_stored)));
  const std::vector<float> of_given = values_of(evaluate_definition(*variant, problem, in.floats(), {}).exact);
  CHECK_FALSE(passed(judge(*variant, in, of_given)));
}

TEST_CASE("weights of bf16 pass where products are made of bf16, and only there", "[gate]") {
  const Inputs in;
  const std::vector<float> out = with_rounded_weights(in, false, 1);
  const GateResult of_bf16 = judge(*page<kernels::Compute::bf16_dot>(), in, out);
  CHECK(passed(of_bf16));
  const GateResult of_floats = judge(*page<kernels::Compute::f32>(), in, out);
  CHECK_FALSE(passed(of_floats));
  CHECK(of_bf16.max_abs == of_floats.max_abs);  // the truth is the same
  CHECK(of_bf16.allowance_abs > 100 * of_floats.allowance_abs);
}

TEST_CASE("more than the rounding of weights is found where products are made of bf16", "[gate]") {
  const Inputs in;
  const auto variant = page<kernels::Compute::bf16_dot>();
  std::vector<float> out = with_rounded_weights(in, false, 1);
  out[17 * width + 3] += 0.03f;
  CHECK_FALSE(passed(judge(*variant, in, out)));
  CHECK_FALSE(passed(judge(*variant, in, with_rounded_weights(in, false, 1.05f))));
}

TEST_CASE("logits of bf16 pass in a framework's arithmetic, and not where only operands are rounded", "[gate]") {
  const Inputs in(3);  // logits up to some 40, of which bf16 keeps an eighth
  const AsFloats floats(in.stored());
  const auto views = floats.views();
  std::vector<float> out(n * width);
  for (index_t i = 0; i < n; ++i) {
    std::vector<double> weight(n);
    double largest = -1e30, sum = 0;
    for (index_t j = 0; j < n; ++j) {
      double dot = 0;
      for (index_t d = 0; d < width; ++d) dot += double{views.q(0, 0, i, d)} * double{views.k(0, 0, j, d)};
      weight[static_cast<std::size_t>(j)] = to_float(to_bf16(static_cast<float>(dot))) * problem.scale();
      largest = std::max(largest, weight[static_cast<std::size_t>(j)]);
    }
    for (double& w : weight) sum += w = std::exp(w - largest);
    for (index_t d = 0; d < width; ++d) {
      double o = 0;
      for (index_t j = 0; j < n; ++j) o += weight[static_cast<std::size_t>(j)] / sum * double{views.v(0, 0, j, d)};
      out[static_cast<std::size_t>(i * width + d)] = to_float(to_bf16(static_cast<float>(o)));
    }
  }
  CHECK(passed(judge(*guest(), in, out)));
  CHECK_FALSE(passed(judge(*page<kernels::Compute::bf16_dot>(), in, out)));
  out[17 * width + 3] += 2;
  CHECK_FALSE(passed(judge(*guest(), in, out)));
}

namespace {

// out = q, of which rows can be taken alone, or are said not to be.
template <bool row_wise>
struct CopyQ {
  static VariantInfo info() { return {.title = "test", .formula = "q", .row_wise = row_wise}; }
  static Cost cost(const Problem&, const NoOptions&) { return {}; }
  template <class T>
  static Tensor<T> definition(const Problem&, const NoOptions&, const Values<T>& in, const ParameterSet<T>&) {
    return in.q;
  }
  CopyQ(const Problem&, const NoOptions&, WorkspacePlan&) {}
  void run(const Arrays&, const ParameterSet<float>&, Workspace&) const {}
};

template <bool row_wise>
std::optional<double> error_of_copy(index_t rows) {
  Registry registry;
  registry.add(std::make_unique<erase::TypeOf<CopyQ<row_wise>>>("copy", "test"));
  const auto variant = registry.configure("copy");
  REQUIRE(variant);
  Problem p = problem;
  p.q_len = rows, p.kv_len = rows, p.head_dim = 1, p.value_dim = 1;
  std::vector<float> given(static_cast<std::size_t>(rows));
  std::vector<bf16> kept(given.size());
  for (std::size_t i = 0; i < given.size(); ++i) given[i] = i % 2 == 0 ? 2.0f : 1.00390625f;  // 1 + 2^-8 is 1, by a tie
  round_row(given.data(), rows, DType::bf16, kept.data());
  const View<const float, 4> floats(given.data(), {1, 1, rows, 1});
  const View<const bf16, 4> stored(kept.data(), {1, 1, rows, 1});
  return storage_error(**variant, p, {.q = stored, .k = stored, .v = stored}, {.q = floats, .k = floats, .v = floats}, {});
}

}  // namespace

TEST_CASE("what storage costs is the norm of the difference over that of what was given", "[gate]") {
  const double of_two_rows = 0.00390625 / std::sqrt(4 + 1.00390625 * 1.00390625);
  CHECK(error_of_copy<true>(2).value() == Approx(of_two_rows));
  CHECK(error_of_copy<true>(1000).value() == Approx(of_two_rows));
  CHECK(error_of_copy<false>(1000).value() == Approx(of_two_rows));
  CHECK(error_of_copy<true>(3000).value() == Approx(of_two_rows).epsilon(0.5));  // of sampled rows
  CHECK_FALSE(error_of_copy<false>(3000));
}

TEST_CASE("what storage costs is the distance of two definitions", "[gate]") {
  const Inputs in;
  const auto variant = page<kernels::Compute::f32>();
  const auto error = storage_error(*variant, problem, in.stored(), in.floats(), {});
  REQUIRE(error);
  CHECK((*error > 1e-4 && *error < 1e-2));
  CHECK(storage_error(*variant, problem, in.stored(), in.stored(), {}) == 0.0);
  Problem step = problem;
  step.q_len = 1;
  step.pass = Pass::decode;
  step.causal = true;
  const auto last = [](Arrays a) {
    a.q = a.q.part(2, n - 1, 1);
    return a;
  };
  const auto of_step = storage_error(*variant, step, last(in.stored()), last(in.floats()), {});
  REQUIRE(of_step);
  CHECK((*of_step > 1e-5 && *of_step < 2e-2));
}

}  // namespace attn
