#include "attn/core/rng.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

namespace attn {

Philox philox(Philox c, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * c[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<std::uint32_t>(b >> 32) ^ c[1] ^ key[0], static_cast<std::uint32_t>(b),
         static_cast<std::uint32_t>(a >> 32) ^ c[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return c;
}

namespace {

std::uint64_t join(std::uint32_t high, std::uint32_t low) { return std::uint64_t{high} << 32 | low; }

double unit(std::uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1.0p-53; }

Philox block(std::uint64_t seed, std::uint64_t stream, std::uint64_t i) {
  return philox({static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i >> 32), static_cast<std::uint32_t>(stream),
                 static_cast<std::uint32_t>(stream >> 32)},
                {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
}

}  // namespace

std::uint64_t Rng::bits(index_t i) const {
  const Philox x = block(seed_, stream_, static_cast<std::uint64_t>(i));
  return join(x[1], x[0]);
}

double Rng::uniform(index_t i) const { return unit(bits(i)); }

double Rng::normal(index_t i) const {
  const Philox x = block(seed_, stream_, static_cast<std::uint64_t>(i));
  const double radius = std::sqrt(-2.0 * std::log1p(-unit(join(x[1], x[0]))));
  return radius * std::cos(2.0 * std::numbers::pi * unit(join(x[3], x[2])));
}

index_t Rng::below(index_t i, index_t n) const {
  return static_cast<index_t>(static_cast<unsigned __int128>(bits(i)) * static_cast<std::uint64_t>(n) >> 64);
}

namespace {

// Consecutive Philox blocks side by side, so that compilers vectorise over them (g++ 12 unrolls loops of 16 or fewer).
constexpr std::size_t lanes = 32;
using Word = std::array<std::uint32_t, lanes>;
using Words = std::array<Word, 4>;

Words philox_lanes(std::uint64_t seed, std::uint64_t stream, std::uint64_t first) {
  Words c;
  for (std::size_t l = 0; l < lanes; ++l) {
    c[0][l] = static_cast<std::uint32_t>(first + l);
    c[1][l] = static_cast<std::uint32_t>((first + l) >> 32);
    c[2][l] = static_cast<std::uint32_t>(stream);
    c[3][l] = static_cast<std::uint32_t>(stream >> 32);
  }
  auto key0 = static_cast<std::uint32_t>(seed);
  auto key1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (std::size_t l = 0; l < lanes; ++l) {
      const std::uint32_t x0 = c[0][l], x1 = c[1][l], x2 = c[2][l], x3 = c[3][l];
      c[0][l] = static_cast<std::uint32_t>(std::uint64_t{0xCD9E8D57u} * x2 >> 32) ^ x1 ^ key0;
      c[1][l] = 0xCD9E8D57u * x2;
      c[2][l] = static_cast<std::uint32_t>(std::uint64_t{0xD2511F53u} * x0 >> 32) ^ x3 ^ key1;
      c[3][l] = 0xD2511F53u * x0;
    }
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return c;
}

inline float unit24(std::uint32_t bits) { return static_cast<float>(static_cast<std::int32_t>(bits >> 8)) * 0x1.0p-24f; }

// Natural logarithm of a normal float in (0, 1]; polynomial of Cephes logf on [sqrt(1/2), sqrt(2)).
[[gnu::always_inline]] inline float log_of_unit(float x) {
  const auto bits = std::bit_cast<std::int32_t>(x) - std::bit_cast<std::int32_t>(std::numbers::sqrt2_v<float> / 2);
  const auto exponent = static_cast<float>(bits >> 23);
  const float m = std::bit_cast<float>((bits & 0x7fffff) + std::bit_cast<std::int32_t>(std::numbers::sqrt2_v<float> / 2)) - 1;
  float p = 7.0376836292e-2f * m - 1.1514610310e-1f;
  p = (p * m + 1.1676998740e-1f) * m - 1.2420140846e-1f;
  p = (p * m + 1.4249322787e-1f) * m - 1.6668057665e-1f;
  p = (p * m + 2.0000714765e-1f) * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const float square = m * m;
  return exponent * 0.693359375f + (m + (square * m * p - 0.5f * square + exponent * -2.12194440e-4f));
}

// Box-Muller on a pair of words: the upper 24 bits of the first give the radius; of the second, the top two bits choose
// the quarter turn and the rest the angle within it, where Cephes' sinf and cosf polynomials hold.
[[gnu::always_inline]] inline void box_muller(std::uint32_t first, std::uint32_t second, float& x, float& y) {
  const float radius = std::sqrt(-2.0f * log_of_unit(unit24(first) + 0x1.0p-25f));
  const float a = std::numbers::pi_v<float> * 0x1.0p-31f * static_cast<float>(static_cast<std::int32_t>(second << 2) >> 2);
  const float z = a * a;
  const float sine = a + a * z * (-1.6666654611e-1f + z * (8.3321608736e-3f + z * -1.9515295891e-4f));
  const float cosine = 1 - 0.5f * z + z * z * (4.166664568298827e-2f + z * (-1.388731625493765e-3f + z * 2.443315711809948e-5f));
  const bool odd = (second & 0x40000000u) != 0;
  const std::uint32_t flip = second & 0x80000000u;
  x = std::bit_cast<float>(std::bit_cast<std::uint32_t>(radius * (odd ? sine : cosine)) ^ flip);
  y = std::bit_cast<float>(std::bit_cast<std::uint32_t>(radius * (odd ? -cosine : sine)) ^ flip);
}

constexpr std::size_t batch = 4 * lanes;

template <class F>
void fill_batches(std::span<float> out, std::uint64_t seed, std::uint64_t stream, F convert) {
  for (std::size_t i = 0; i < out.size(); i += batch) {
    std::array<float, batch> values;
    convert(philox_lanes(seed, stream, i / 4), values.data());
    std::copy_n(values.data(), std::min(batch, out.size() - i), out.data() + i);
  }
}

}  // namespace

void Rng::uniforms(std::span<float> out) const {
  fill_batches(out, seed_, stream_, [](const Words& words, float* values) {
    for (std::size_t w = 0; w < 4; ++w) {
      for (std::size_t l = 0; l < lanes; ++l) values[w * lanes + l] = unit24(words[w][l]);
    }
  });
}

void Rng::normals(std::span<float> out) const {
  fill_batches(out, seed_, stream_, [](const Words& words, float* values) {
    for (std::size_t l = 0; l < lanes; ++l) {
      box_muller(words[0][l], words[1][l], values[l], values[lanes + l]);
      box_muller(words[2][l], words[3][l], values[2 * lanes + l], values[3 * lanes + l]);
    }
  });
}

Rng Rng::substream(std::uint64_t k) const {
  const Philox x = block(seed_, stream_ ^ 0x5bd1e9955bd1e995ull, k);
  return {seed_, join(x[1], x[0])};
}

}  // namespace attn
