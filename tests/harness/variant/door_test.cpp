// What is stored as other types than f32 reaches a page as floats.
#include <cmath>
#include <numeric>
#include <vector>

#include "attn/variant/planned.hpp"
#include "attn/variant/variant.hpp"
#include "catch.hpp"

namespace attn {

namespace {

// out_i = q_i + sum of k_j and v_j, all of one width; the page reads floats and says which types the problem had that it was planned for.
struct Sums {
  static inline std::vector<DType> planned_for;
  static VariantInfo info() { return {.title = "test", .formula = "of the test"}; }
  static Cost cost(const Problem& p, const NoOptions&) { return {.bytes = tensor_bytes(p)}; }
  template <class T>
  static Tensor<T> definition(const Problem&, const NoOptions&, const Values<T>& in, const ParameterSet<T>&) {
    return in.q + sum(in.k + in.v, 2, Keep::yes);
  }
  Sums(const Problem& p, const NoOptions&, WorkspacePlan& plan) : scratch_(plan.shared<float>(1)) {
    planned_for = {p.dtype, p.kv_dtype};
  }
  void run(const FloatArrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    workspace.shared(scratch_)[0] = 1;
    for (index_t h = 0; h < a.out.extent(1); ++h)
      for (index_t i = 0; i < a.out.extent(2); ++i)
        for (index_t d = 0; d < a.out.extent(3); ++d) {
          float x = a.q(0, h, i, d);
          for (index_t j = 0; j < a.k.extent(2); ++j) x += a.k(0, h, j, d) + a.v(0, h, j, d);
          a.out(0, h, i, d) = x;
        }
  }

 private:
  Booking<float> scratch_;
};

// Reads x alone.
struct CopyX {
  static VariantInfo info() { return {.title = "test", .formula = "of the test", .reads = Reads::x}; }
  static Cost cost(const Problem&, const NoOptions&) { return {}; }
  template <class T>
  static Tensor<T> definition(const Problem&, const NoOptions&, const Values<T>& in, const ParameterSet<T>&) {
    return in.q;
  }
  CopyX(const Problem&, const NoOptions&, WorkspacePlan&) {}
  void run(const FloatArrays& a, const ParameterSet<float>&, Workspace&) const {
    CHECK(a.k.data_handle() == nullptr);
    a.out(0, 0, 0, 0) = a.q(0, 0, 0, 0);
  }
};

// Takes bf16 as it lies.
struct Own {
  static constexpr std::array dtypes = {DType::f32, DType::bf16};
  static VariantInfo info() { return {.title = "test", .formula = "of the test"}; }
  static Cost cost(const Problem&, const NoOptions&) { return {}; }
  template <class T>
  static Tensor<T> definition(const Problem&, const NoOptions&, const Values<T>& in, const ParameterSet<T>&) {
    return in.q;
  }
  Own(const Problem& p, const NoOptions&, WorkspacePlan&) : p_(p) {}
  void run(const Arrays& a, const ParameterSet<float>&, Workspace&) const {
    CHECK((a.q.dtype() == p_.dtype && a.k.dtype() == p_.kv_dtype));
    a.out.f32_out()(0, 0, 0, 0) = static_cast<float>(a.q.dtype()) + 10 * static_cast<float>(a.k.dtype());
  }

 private:
  Problem p_;
};

template <class V>
std::unique_ptr<Variant> page() {
  Registry registry;
  registry.add(std::make_unique<erase::TypeOf<V>>("page", "test"));
  return *registry.configure("page");
}

Problem problem(DType dtype, DType kv_dtype) {
  return {
      .heads = 2, .kv_heads = 2, .q_len = 70, .kv_len = 130, .head_dim = 32, .value_dim = 32, .dtype = dtype, .kv_dtype = kv_dtype};
}

struct Inputs {
  std::vector<std::byte> memory[3];
  Arrays arrays;
  std::vector<float> out;

  explicit Inputs(const Problem& p) : out(static_cast<std::size_t>(p.heads * p.q_len * p.value_dim)) {
    const auto make = [&](std::size_t t, DType dtype, index_t rows) {
      std::vector<float> numbers(static_cast<std::size_t>(p.heads * rows * 32));
      for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i * 7 % 128) - 63.0f + static_cast<float>(t);
      for (std::size_t i = 0; i < numbers.size(); i += 32) numbers[i] = 127;  // q8's scale is then one, and these are exact
      memory[t].resize(static_cast<std::size_t>(bytes_of(dtype, std::ssize(numbers))));
      round_row(numbers.data(), std::ssize(numbers), dtype, memory[t].data());
      return Array(dtype, memory[t].data(), std::array<index_t, 4>{1, p.heads, rows, 32});
    };
    arrays = {.q = make(0, p.dtype, p.q_len),
              .k = make(1, p.kv_dtype, p.kv_len),
              .v = make(2, p.kv_dtype, p.kv_len),
              .out = View<float, 4>(out.data(), {1, p.heads, p.q_len, 32})};
  }
};

}  // namespace

TEST_CASE("a page that reads floats takes every stored type, with the copies booked") {
  const auto variant = page<Sums>();
  std::vector<float> expected;
  index_t booked = 0;
  for (const auto& [dtype, kv_dtype] : {std::pair{DType::f32, DType::f32},
                                        {DType::bf16, DType::bf16},
                                        {DType::f16, DType::q8},
                                        {DType::f32, DType::f16},
                                        {DType::bf16, DType::f32}}) {
    INFO(to_string(dtype) << " " << to_string(kv_dtype));
    const Problem p = problem(dtype, kv_dtype);
    REQUIRE(variant->supports(p));
    Inputs in(p);
    Planned planned(*variant, p, 2);
    CHECK((Sums::planned_for == std::vector{DType::f32, DType::f32}));
    planned.equip({}, Workspace::Mode::checked);
    planned.run(Arena(2), in.arrays);
    CHECK(planned.workspace().gaps_intact());
    if (expected.empty()) expected = in.out, booked = planned.workspace_bytes();
    CHECK(in.out == expected);
    const index_t q_floats = dtype == DType::f32 ? 0 : 2 * 70 * 32, kv_floats = kv_dtype == DType::f32 ? 0 : 2 * 2 * 130 * 32;
    CHECK(planned.workspace_bytes() >= booked + 4 * (q_floats + kv_floats));
    CHECK(planned.workspace_bytes() <= booked + 4 * (q_floats + kv_floats) + 4096);
  }
}

TEST_CASE("what a variant does not read is not copied") {
  const auto variant = page<CopyX>();
  Problem p = problem(DType::bf16, DType::bf16);
  p.kv_len = p.q_len;
  Inputs in(p);
  Planned planned(*variant, p, 1);
  planned.equip({});
  CHECK(planned.workspace_bytes() <= 4 * 2 * 70 * 32 + 1024);
  planned.run(Arena(1), in.arrays);
  CHECK(in.out[0] == 127);
}

TEST_CASE("a page that takes a type is given it as it lies") {
  const auto variant = page<Own>();
  const auto seen = [&](DType dtype, DType kv_dtype) {
    const Problem p = problem(dtype, kv_dtype);
    Inputs in(p);
    Planned planned(*variant, p, 1);
    planned.equip({});
    planned.run(Arena(1), in.arrays);
    return in.out[0];
  };
  CHECK(seen(DType::bf16, DType::bf16) == 11);
  CHECK(seen(DType::bf16, DType::f16) == 1);
  CHECK(seen(DType::f16, DType::bf16) == 10);
}

TEST_CASE("bytes are those of what is stored, and outputs are floats") {
  const auto variant = page<Sums>();
  const double queries = 2 * 70, keys = 2 * 130;
  CHECK(variant->cost(problem(DType::bf16, DType::q8)).bytes == queries * 64 + queries * 128 + keys * 2 * 34);
  CHECK(variant->cost(problem(DType::f32, DType::f16)).bytes == queries * 128 + queries * 128 + keys * 2 * 64);
}

TEST_CASE("q8 is for keys and values in whole blocks") {
  const auto variant = page<Sums>();
  CHECK(variant->supports(problem(DType::q8, DType::q8)).reason().find("takes keys and values of q8, and no queries") !=
        std::string::npos);
  Problem p = problem(DType::f32, DType::q8);
  p.value_dim = 40;
  CHECK(variant->supports(p).reason().find("multiples of 32") != std::string::npos);
}

}  // namespace attn
