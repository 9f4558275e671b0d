// Sign bits and Hamming distances of query_clusters.hpp.
#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "attn/kernels/query_clusters.hpp"

// Unlike the other kernels also for Ice Lake and later: they count the bits of a vector in one instruction, others in ten.
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)
#define HWY_WANT_AVX3_DL
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/hamming.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// y > limit for 64 floats.
uint64_t BitsAbove(const float* y, const float* limit) {
  uint64_t bits = 0;
#if HWY_TARGET == HWY_SCALAR
  for (int b = 0; b < 64; ++b) bits |= uint64_t{y[b] > limit[b]} << b;
#else
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  for (int b = 0; b < 64; b += lanes) {
    uint8_t part[8] = {};
    hn::StoreMaskBits(d, hn::Gt(hn::LoadU(d, y + b), hn::LoadU(d, limit + b)), part);
    uint64_t word;
    std::memcpy(&word, part, sizeof word);
    bits |= (word & ((uint64_t{1} << lanes) - 1)) << b;
  }
#endif
  return bits;
}

// The nearest centroid of each code, the first of several.
void Nearest(const uint64_t* code, index_t n, const uint64_t* centroid, index_t clusters, int32_t* group) {
  const hn::ScalableTag<uint64_t> d;
  const hn::RebindToSigned<decltype(d)> ds;  // distance * 2^32 + number; AVX2 compares signed words only
  const auto lanes = static_cast<index_t>(hn::Lanes(d));
  using Vector = hn::Vec<decltype(ds)>;
  const auto key = [&](hn::Vec<decltype(d)> codes, index_t c) HWY_ATTR {
    const auto distance = hn::PopulationCount(hn::Xor(codes, hn::Set(d, centroid[c])));
    return hn::Or(hn::BitCast(ds, hn::ShiftLeft<32>(distance)), hn::Set(ds, c));
  };
  for (index_t i = 0; i < n; i += 4 * lanes) {
    HWY_ALIGN uint64_t codes[4 * hn::MaxLanes(d)] = {};
    HWY_ALIGN int64_t keys[4 * hn::MaxLanes(d)];
    std::copy_n(code + i, std::min(4 * lanes, n - i), codes);
    const auto x0 = hn::Load(d, codes), x1 = hn::Load(d, codes + lanes);
    const auto x2 = hn::Load(d, codes + 2 * lanes), x3 = hn::Load(d, codes + 3 * lanes);
    Vector best0 = key(x0, 0), best1 = key(x1, 0), best2 = key(x2, 0), best3 = key(x3, 0);
    for (index_t c = 1; c < clusters; ++c) {
      best0 = hn::Min(best0, key(x0, c));
      best1 = hn::Min(best1, key(x1, c));
      best2 = hn::Min(best2, key(x2, c));
      best3 = hn::Min(best3, key(x3, c));
    }
    hn::Store(best0, ds, keys);
    hn::Store(best1, ds, keys + lanes);
    hn::Store(best2, ds, keys + 2 * lanes);
    hn::Store(best3, ds, keys + 3 * lanes);
    for (index_t j = 0; j < std::min(4 * lanes, n - i); ++j) group[i + j] = static_cast<int32_t>(keys[j] & 0xffffffff);
  }
}

// count[b] += bit b, for 64 of them.
void CountBits(uint64_t code, int32_t* count) {
#if HWY_TARGET == HWY_SCALAR
  for (int b = 0; b < 64; ++b) count[b] += static_cast<int32_t>(code >> b & 1);
#else
  const hn::ScalableTag<int32_t> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  uint8_t bytes[16] = {};
  for (int b = 0; b < 64; b += lanes) {
    const uint64_t word = code >> b;
    std::memcpy(bytes, &word, sizeof word);
    const auto ones = hn::VecFromMask(d, hn::LoadMaskBits(d, bytes));
    hn::StoreU(hn::Sub(hn::LoadU(d, count + b), ones), d, count + b);
  }
#endif
}

void CountAllBits(const uint64_t* code, index_t n, const int32_t* group, int32_t* counts) {
  for (index_t i = 0; i < n; ++i) CountBits(code[i], counts + group[i] * 64);
}

void SignCodes(index_t n, const float* y, const float* limit, uint64_t* code) {
  for (index_t i = 0; i < n; ++i) code[i] = BitsAbove(y + i * 64, limit);
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(SignCodes);
HWY_EXPORT(Nearest);
HWY_EXPORT(CountAllBits);

void sign_codes(index_t n, index_t dim, Rows x, index_t bits, const float* planes, float* scratch, std::uint64_t* code) {
  float* limit = scratch + sign_block * 64;
  std::fill_n(scratch, sign_block * 64, 0.0f);
  std::fill_n(limit, 64, std::numeric_limits<float>::infinity());
  std::copy_n(planes + dim * bits, bits, limit);
  for (index_t row = 0; row < n; row += sign_block) {
    const index_t count = std::min(sign_block, n - row);
    gemm(count, bits, dim, {x.data + row * x.stride, x.stride}, {planes, bits}, {scratch, 64});
    HWY_DYNAMIC_DISPATCH(SignCodes)(count, scratch, limit, code + row);
  }
}

void hamming_clusters(std::span<const std::uint64_t> code, index_t clusters, index_t iterations, const float* starts,
                      std::span<std::uint64_t> centroid, std::span<std::int32_t> counts, std::span<std::int32_t> group) {
  const auto n = static_cast<index_t>(code.size());
  const auto code_of_start = [&](index_t iteration, index_t c) {
    return code[static_cast<std::size_t>(starts[iteration * clusters + c])];
  };
  for (index_t c = 0; c < clusters; ++c) centroid[static_cast<std::size_t>(c)] = code_of_start(0, c);
  for (index_t iteration = 1;; ++iteration) {
    HWY_DYNAMIC_DISPATCH(Nearest)(code.data(), n, centroid.data(), clusters, group.data());
    if (iteration == iterations) return;

    std::fill(counts.begin(), counts.end(), 0);
    HWY_DYNAMIC_DISPATCH(CountAllBits)(code.data(), n, group.data(), counts.data());
    std::int32_t* members = counts.data() + clusters * 64;
    for (const std::int32_t g : group) ++members[g];
    bool settled = true;
    for (index_t c = 0; c < clusters; ++c) {
      std::uint64_t bits = 0;
      for (index_t b = 0; b < 64; ++b) bits |= std::uint64_t{2 * counts[static_cast<std::size_t>(c * 64 + b)] > members[c]} << b;
      if (members[c] == 0) bits = code_of_start(iteration, c);
      std::uint64_t& own = centroid[static_cast<std::size_t>(c)];
      settled = settled && members[c] > 0 && own == bits;
      own = bits;
    }
    if (settled) return;  // further iterations would repeat this one
  }
}

}  // namespace attn::kernels
#endif
