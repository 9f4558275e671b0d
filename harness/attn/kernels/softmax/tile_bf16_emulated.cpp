// The bf16 tile in plain C++: each operation of the AVX512_BF16 one, lane by lane, to the bit.
#include <bit>

#include "attn/core/dtype.hpp"
#include "attn/kernels/softmax/tile_bf16-inl.hpp"

namespace attn::kernels {
namespace {

constexpr float least_normal = std::numeric_limits<float>::min();

float flushed(float x) { return std::fabs(x) < least_normal ? std::copysign(0.0f, x) : x; }
float low_of(std::uint32_t pair) { return flushed(std::bit_cast<float>(pair << 16)); }
float high_of(std::uint32_t pair) { return flushed(std::bit_cast<float>(pair & 0xffff0000)); }

// Denormal results are zero, judged as if the exponent had no bounds: what is rounded up to the least normal number as a denormal may
// be below it with all of a float's digits.
float flushing_fma(float a, float b, float c) {
  const float sum = flushed(std::fma(a, b, c));
  if (std::fabs(sum) != least_normal) return sum;
  const bool a_is_less = std::fabs(a) < std::fabs(b);
  const float scaled = std::fma(a_is_less ? a * 0x1p32f : a, a_is_less ? b : b * 0x1p32f, c * 0x1p32f);
  return std::fabs(scaled) < least_normal * 0x1p32f ? std::copysign(0.0f, sum) : sum;
}

float dot_of_pairs(float c, std::uint32_t a, std::uint32_t b) {
  return flushing_fma(low_of(a), low_of(b), flushing_fma(high_of(a), high_of(b), flushed(c)));
}

struct Emulated {
  struct alignas(64) V {
    float x[L];
  };
  struct alignas(64) I {
    std::uint32_t x[L];
  };

  template <class F>
  static V each(const F& f) {
    V v;
    for (int i = 0; i < L; ++i) v.x[i] = f(i);
    return v;
  }
  template <class F>
  static std::uint16_t lanes_where(const F& f) {
    unsigned lanes = 0;
    for (int i = 0; i < L; ++i) lanes |= unsigned{f(i)} << i;
    return static_cast<std::uint16_t>(lanes);
  }
  template <class T>
  static T copied(const void* from) {
    T to;
    std::memcpy(&to, from, sizeof to);
    return to;
  }

  static V zero() { return {}; }
  static V set(float x) {
    return each([=](int) { return x; });
  }
  static V load(const float* from) { return copied<V>(from); }
  static void store(float* to, const V& v) { std::memcpy(to, &v, sizeof v); }
  static V load_unaligned(const std::byte* from) { return copied<V>(from); }
  static void store_unaligned(float* to, const V& v) { std::memcpy(to, &v, sizeof v); }
  static V add(const V& a, const V& b) {
    return each([&](int i) { return a.x[i] + b.x[i]; });
  }
  static V mul(const V& a, const V& b) {
    return each([&](int i) { return a.x[i] * b.x[i]; });
  }
  static V fma(const V& a, const V& b, const V& c) {
    return each([&](int i) { return std::fma(a.x[i], b.x[i], c.x[i]); });
  }
  static V max_number(const V& score, const V& so_far) {
    return each([&](int i) { return score.x[i] > so_far.x[i] ? score.x[i] : so_far.x[i]; });
  }
  static V select(std::uint16_t lanes, const V& yes, const V& no) {
    return each([&](int i) { return (lanes >> i & 1) != 0 ? yes.x[i] : no.x[i]; });
  }
  static std::uint16_t not_at_most(const V& v, float limit) {
    return lanes_where([&](int i) { return !(v.x[i] <= limit); });
  }
  static std::uint16_t not_at_least(const V& v, float limit) {
    return lanes_where([&](int i) { return !(v.x[i] >= limit); });
  }
  static std::uint16_t number(const V& v) {
    return lanes_where([&](int i) { return !std::isnan(v.x[i]); });
  }

  static I ones() { return set_pair(0x3f803f80); }
  static I load_pairs(const std::uint32_t* from) { return copied<I>(from); }
  static void store_pairs(std::uint32_t* to, const I& pairs) { std::memcpy(to, &pairs, sizeof pairs); }
  static I set_pair(std::uint32_t pair) {
    I pairs;
    std::fill_n(pairs.x, L, pair);
    return pairs;
  }
  static I pair(const std::byte* from) { return set_pair(copied<std::uint32_t>(from)); }
  static I low(const std::byte* from) { return set_pair(copied<std::uint16_t>(from)); }
  static I keep(I pairs, std::uint16_t even, std::uint16_t odd) {
    for (int i = 0; i < L; ++i) {
      if ((even >> i & 1) == 0) pairs.x[i] &= 0xffff0000;
      if ((odd >> i & 1) == 0) pairs.x[i] &= 0xffff;
    }
    return pairs;
  }
  static I less_exponents(I pairs, const I& by) {
    for (int i = 0; i < L; ++i) {
      const std::uint32_t low = pairs.x[i] & 0xffff, high = pairs.x[i] >> 16, by_low = by.x[i] & 0xffff, by_high = by.x[i] >> 16;
      pairs.x[i] = (low > by_low ? low - by_low : 0) | (high > by_high ? high - by_high : 0) << 16;
    }
    return pairs;
  }
  static V dot(const V& c, const I& a, const I& b) {
    return each([&](int i) { return dot_of_pairs(c.x[i], a.x[i], b.x[i]); });
  }
  static I round(const V& even, const V& odd) {
    I pairs;
    for (int i = 0; i < L; ++i)
      pairs.x[i] = to_bf16(flushed(even.x[i])).bits | std::uint32_t{to_bf16(flushed(odd.x[i])).bits} << 16;
    return pairs;
  }
  static V exp2(const V& v) {
    return each([&](int i) { return exp2_of(v.x[i]); });
  }
  static void transpose(V (&r)[L]) {
    for (int i = 0; i < L; ++i) {
      for (int j = 0; j < i; ++j) std::swap(r[i].x[j], r[j].x[i]);
    }
  }

 private:
  static float exp2_of(float x) {
    if (std::isnan(x)) return x;
    if (std::isinf(x)) return x > 0 ? x : 0.0f;
    const float whole = std::floor(x), r = x - whole;
    float p = std::fma(7.80245227e-2f, r, 2.26067155e-1f);
    p = std::fma(p, r, 6.95833541e-1f);
    p = std::fma(p, r, 9.99925219e-1f);
    return flushed(std::ldexp(p, static_cast<int>(std::clamp(whole, -300.0f, 300.0f))));
  }
};

}  // namespace

const TileOps& emulated_bf16_tile_ops(int vectors) { return bf16_ops_for<Emulated>(vectors); }

void emulated_bf16_dot(const float* c, const bf16* a, const bf16* b, float* to) {
  for (int i = 0; i < L; ++i)
    to[i] = dot_of_pairs(c[i], a[2 * i].bits | std::uint32_t{a[2 * i + 1].bits} << 16,
                         b[2 * i].bits | std::uint32_t{b[2 * i + 1].bits} << 16);
}

}  // namespace attn::kernels
