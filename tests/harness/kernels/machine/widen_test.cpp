#include "attn/kernels/machine/widen.hpp"

#include <bit>
#include <cmath>
#include <vector>

#include "attn/kernels/machine/compute.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "catch.hpp"

using namespace attn;
using namespace attn::kernels;

namespace {

// Every pattern of 16 bits, in rows of lengths that leave ends.
template <class T>
void check_all_patterns(DType dtype) {
  std::vector<T> stored(65536 + 64);
  for (std::size_t i = 0; i < stored.size(); ++i) stored[i].bits = static_cast<std::uint16_t>(i);
  for (const index_t n : {1, 7, 16, 37, 256}) {
    std::vector<float> floats(static_cast<std::size_t>(n));
    for (index_t from = 0; from < 65536; from += n) {
      const auto* row = reinterpret_cast<const std::byte*>(stored.data() + from);
      widen(dtype, &row, 1, n, floats.data(), n);
      for (index_t x = 0; x < n; ++x) {
        const float found = floats[static_cast<std::size_t>(x)], right = to_float(stored[static_cast<std::size_t>(from + x)]);
        if (std::isnan(right) ? !std::isnan(found) : std::bit_cast<std::uint32_t>(found) != std::bit_cast<std::uint32_t>(right)) {
          FAIL(to_string(dtype) << " isa=" << active_isa() << " n=" << n << " pattern=" << from + x << ": " << found << ", not "
                                << right);
        }
      }
    }
  }
}

}  // namespace

TEST_CASE("widen: every bf16 and f16 becomes the float that it stands for, on every instruction set") {
  for (const std::string& isa : available_isas()) {
    REQUIRE(force_isa(isa));
    check_all_patterns<bf16>(DType::bf16);
    check_all_patterns<f16>(DType::f16);
  }
  REQUIRE(force_isa(""));
}

TEST_CASE("widen: a q8 value is its scale times a whole number, and ends are not read beyond") {
  std::vector<q8> row(3);
  for (std::size_t b = 0; b < 3; ++b) {
    row[b].scale = to_f16(b == 2 ? 0x1p-24f : 0.37f * static_cast<float>(b));  // zero, a usual one, the least
    for (int i = 0; i < 32; ++i) row[b].values[i] = static_cast<std::int8_t>(8 * i - 128);
  }
  for (const std::string& isa : available_isas()) {
    REQUIRE(force_isa(isa));
    for (const index_t n : {1, 31, 33, 64, 70, 96}) {
      std::vector<float> floats(static_cast<std::size_t>(n) + 1, -1.0f);
      const auto* at = reinterpret_cast<const std::byte*>(row.data());
      widen(DType::q8, &at, 1, n, floats.data(), n);
      for (index_t x = 0; x < n; ++x) {
        const q8& block = row[static_cast<std::size_t>(x / 32)];
        CHECK(floats[static_cast<std::size_t>(x)] == to_float(block.scale) * static_cast<float>(block.values[x % 32]));
      }
      CHECK(floats.back() == -1.0f);
    }
  }
  REQUIRE(force_isa(""));
}

TEST_CASE("compute: bf16_dot is for bf16 Q, K and V in a forward pass of many queries, where the machine has it") {
  Problem p{.dtype = DType::bf16, .kv_dtype = DType::bf16};
  CHECK(compute_of(p) == (has_bf16_dot() ? Compute::bf16_dot : Compute::f32));
  for (const DType other : {DType::f32, DType::f16}) {
    Problem q = p, k = p;
    q.dtype = k.kv_dtype = other;
    CHECK(compute_of(q) == Compute::f32);
    CHECK(compute_of(k) == Compute::f32);
  }
  Problem decode = p, training = p, few = p;
  decode.pass = Pass::decode;
  training.pass = Pass::forward_backward;
  few.q_len = 4;
  for (const Problem& other : {decode, training, few}) CHECK(compute_of(other) == Compute::f32);
  REQUIRE(force_isa("scalar"));
  CHECK(compute_of(p) == Compute::f32);
  CHECK_FALSE(force_compute("bf16_dot"));
  REQUIRE(force_isa(""));
}

TEST_CASE("compute: f32 can be asked for by name, and what is no name is refused") {
  const Problem p{.dtype = DType::bf16, .kv_dtype = DType::bf16};
  REQUIRE(force_compute("f32"));
  CHECK(compute_of(p) == Compute::f32);
  REQUIRE(force_compute(""));
  CHECK(compute_of(p) == (has_bf16_dot() ? Compute::bf16_dot : Compute::f32));
  CHECK(force_compute("fp8").reason() == "'fp8' is no compute; accepted: f32, bf16_dot");
  for (const Compute compute : {Compute::f32, Compute::bf16_dot}) CHECK(*parse_compute(to_string(compute)) == compute);
}
