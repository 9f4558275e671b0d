#include "attn/prove/gradient_check.hpp"

#include <cmath>

#include "attn/prove/conformance.hpp"
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

}  // namespace

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
