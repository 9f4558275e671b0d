// Counter-based random numbers: value i of stream s is a pure function of (seed, s, i), so tensors do not depend on
// the number of threads, the order of generation or the machine.
// Philox4x32-10: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "attn/core/problem.hpp"

namespace attn {

using Philox = std::array<std::uint32_t, 4>;

// The Philox4x32-10 block function.
Philox philox(Philox counter, std::array<std::uint32_t, 2> key);

// FNV-1a, 64 bit: names become stream numbers.
constexpr std::uint64_t hash_name(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return hash;
}

class Rng {
 public:
  // Streams with different names (or numbers) under one seed are independent.
  Rng(std::uint64_t seed, std::string_view stream) : Rng(seed, hash_name(stream)) {}
  Rng(std::uint64_t seed, std::uint64_t stream) : seed_(seed), stream_(stream) {}

  std::uint64_t bits(index_t i) const;        // 64 uniform bits
  double uniform(index_t i) const;            // [0, 1), 53 bits
  double normal(index_t i) const;             // N(0, 1), Box-Muller
  index_t below(index_t i, index_t n) const;  // 0 .. n-1, unbiased to 2^-64 * n

  // Whole tensors at 5 to 8 ns a value; out[i] is a pure function of (seed, stream, i), to the bit on every machine.
  // They read the same counters as the functions above: use a stream for one purpose only.
  void uniforms(std::span<float> out) const;  // [0, 1), 24 bits
  void normals(std::span<float> out) const;   // N(0, 1) up to 5.9 standard deviations, within 1e-6

  Rng substream(std::uint64_t k) const;

 private:
  std::uint64_t seed_;
  std::uint64_t stream_;
};

}  // namespace attn
