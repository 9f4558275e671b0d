#include "attn/kernels/selection.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/selection.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void Argmax(index_t n, index_t columns, const float* y, int32_t* at) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  for (index_t i = 0; i < n; i += static_cast<index_t>(hn::Lanes(d))) {
    auto best = hn::LoadU(d, y + i);
    auto number = hn::Zero(di);
    for (index_t c = 1; c < 2 * columns; ++c) {
      auto value = hn::LoadU(d, y + (c < columns ? c : c - columns) * n + i);
      if (c >= columns) value = hn::Neg(value);
      const auto more = hn::Gt(value, best);
      best = hn::IfThenElse(more, value, best);
      number = hn::IfThenElse(hn::RebindMask(di, more), hn::Set(di, static_cast<int32_t>(c)), number);
    }
    hn::StoreU(number, di, at + i);
  }
}

index_t AppendAbove(index_t n, const float* score, float least, int32_t first, float* scores, int32_t* rows, index_t size) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const auto lanes = static_cast<index_t>(hn::Lanes(d));
  const auto limit = hn::Set(d, least);
  index_t j = 0;
  for (; j + lanes <= n; j += lanes) {
    const auto value = hn::LoadU(d, score + j);
    const auto above = hn::Gt(value, limit);
    if (hn::AllFalse(d, above)) continue;
    hn::CompressStore(hn::Iota(di, static_cast<int32_t>(first + j)), hn::RebindMask(di, above), di, rows + size);
    size += static_cast<index_t>(hn::CompressStore(value, above, d, scores + size));
  }
  for (; j < n; ++j) {
    if (!(score[j] > least)) continue;
    scores[size] = score[j];
    rows[size++] = static_cast<int32_t>(first + j);
  }
  return size;
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(Argmax);
HWY_EXPORT(AppendAbove);

void argmax_of_both_signs(index_t n, index_t columns, const float* y, std::int32_t* at) {
  HWY_DYNAMIC_DISPATCH(Argmax)(n, columns, y, at);
}

index_t append_above(index_t n, const float* score, float least, std::int32_t first, float* scores, std::int32_t* rows,
                     index_t size) {
  return HWY_DYNAMIC_DISPATCH(AppendAbove)(n, score, least, first, scores, rows, size);
}

}  // namespace attn::kernels
#endif
