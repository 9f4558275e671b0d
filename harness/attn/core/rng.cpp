#include "attn/core/rng.hpp"

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

Rng Rng::substream(std::uint64_t k) const {
  const Philox x = block(seed_, stream_ ^ 0x5bd1e9955bd1e995ull, k);
  return {seed_, join(x[1], x[0])};
}

}  // namespace attn
