#include "attn/train/unicode.hpp"

#include <array>
#include <cstdint>

namespace attn {

std::optional<std::u32string> code_points(std::string_view utf8) {
  struct Lead {
    unsigned mask, value;
    std::size_t more;
    char32_t least;
  };
  constexpr std::array leads = {Lead{0x80, 0x00, 0, 0}, Lead{0xe0, 0xc0, 1, 0x80}, Lead{0xf0, 0xe0, 2, 0x800},
                                Lead{0xf8, 0xf0, 3, 0x10000}};
  std::u32string text;
  for (std::size_t i = 0; i < utf8.size();) {
    const auto byte = [&](std::size_t k) { return static_cast<unsigned char>(utf8[k]); };
    const Lead* lead = nullptr;
    for (const Lead& candidate : leads) {
      if ((byte(i) & candidate.mask) == candidate.value) lead = &candidate;
    }
    if (lead == nullptr || i + lead->more >= utf8.size()) return std::nullopt;
    char32_t point = byte(i) & ~lead->mask & 0xffu;
    for (std::size_t k = i + 1; k <= i + lead->more; ++k) {
      if ((byte(k) & 0xc0u) != 0x80u) return std::nullopt;
      point = point << 6 | (byte(k) & 0x3fu);
    }
    if (point < lead->least || point > 0x10ffff || (0xd800 <= point && point < 0xe000)) return std::nullopt;
    text += point;
    i += lead->more + 1;
  }
  return text;
}

std::string to_utf8(std::u32string_view text) {
  std::string bytes;
  const auto tail = [&](char32_t point, int shift) { bytes += static_cast<char>(0x80 | (point >> shift & 0x3f)); };
  for (const char32_t c : text) {
    if (c < 0x80) {
      bytes += static_cast<char>(c);
    } else if (c < 0x800) {
      bytes += static_cast<char>(0xc0 | c >> 6);
    } else if (c < 0x10000) {
      bytes += static_cast<char>(0xe0 | c >> 12);
      tail(c, 6);
    } else {
      bytes += static_cast<char>(0xf0 | c >> 18);
      tail(c, 12);
      tail(c, 6);
    }
    if (c >= 0x80) tail(c, 0);
  }
  return bytes;
}

}  // namespace attn
