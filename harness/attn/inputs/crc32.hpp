// The checksum of zip, gzip and PNG.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace attn {

// Of bytes that follow those whose sum is `before`.
std::uint32_t crc32(std::span<const std::byte> bytes, std::uint32_t before = 0);

}  // namespace attn
