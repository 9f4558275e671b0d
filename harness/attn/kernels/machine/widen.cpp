#include "attn/kernels/machine/widen.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/machine/widen.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "attn/kernels/machine/storage-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class S>
HWY_NOINLINE void WidenRows(const std::byte* const* rows, index_t count, index_t n, float* to, index_t stride) {
  const F d;
  const index_t whole = n / kLanes * kLanes;
  for (index_t i = 0; i < count; ++i, to += stride) {
    const std::byte* const row = rows[i];
    index_t x = 0;
    for (; x < whole; x += kLanes) hn::StoreU(S::load(row, x), d, to + x);
    if (x < n) store_first(S::load_first(row, x, n - x), to + x, n - x);
  }
}

inline void Widen(DType dtype, const std::byte* const* rows, index_t count, index_t n, float* to, index_t stride) {
  switch (dtype) {
    case DType::f32: return WidenRows<stored::F32>(rows, count, n, to, stride);
    case DType::bf16: return WidenRows<stored::Bf16>(rows, count, n, to, stride);
    case DType::f16: return WidenRows<stored::F16>(rows, count, n, to, stride);
    case DType::q8: return WidenRows<stored::Q8>(rows, count, n, to, stride);
  }
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <algorithm>
#include <array>

#include "attn/core/assert.hpp"

namespace attn::kernels {

HWY_EXPORT(Widen);

void widen(DType dtype, const std::byte* const* rows, index_t count, index_t n, float* to, index_t stride) {
  HWY_DYNAMIC_DISPATCH(Widen)(dtype, rows, count, n, to, stride);
}

index_t stride_bytes(const Array& array, std::size_t axis) {
  const index_t stride = array.stride(axis), block = block_of(array.dtype());
  ATTN_ASSERT(block == 1 || stride % block == 0);
  return bytes_of(array.dtype(), stride);
}

namespace {

template <class T>
const std::byte* first_of(const Array& array) {
  return reinterpret_cast<const std::byte*>(array.as<const T, 4>().data_handle());
}

}  // namespace

StoredRows rows_of_head(const Array& array, index_t batch, index_t head) {
  const std::byte* data = nullptr;
  switch (array.dtype()) {
    case DType::f32: data = first_of<float>(array); break;
    case DType::bf16: data = first_of<bf16>(array); break;
    case DType::f16: data = first_of<f16>(array); break;
    case DType::q8: data = first_of<q8>(array); break;
  }
  return {data + batch * stride_bytes(array, 0) + head * stride_bytes(array, 1), stride_bytes(array, 2)};
}

Rows float_rows(const Array& array, index_t batch, index_t head, index_t first, index_t count, float* to) {
  if (array.dtype() == DType::f32) {
    const View<const float, 4> floats = array.f32();
    return {floats[batch][head].row(first), floats.stride(2)};
  }
  const StoredRows stored = rows_of_head(array, batch, head);
  const index_t width = array.extent(3);
  std::array<const std::byte*, 64> rows;
  for (index_t done = 0; done < count; done += std::ssize(rows)) {
    const index_t some = std::min<index_t>(std::ssize(rows), count - done);
    for (index_t i = 0; i < some; ++i) rows[static_cast<std::size_t>(i)] = stored.row(first + done + i);
    widen(array.dtype(), rows.data(), some, width, to + done * width, width);
  }
  return {to, width};
}

}  // namespace attn::kernels
#endif
