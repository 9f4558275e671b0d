#include "attn/inputs/crc32.hpp"

#include <array>

namespace attn {

// The reflected polynomial 0x04c11db7.
std::uint32_t crc32(std::span<const std::byte> bytes, std::uint32_t before) {
  static constexpr auto table = [] {
    std::array<std::uint32_t, 256> remainders{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      remainders[i] = i;
      for (int bit = 0; bit < 8; ++bit) remainders[i] = remainders[i] >> 1 ^ (remainders[i] & 1) * 0xedb88320u;
    }
    return remainders;
  }();
  std::uint32_t crc = ~before;
  for (const std::byte byte : bytes) crc = crc >> 8 ^ table[(crc ^ std::to_integer<std::uint32_t>(byte)) & 0xff];
  return ~crc;
}

}  // namespace attn
