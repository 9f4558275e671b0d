#include "attn/core/array.hpp"

#include <array>
#include <limits>
#include <vector>

#include "catch.hpp"

namespace {

using namespace attn;

std::vector<float> numbers(index_t count) {
  std::vector<float> list(static_cast<std::size_t>(count));
  for (index_t i = 0; i < count; ++i) list[static_cast<std::size_t>(i)] = static_cast<float>((i * 37) % 101 - 50);
  return list;
}

}  // namespace

TEST_CASE("an array of blocks counts elements, and a view of it blocks") {
  std::vector<q8> blocks(2 * 3 * 2);
  const View<q8, 3> view(blocks.data(), {2, 3, 2});
  const Array array = view;
  CHECK(array.dtype() == DType::q8);
  CHECK((array.extent(1) == 3 && array.extent(2) == 64 && array.stride(0) == 192 && array.stride(1) == 64 && array.stride(2) == 1));
  CHECK(array.bytes() == 12 * 34);
  const auto again = array.as<const q8, 3>();
  CHECK((again.extent(2) == 2 && again.stride(0) == 6 && again.stride(1) == 2));
  CHECK(&again(1, 2, 1) == &view(1, 2, 1));
  CHECK(&array.part(1, 2, 1).as<const q8, 3>()(1, 0, 0) == &view(1, 2, 0));
  CHECK(&array.part(2, 32, 32).as<const q8, 3>()(0, 1, 0) == &view(0, 1, 1));
  CHECK(array.part(2, 32, 32).as<const q8, 3>().extent(2) == 1);
}

TEST_CASE("an array of any strides is read as floats of the same numbers") {
  constexpr index_t rows = 5, width = 64, apart = 96;
  const std::vector<float> given = numbers(rows * width);
  for (const DType dtype : {DType::bf16, DType::f16, DType::q8}) {
    INFO(to_string(dtype));
    std::vector<std::byte> memory(static_cast<std::size_t>(bytes_of(dtype, rows * apart)));
    std::vector<float> kept(given.size());
    for (index_t i = 0; i < rows; ++i) {
      std::byte* to = memory.data() + bytes_of(dtype, i * apart);
      round_row(given.data() + i * width, width, dtype, to);
      widen_row(dtype, to, width, kept.data() + i * width);
    }
    const Array array(dtype, memory.data(), std::array<index_t, 4>{1, 1, rows, width},
                      std::array<index_t, 4>{rows * apart, rows * apart, apart, 1});
    const AsFloats floats({.q = array, .k = array.part(2, 1, 3)});
    const auto q = floats.arrays().q.f32(), k = floats.arrays().k.f32();
    for (index_t i = 0; i < rows; ++i)
      for (index_t d = 0; d < width; ++d) CHECK(q(0, 0, i, d) == kept[static_cast<std::size_t>(i * width + d)]);
    CHECK((k.extent(2) == 3 && k(0, 0, 2, 5) == q(0, 0, 3, 5)));
    CHECK(floats.arrays().v.empty());
  }
}

TEST_CASE("floats are read where they lie") {
  const std::vector<float> given = numbers(6);
  const Array array = View<const float, 4>(given.data(), {1, 1, 2, 3});
  CHECK(AsFloats({.q = array}).arrays().q.f32_data() == given.data());
}

TEST_CASE("arrays that were handed on do not change with those they came from") {
  const std::vector<float> one = numbers(1), two = numbers(2);
  NamedArrays first;
  first.set("gate", View<const float, 1>(one.data(), {1}));
  const NamedArrays second = first;
  first.set("gate", View<const float, 1>(two.data(), {2}));
  first.set("decay", View<const float, 1>(two.data(), {2}));
  CHECK((second["gate"].extent(0) == 1 && second.find("decay") == nullptr && first["gate"].extent(0) == 2));
}

TEST_CASE("a block of 32 numbers has ggml's scale and values") {
  std::vector<float> values(32, 0.0f);
  values[0] = -2;
  values[1] = 1;
  values[2] = 2.0f / 127 * 3.4f;
  const q8 block = to_q8(values.data());
  CHECK(block.scale.bits == to_f16(2.0f / 127).bits);
  CHECK((block.values[0] == -127 && block.values[1] == 64 && block.values[2] == 3 && block.values[3] == 0));
  std::vector<float> back(32);
  to_floats(block, back.data());
  CHECK(back[0] == -127 * to_float(block.scale));
  CHECK(std::abs(back[1] - 1) < 2.0f / 254 + 1e-3f);
  // What was rounded stays.
  const q8 again = to_q8(back.data());
  CHECK(std::equal(std::begin(again.values), std::end(again.values), std::begin(block.values)));

  const std::vector<float> zeros(32, 0.0f);
  CHECK((to_q8(zeros.data()).scale.bits == 0 && to_q8(zeros.data()).values[7] == 0));
  values[5] = std::numeric_limits<float>::infinity();
  CHECK(!std::isfinite(to_float(to_q8(values.data()).scale)));
  values[5] = 1e7f;  // 127 times the largest f16 is 8.3e6
  CHECK(!std::isfinite(to_float(to_q8(values.data()).scale)));
}
