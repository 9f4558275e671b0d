#include "attn/prove/gate.hpp"

#include <cfloat>
#include <cmath>
#include <limits>
#include <vector>

#include "attn/core/rng.hpp"
#include "attn/prove/sampled_rows.hpp"
#include "attn/variant/variant.hpp"
#include "catch.hpp"

namespace attn {

namespace {

// Pages whose fast path is never run: the tests write the outputs.
template <class Choice>
struct Page {
  static VariantInfo info() { return {.title = "test", .formula = "of the test"}; }
  static Cost cost(const Problem&, const NoOptions&) { return {}; }
  template <class T>
  static Tensor<T> definition(const Problem& p, const NoOptions&, const Values<T>& in, const ParameterSet<T>&) {
    return Choice::template of<T>(p, in);
  }
  Page(const Problem&, const NoOptions&, WorkspacePlan&) {}
  void run(const Arrays&, const ParameterSet<float>&, Workspace&) const {}
};
struct CopyQ {  // rounds nothing
  template <class T>
  static Tensor<T> of(const Problem&, const Values<T>& in) {
    return in.q;
  }
};
struct Softmax {
  template <class T>
  static Tensor<T> of(const Problem& p, const Values<T>& in) {
    return softmax_attention(p, in, every_key);
  }
};

template <class Choice>
std::unique_ptr<Variant> page() {
  Registry registry;
  registry.add(std::make_unique<erase::TypeOf<Page<Choice>>>("page", "test"));
  auto variant = registry.configure("page");
  REQUIRE(variant);
  return *std::move(variant);
}

Problem problem(index_t q_len, index_t kv_len, index_t head_dim) {
  return {.heads = 1, .kv_heads = 1, .q_len = q_len, .kv_len = kv_len, .head_dim = head_dim, .value_dim = head_dim};
}

// An input, what its definition comes to, and an output to be judged.
struct Case {
  Problem p;
  std::unique_ptr<Variant> variant;
  std::vector<float> q, k, v, out;
  Reference reference;

  Case(std::unique_ptr<Variant> variant_, const Problem& problem, double logit_scale = 1, std::uint64_t seed = 1)
      : p(problem),
        variant(std::move(variant_)),
        q(normals(p.q_len, p.head_dim, std::sqrt(logit_scale), seed, "q")),
        k(normals(p.kv_len, p.head_dim, std::sqrt(logit_scale), seed, "k")),
        v(normals(p.kv_len, p.value_dim, 1, seed, "v")),
        out(static_cast<std::size_t>(p.q_len * p.value_dim)) {
    reference = evaluate_definition(*variant, p, arrays(), {});
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(reference.exact.values()[i]);
  }

  static std::vector<float> normals(index_t rows, index_t width, double scale, std::uint64_t seed, std::string_view stream) {
    std::vector<float> values(static_cast<std::size_t>(rows * width));
    Rng(seed, stream).normals(values);
    for (float& x : values) x *= static_cast<float>(scale);
    return values;
  }

  Arrays arrays() const {
    return {.q = View<const float, 4>(q.data(), {1, 1, p.q_len, p.head_dim}),
            .k = View<const float, 4>(k.data(), {1, 1, p.kv_len, p.head_dim}),
            .v = View<const float, 4>(v.data(), {1, 1, p.kv_len, p.value_dim})};
  }
  View<const float, 4> output() const { return {out.data(), {1, 1, p.q_len, p.value_dim}}; }
  float& at(index_t row, index_t x) { return out[static_cast<std::size_t>(row * p.value_dim + x)]; }

  GateResult judge() const { return check_against_definition(*variant, p, arrays(), {}, 1, output(), Arena(1)); }
  bool passes() const { return passed(judge()); }

  // As the header of the gate says it.
  double allowance() const {
    double rounding = 0, largest = 0;
    for (index_t i = 0; i < reference.exact.size(); ++i) {
      rounding = std::max(rounding, std::abs(double{reference.rounded.data()[i]} - reference.exact.data()[i]));
      largest = std::max(largest, std::abs(reference.exact.data()[i]));
    }
    return 2 * rounding + 16 * double{FLT_EPSILON} * largest + double{FLT_MIN};
  }
};

// Softmax attention in float, summed in an order of its own.
void attend_in_float(Case& c) {
  const Problem& p = c.p;
  std::vector<float> weight(static_cast<std::size_t>(p.kv_len));
  for (index_t i = 0; i < p.q_len; ++i) {
    float top = -FLT_MAX, sum = 0;
    for (index_t j = 0; j < p.kv_len; ++j) {
      float dot = 0;
      for (index_t x = p.head_dim; x-- > 0;)
        dot += c.q[static_cast<std::size_t>(i * p.head_dim + x)] * c.k[static_cast<std::size_t>(j * p.head_dim + x)];
      weight[static_cast<std::size_t>(j)] = dot * static_cast<float>(p.scale());
      top = std::max(top, weight[static_cast<std::size_t>(j)]);
    }
    for (float& w : weight) sum += w = std::exp(w - top);
    for (index_t x = 0; x < p.value_dim; ++x) {
      float o = 0;
      for (index_t j = 0; j < p.kv_len; ++j)
        o += weight[static_cast<std::size_t>(j)] * c.v[static_cast<std::size_t>(j * p.value_dim + x)];
      c.at(i, x) = o / sum;
    }
  }
}

}  // namespace

TEST_CASE("An output off by half the allowance passes, one off by three times the allowance does not", "[gate]") {
  for (Case& c : std::vector<Case>([] {
         std::vector<Case> cases;
         cases.emplace_back(page<CopyQ>(), problem(40, 50, 16));
         cases.emplace_back(page<Softmax>(), problem(40, 50, 16));
         cases.emplace_back(page<Softmax>(), problem(40, 50, 16), 10.0);  // twice the rounding is more than the floor
         return cases;
       }())) {
    const double allowance = c.allowance();
    CHECK(c.judge().allowance_abs == Approx(allowance));
    for (const index_t row : {0, 17, 39}) {
      for (const double way : {-1.0, 1.0}) {
        float& x = c.at(row, 5);
        const float right = x;
        x = right + static_cast<float>(way * 0.5 * allowance);
        CHECK(c.passes());
        x = right + static_cast<float>(way * 3 * allowance);
        CHECK_FALSE(c.passes());
        x = right;
      }
    }
  }
}

TEST_CASE("A fault in the last of many rows is found, and one in all rows but the first", "[gate]") {
  Case c(page<Softmax>(), problem(2048, 20, 4));
  REQUIRE(c.judge().scope == "rows");
  CHECK(c.passes());
  c.at(2047, 1) += 0.01f;
  CHECK_FALSE(c.passes());
  c.at(2047, 1) -= 0.01f;
  for (index_t i = 1; i < 2047; ++i) c.at(i, 1) += 0.01f;
  CHECK_FALSE(c.passes());
}

TEST_CASE("Sampled rows are different ones, in order, from the first to the last", "[gate]") {
  for (const index_t rows : {65, 2048, 100000}) {
    const std::vector<index_t> sample = sampled_rows(rows, 64);
    REQUIRE(sample.size() == 64);
    CHECK(sample.front() == 0);
    CHECK(sample.back() == rows - 1);
    for (std::size_t i = 1; i < sample.size(); ++i) CHECK(sample[i - 1] < sample[i]);
  }
  CHECK(sampled_rows(10, 64) == all_rows(10));
}

// A row whose largest logits tie has an error of one number's rounding, of which one draw says little.
TEST_CASE("Right outputs pass where logits reach hundreds, by luck of the definition's rounding or not", "[gate]") {
  int passed_at_once = 0, seeds = 0;
  for (const double logit_scale : {100.0, 700.0}) {
    for (std::uint64_t seed = 1; seed <= 40; ++seed, ++seeds) {
      Case c(page<Softmax>(), problem(100, 100, 64), logit_scale, seed);
      attend_in_float(c);
      passed_at_once += passed(compare_with_reference(c.reference, c.output()));
      INFO("logits of " << logit_scale << ", seed " << seed);
      CHECK(c.passes());
    }
  }
  CHECK(passed_at_once < seeds);  // else this test shows nothing
}

TEST_CASE("A wrong row is found where logits reach hundreds", "[gate]") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Case c(page<Softmax>(), problem(100, 100, 64), 100, seed);
    attend_in_float(c);
    const auto row = static_cast<index_t>(seed * 5 - 1);
    for (index_t x = 0; x < 64; ++x) c.at(row, x) = c.at((row + 1) % 100, x);
    INFO("seed " << seed);
    CHECK_FALSE(c.passes());
  }
}

TEST_CASE("A gate tells the largest error, and that of all outputs over the definition's", "[gate]") {
  Case c(page<CopyQ>(), problem(3, 3, 2));
  double norm2 = 0;
  for (const float x : c.q) norm2 += double{x} * double{x};
  c.at(1, 0) += 0.5f;
  c.at(2, 1) -= 0.25f;
  const GateResult gate = c.judge();
  CHECK(gate.done);
  CHECK(gate.scope == "whole");
  CHECK(gate.max_abs == Approx(0.5));
  CHECK(gate.relative == Approx(std::sqrt(0.3125 / norm2)));
  CHECK(compare_with_reference(c.reference, c.output()).relative == Approx(gate.relative));
}

TEST_CASE("What is not finite agrees with the same and with nothing else", "[gate]") {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> kinds = {nan, infinity, -infinity, 1.0f};
  for (std::size_t in = 0; in < kinds.size(); ++in) {
    for (std::size_t out = 0; out < kinds.size(); ++out) {
      Case c(page<CopyQ>(), problem(3, 3, 2));
      c.q[3] = kinds[in];
      c.at(1, 1) = kinds[out];
      INFO(kinds[in] << " and " << kinds[out]);
      CHECK(c.passes() == (in == out));
      if (in != out) CHECK(c.judge().max_abs == std::numeric_limits<double>::max());
    }
  }
}

namespace {

// out_i = sum of all x, or of all but the first: no row can be taken alone.
template <bool right>
struct SumOfAll {
  static VariantInfo info() { return {.title = "test", .formula = "sum", .reads = Reads::x, .cross = false, .row_wise = false}; }
  static Cost cost(const Problem&, const NoOptions&) { return {}; }
  template <class T>
  static Tensor<T> definition(const Problem&, const NoOptions&, const Values<T>& in, const ParameterSet<T>&) {
    return broadcast_to(sum(in.x(), 2, Keep::yes), in.x().shape());
  }
  SumOfAll(const Problem& p, const NoOptions&, WorkspacePlan&) : p_(p) {}
  void run(const FloatArrays& a, const ParameterSet<float>&, Workspace&) const {
    for (index_t d = 0; d < p_.head_dim; ++d) {
      double total = 0;
      for (index_t j = right ? 0 : 1; j < p_.q_len; ++j) total += static_cast<double>(a.x()(0, 0, j, d));
      for (index_t i = 0; i < p_.q_len; ++i) a.out(0, 0, i, d) = static_cast<float>(total);
    }
  }

 private:
  Problem p_;
};

template <bool right>
GateResult gate_of_sum(index_t n) {
  Registry registry;
  registry.add(std::make_unique<erase::TypeOf<SumOfAll<right>>>("page", "test"));
  auto variant = registry.configure("page");
  REQUIRE(variant);
  Case c(*std::move(variant), problem(n, n, 2));
  if (n > 1024) std::fill(c.out.begin(), c.out.end(), 0.0f);  // of a shorter problem: this output is not looked at
  return c.judge();
}

}  // namespace

TEST_CASE("What knows no row alone is compared whole, and where it is long a shorter twin is run and compared", "[gate]") {
  CHECK((gate_of_sum<true>(40).scope == "whole" && passed(gate_of_sum<true>(40))));
  CHECK((gate_of_sum<true>(1500).scope == "twin" && passed(gate_of_sum<true>(1500))));
  CHECK_FALSE(passed(gate_of_sum<false>(1500)));
}

}  // namespace attn
