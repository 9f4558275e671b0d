#include "attn/kernels/machine/probes.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/machine/probes.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "attn/kernels/machine/exp-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Keeps the compiler from folding the loops away.
HWY_ATTR inline void Keep(float value) { asm volatile("" : : "x"(value)); }

// 12 chains: latency 4 times 2 pipes is 8, and 12 fit the 16 registers of AVX2.
HWY_ATTR double ProbeFma(index_t iterations) {
  const hn::ScalableTag<float> d;
  const auto x = hn::Set(d, 0.999f);
  const auto y = hn::Set(d, 1e-4f);
  auto a0 = hn::Set(d, 0.0f), a1 = hn::Set(d, 0.1f), a2 = hn::Set(d, 0.2f), a3 = hn::Set(d, 0.3f);
  auto a4 = hn::Set(d, 0.4f), a5 = hn::Set(d, 0.5f), a6 = hn::Set(d, 0.6f), a7 = hn::Set(d, 0.7f);
  auto a8 = hn::Set(d, 0.8f), a9 = hn::Set(d, 0.9f), a10 = hn::Set(d, 1.0f), a11 = hn::Set(d, 1.1f);
  for (index_t i = 0; i < iterations; ++i) {
    a0 = hn::MulAdd(a0, x, y), a1 = hn::MulAdd(a1, x, y), a2 = hn::MulAdd(a2, x, y), a3 = hn::MulAdd(a3, x, y);
    a4 = hn::MulAdd(a4, x, y), a5 = hn::MulAdd(a5, x, y), a6 = hn::MulAdd(a6, x, y), a7 = hn::MulAdd(a7, x, y);
    a8 = hn::MulAdd(a8, x, y), a9 = hn::MulAdd(a9, x, y), a10 = hn::MulAdd(a10, x, y), a11 = hn::MulAdd(a11, x, y);
  }
  const auto sum = hn::Add(hn::Add(hn::Add(hn::Add(a0, a1), hn::Add(a2, a3)), hn::Add(hn::Add(a4, a5), hn::Add(a6, a7))),
                           hn::Add(hn::Add(a8, a9), hn::Add(a10, a11)));
  Keep(hn::GetLane(sum));
  return static_cast<double>(iterations) * 12 * 2 * static_cast<double>(hn::Lanes(d));
}

HWY_ATTR double ProbeExp(float* buffer, size_t count, index_t repeats) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const size_t whole = count / lanes * lanes;
  for (index_t r = 0; r < repeats; ++r) {
    for (size_t i = 0; i < whole; i += lanes) hn::StoreU(exp2_lanes(hn::Neg(hn::LoadU(d, buffer + i))), d, buffer + i);
  }
  return static_cast<double>(whole) * static_cast<double>(repeats);
}

template <bool kFetch>
HWY_ATTR double ReadAll(const float* buffer, size_t count, index_t ahead) {
  const hn::ScalableTag<float> d;
  constexpr size_t lanes = hn::MaxLanes(d), step = 8 * lanes, line = 16;
  const size_t whole = count / step * step;
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  for (size_t i = 0; i < whole; i += step) {
    const float* p = buffer + i;
    if constexpr (kFetch) {
      if (step >= line || i % line == 0) {
        for (size_t next = 0; next < step; next += line) hwy::Prefetch(p + ahead + next);
      }
    }
    s0 = hn::Add(s0, hn::Add(hn::LoadU(d, p), hn::LoadU(d, p + lanes)));
    s1 = hn::Add(s1, hn::Add(hn::LoadU(d, p + 2 * lanes), hn::LoadU(d, p + 3 * lanes)));
    s2 = hn::Add(s2, hn::Add(hn::LoadU(d, p + 4 * lanes), hn::LoadU(d, p + 5 * lanes)));
    s3 = hn::Add(s3, hn::Add(hn::LoadU(d, p + 6 * lanes), hn::LoadU(d, p + 7 * lanes)));
  }
  Keep(hn::GetLane(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  return static_cast<double>(whole) * sizeof(float);
}

HWY_ATTR double ProbeRead(const float* buffer, size_t count, index_t ahead) {
  return ahead > 0 ? ReadAll<true>(buffer, count, ahead) : ReadAll<false>(buffer, count, 0);
}

HWY_ATTR double ProbeUpdate(float* buffer, size_t count) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d), step = 4 * lanes;
  const size_t whole = count / step * step;
  const auto factor = hn::Set(d, 0.999f), more = hn::Set(d, 1e-3f);  // 1 stays 1
  for (size_t i = 0; i < whole; i += step) {
    float* p = buffer + i;
    hn::StoreU(hn::MulAdd(hn::LoadU(d, p), factor, more), d, p);
    hn::StoreU(hn::MulAdd(hn::LoadU(d, p + lanes), factor, more), d, p + lanes);
    hn::StoreU(hn::MulAdd(hn::LoadU(d, p + 2 * lanes), factor, more), d, p + 2 * lanes);
    hn::StoreU(hn::MulAdd(hn::LoadU(d, p + 3 * lanes), factor, more), d, p + 3 * lanes);
  }
  return 2 * static_cast<double>(whole) * sizeof(float);
}

HWY_ATTR double ProbeGather(const float* table, const std::int32_t* rows, size_t count, size_t ahead) {
  const hn::ScalableTag<float> d;
  constexpr size_t lanes = hn::MaxLanes(d), width = static_cast<size_t>(gathered_floats), line = 16;
  const auto row = [&](size_t i) { return table + static_cast<size_t>(rows[i]) * width; };
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  for (size_t i = 0; i < count; ++i) {
    if (ahead > 0 && i + ahead < count) {
      for (size_t c = 0; c < width; c += line) hwy::Prefetch(row(i + ahead) + c);
    }
    const float* p = row(i);
    for (size_t c = 0; c < width; c += 4 * lanes) {
      s0 = hn::Add(s0, hn::LoadU(d, p + c));
      s1 = hn::Add(s1, hn::LoadU(d, p + c + lanes));
      s2 = hn::Add(s2, hn::LoadU(d, p + c + 2 * lanes));
      s3 = hn::Add(s3, hn::LoadU(d, p + c + 3 * lanes));
    }
  }
  Keep(hn::GetLane(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  return static_cast<double>(count * width) * sizeof(float);
}

HWY_ATTR double ProbeTriad(float* a, const float* b, const float* c, size_t count) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const size_t whole = count / lanes * lanes;
  const auto three = hn::Set(d, 3.0f);
  for (size_t i = 0; i < whole; i += lanes) hn::StoreU(hn::MulAdd(three, hn::LoadU(d, c + i), hn::LoadU(d, b + i)), d, a + i);
  return 3 * static_cast<double>(whole) * sizeof(float);
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <algorithm>

namespace attn::kernels {

HWY_EXPORT(ProbeFma);
HWY_EXPORT(ProbeExp);
HWY_EXPORT(ProbeRead);
HWY_EXPORT(ProbeUpdate);
HWY_EXPORT(ProbeGather);
HWY_EXPORT(ProbeTriad);

double probe_fma(index_t iterations) { return HWY_DYNAMIC_DISPATCH(ProbeFma)(iterations); }

double probe_exp(std::span<float> buffer, index_t repeats) {
  return HWY_DYNAMIC_DISPATCH(ProbeExp)(buffer.data(), buffer.size(), repeats);
}

double probe_read(std::span<const float> buffer, index_t ahead_bytes) {
  return HWY_DYNAMIC_DISPATCH(ProbeRead)(buffer.data(), buffer.size(), ahead_bytes / static_cast<index_t>(sizeof(float)));
}

double probe_update(std::span<float> buffer) { return HWY_DYNAMIC_DISPATCH(ProbeUpdate)(buffer.data(), buffer.size()); }

double probe_gather(std::span<const float> table, std::span<const std::int32_t> rows, index_t ahead) {
  return HWY_DYNAMIC_DISPATCH(ProbeGather)(table.data(), rows.data(), rows.size(), static_cast<std::size_t>(ahead));
}

double probe_triad(std::span<float> a, std::span<const float> b, std::span<const float> c) {
  return HWY_DYNAMIC_DISPATCH(ProbeTriad)(a.data(), b.data(), c.data(), std::min({a.size(), b.size(), c.size()}));
}

}  // namespace attn::kernels

#endif
