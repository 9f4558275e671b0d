// Sign bits and Hamming distances of query_clusters.hpp.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "attn/kernels/choose/query_clusters.hpp"

// Unlike the other kernels also for Ice Lake and later: they count the bits of a vector in one instruction, others in ten.
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (((2LL << HWY_HIGHEST_TARGET_BIT_X86) - 1) & ~(HWY_AVX3_DL | HWY_AVX3 | HWY_AVX2))
#define HWY_WANT_AVX3_DL
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/choose/hamming.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "attn/kernels/machine/lanes-inl.hpp"

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
    bits |= mask_bits(d, hn::Gt(hn::LoadU(d, y + b), hn::LoadU(d, limit + b))) << b;
  }
#endif
  return bits;
}

// The nearest centroid of each code, the first of several. Centroids by twos: the even one's distance in the low half of a word,
// the odd one's in the high half, each above the number of its pair, so that one minimum of half words serves both.
#if HWY_TARGET == HWY_SCALAR
void Nearest(const uint64_t* code, index_t n, const uint64_t* centroid, index_t clusters, int32_t* group) {
  for (index_t i = 0; i < n; ++i) {
    int least = 65;
    for (index_t c = 0; c < clusters; ++c) {
      const int distance = std::popcount(code[i] ^ centroid[c]);
      if (distance < least) least = distance, group[i] = static_cast<int32_t>(c);
    }
  }
}
#else
void Nearest(const uint64_t* code, index_t n, const uint64_t* centroid, index_t clusters, int32_t* group) {
  const hn::ScalableTag<uint64_t> d;
  const hn::Repartition<int32_t, decltype(d)> d32;
  const auto lanes = static_cast<index_t>(hn::Lanes(d));
  constexpr int above = 20;  // bits of the pair's number; a distance is at most 64
  using Codes = hn::Vec<decltype(d)>;
  using Keys = hn::Vec<decltype(d32)>;
  const auto distance = [&](Codes x, index_t c) HWY_ATTR { return hn::PopulationCount(hn::Xor(x, hn::Set(d, centroid[c]))); };
  for (index_t i = 0; i < n; i += 4 * lanes) {
    HWY_ALIGN uint64_t codes[4 * hn::MaxLanes(d)] = {};
    HWY_ALIGN int32_t keys[8 * hn::MaxLanes(d)];
    std::copy_n(code + i, std::min(4 * lanes, n - i), codes);
    const auto x0 = hn::Load(d, codes), x1 = hn::Load(d, codes + lanes);
    const auto x2 = hn::Load(d, codes + 2 * lanes), x3 = hn::Load(d, codes + 3 * lanes);
    const auto farthest = hn::Set(d32, std::numeric_limits<int32_t>::max());
    Keys best0 = farthest, best1 = farthest, best2 = farthest, best3 = farthest;
    index_t c = 0;
    for (; c + 1 < clusters; c += 2) {
      const auto pair = hn::Set(d, static_cast<uint64_t>(c / 2) * 0x100000001u);
      const auto nearer = [&](Codes x, Keys best) HWY_ATTR {
        const auto even = hn::ShiftLeft<above>(distance(x, c)), odd = hn::ShiftLeft<above + 32>(distance(x, c + 1));
        return hn::Min(best, hn::BitCast(d32, hn::Or3(even, odd, pair)));
      };
      best0 = nearer(x0, best0), best1 = nearer(x1, best1);
      best2 = nearer(x2, best2), best3 = nearer(x3, best3);
    }
    if (c < clusters) {
      const auto pair = hn::Set(d, static_cast<uint64_t>(c / 2) | uint64_t{0x7fffffff} << 32);
      const auto nearer = [&](Codes x, Keys best) HWY_ATTR {
        return hn::Min(best, hn::BitCast(d32, hn::Or(hn::ShiftLeft<above>(distance(x, c)), pair)));
      };
      best0 = nearer(x0, best0), best1 = nearer(x1, best1);
      best2 = nearer(x2, best2), best3 = nearer(x3, best3);
    }
    hn::Store(best0, d32, keys);
    hn::Store(best1, d32, keys + 2 * lanes);
    hn::Store(best2, d32, keys + 4 * lanes);
    hn::Store(best3, d32, keys + 6 * lanes);
    constexpr int32_t number = (1 << above) - 1;
    for (index_t j = 0; j < std::min(4 * lanes, n - i); ++j) {
      const int32_t even = keys[2 * j], odd = keys[2 * j + 1];
      group[i + j] = even <= odd ? 2 * (even & number) : 2 * (odd & number) + 1;
    }
  }
}
#endif

// counts[group][b] += bit b of each code, for 64 bits of at most 65535 codes.
void CountAllBits(const uint64_t* code, index_t n, const int32_t* group, uint16_t* counts) {
#if HWY_TARGET == HWY_SCALAR
  for (index_t i = 0; i < n; ++i) {
    for (int b = 0; b < 64; ++b)
      counts[index_t{group[i]} * 64 + b] = static_cast<uint16_t>(counts[index_t{group[i]} * 64 + b] + (code[i] >> b & 1));
  }
#else
  const hn::ScalableTag<uint16_t> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  for (index_t i = 0; i < n; ++i) {
    uint16_t* count = counts + index_t{group[i]} * 64;
    for (int b = 0; b < 64; b += lanes) {
      uint8_t bytes[8];
      const uint64_t word = code[i] >> b;
      std::memcpy(bytes, &word, sizeof word);
      const auto ones = hn::VecFromMask(d, hn::LoadMaskBits(d, bytes));
      hn::StoreU(hn::Sub(hn::LoadU(d, count + b), ones), d, count + b);
    }
  }
#endif
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
                      std::span<std::uint64_t> centroid, std::span<std::int32_t> scratch, std::span<std::int32_t> group) {
  // Counts of each bit and of members; then those of bits as half words.
  const auto counts = scratch.subspan(0, static_cast<std::size_t>(clusters * 65));
  const std::span halves(reinterpret_cast<std::uint16_t*>(scratch.data() + clusters * 65), static_cast<std::size_t>(clusters * 64));
  const auto n = static_cast<index_t>(code.size());
  const auto code_of_start = [&](index_t iteration, index_t c) {
    return code[static_cast<std::size_t>(starts[iteration * clusters + c])];
  };
  for (index_t c = 0; c < clusters; ++c) centroid[static_cast<std::size_t>(c)] = code_of_start(0, c);
  for (index_t iteration = 1;; ++iteration) {
    HWY_DYNAMIC_DISPATCH(Nearest)(code.data(), n, centroid.data(), clusters, group.data());
    if (iteration == iterations) return;

    std::fill(counts.begin(), counts.end(), 0);
    std::int32_t* members = counts.data() + clusters * 64;
    for (const std::int32_t g : group) ++members[g];
    constexpr index_t at_once = 65535;  // what half words count
    for (index_t first = 0; first < n; first += at_once) {
      std::fill(halves.begin(), halves.end(), std::uint16_t{0});
      HWY_DYNAMIC_DISPATCH(CountAllBits)(code.data() + first, std::min(at_once, n - first), group.data() + first, halves.data());
      for (std::size_t e = 0; e < static_cast<std::size_t>(clusters * 64); ++e) counts[e] += halves[e];
    }
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
