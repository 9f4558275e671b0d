#include "attn/prove/gradient_check.hpp"

#include <cmath>

#include "attn/prove/conformance.hpp"
#include "attn/prove/trial.hpp"
#include "attn/variant/variant.hpp"
#include "catch.hpp"

namespace attn {

namespace {

// out = factor(q) v, with a factor that each of the variants below chooses by number.
template <class Choice>
struct Chosen {
  static VariantInfo info() { return {.title = "test", .formula = "factor(q) v", .cross = false}; }
  static Cost cost(const Problem&, const NoOptions&) { return {}; }
  template <class T>
  static Tensor<T> definition(const Problem&, const NoOptions&, const Values<T>& in, const ParameterSet<T>&) {
    return in.v * Choice::factor(in.q);
  }
  Chosen(const Problem&, const NoOptions&, WorkspacePlan&) {}
  void run(const Arrays&, const ParameterSet<float>&, Workspace&) const {}
};

template <class T>
double first(const Tensor<T>& q) {
  return static_cast<double>(q.data()[0]);
}

struct Smooth {
  template <class T>
  static Tensor<T> factor(const Tensor<T>& q) {
    return tanh(mean(q));
  }
};
struct Cut {  // depends on q, and the tape does not know
  template <class T>
  static Tensor<T> factor(const Tensor<T>& q) {
    return tanh(mean(detach(q)));
  }
};
struct Jumps {  // often, seen from a step of 1e-4
  template <class T>
  static Tensor<T> factor(const Tensor<T>& q) {
    return Tensor<T>(std::fmod(std::floor(std::abs(first(q)) * 5e3), 2.0));
  }
};
struct JumpsEverywhere {  // as far as any step can tell
  template <class T>
  static Tensor<T> factor(const Tensor<T>& q) {
    return Tensor<T>(std::sin(first(q) * 1e13));
  }
};

template <class Choice>
std::string failure() {
  Registry registry;
  registry.add(std::make_unique<erase::TypeOf<Chosen<Choice>>>("chosen", "test"));
  const auto variant = registry.configure("chosen");
  REQUIRE(variant);
  return compare_tape_with_differences(**variant,
                                       {.heads = 1, .kv_heads = 1, .q_len = 5, .kv_len = 5, .head_dim = 3, .value_dim = 3});
}

enum class Slip { none, of_q, k_unwritten, of_s };

// out = s q v, number by number, with a learned s.
template <Slip slip>
struct Product {
  static VariantInfo info() { return {.title = "test", .formula = "s q v", .cross = false}; }
  static Parameters parameters(const Problem&, const NoOptions&) {
    return {{.name = "s", .shape = {1}, .init = init::normal(1), .axes = "1", .doc = "a factor"}};
  }
  static Cost cost(const Problem&, const NoOptions&) { return {}; }
  template <class T>
  static Tensor<T> definition(const Problem&, const NoOptions&, const Values<T>& in, const ParameterSet<T>& parameters) {
    return in.q * in.v * parameters["s"];
  }
  Product(const Problem& p, const NoOptions&, WorkspacePlan&) : p_(p) {}
  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace&) const {
    const float s = parameters["s"].data()[0];
    each([&](index_t i, index_t d) { a.out(0, 0, i, d) = s * a.q(0, 0, i, d) * a.v(0, 0, i, d); });
  }
  void backward(const FloatArrays& a, const ParameterSet<float>& parameters, const FloatGradients& g, Workspace&) const {
    const float s = parameters["s"].data()[0];
    double of_s = 0;
    each([&](index_t i, index_t d) {
      const float q = a.q(0, 0, i, d), v = a.v(0, 0, i, d), d_out = g.d_out(0, 0, i, d);
      g.d_q(0, 0, i, d) = (slip == Slip::of_q ? 1.001f : 1.0f) * s * v * d_out;
      g.d_v(0, 0, i, d) = s * q * d_out;
      if (slip != Slip::k_unwritten) g.d_k(0, 0, i, d) = 0;
      of_s += static_cast<double>(q * v * d_out);
    });
    g.d_parameters.view<1>("s")(0) = static_cast<float>(slip == Slip::of_s ? -of_s : of_s);
  }

 private:
  template <class F>
  void each(F f) const {
    for (index_t i = 0; i < p_.q_len; ++i)
      for (index_t d = 0; d < p_.head_dim; ++d) f(i, d);
  }
  Problem p_;
};

// What check_backward says of a problem of 5 tokens, given inputs of 9.
template <Slip slip>
std::vector<GradientError> errors() {
  Registry registry;
  registry.add(std::make_unique<erase::TypeOf<Product<slip>>>("product", "test"));
  const auto variant = registry.configure("product");
  REQUIRE(variant);
  Problem p{.heads = 1, .kv_heads = 1, .q_len = 9, .kv_len = 9, .head_dim = 3, .value_dim = 3};
  const trial::Case inputs(p);
  p.q_len = p.kv_len = 5;
  return check_backward(**variant, p, inputs.arrays(), 7, Arena(1));
}

// The arguments whose gradient is beyond what is allowed.
std::string wrong(const std::vector<GradientError>& errors) {
  std::string names;
  for (const GradientError& e : errors) names += e.error <= e.allowed ? "" : e.argument;
  return names;
}

}  // namespace

TEST_CASE("A backward pass is held against the tape, argument by argument", "[measure]") {
  const auto right = errors<Slip::none>();
  REQUIRE(right.size() == 4);
  CHECK((right[0].argument == "q" && right[1].argument == "k" && right[2].argument == "v" && right[3].argument == "s"));
  CHECK(wrong(right).empty());
  CHECK(wrong(errors<Slip::of_q>()) == "q");
  CHECK(wrong(errors<Slip::k_unwritten>()) == "k");
  CHECK(wrong(errors<Slip::of_s>()) == "s");
  const auto off = errors<Slip::of_q>();
  CHECK(off[0].error == Approx(1e-3 * off[0].norm).epsilon(1e-3));
}

TEST_CASE("A gradient may be off by 1e-4 of itself and 1e-5 of the largest", "[measure]") {
  const auto all = errors<Slip::none>();
  double largest = 0;
  for (const GradientError& e : all) largest = std::max(largest, e.norm);
  CHECK(all[1].norm == 0);
  for (const GradientError& e : all) CHECK(e.allowed == Approx(1e-4 * e.norm + 1e-5 * largest));
}

TEST_CASE("A smooth definition's tape agrees with differences", "[measure]") { CHECK(failure<Smooth>() == ""); }

TEST_CASE("A gradient that the tape lacks is found", "[measure]") {
  CHECK(failure<Cut>().find("along a direction of q the tape says 0, differences") == 0);
}

TEST_CASE("Where steps cross to another choice, the slope is compared where they do not", "[measure]") {
  CHECK(failure<Jumps>() == "");
}

TEST_CASE("A definition without smooth surroundings is a failure, not a skip", "[measure]") {
  CHECK(failure<JumpsEverywhere>().find("directions of q differences do not settle") != std::string::npos);
}

}  // namespace attn
