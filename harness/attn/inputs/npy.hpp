// NumPy's array files, versions 1 to 3: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "attn/core/result.hpp"
#include "attn/inputs/array.hpp"

namespace attn {

// The array in the bytes of a .npy file; the data stay where they are. Accepts '<f2', '<f4' and '<f8' in C order. Refusals
// name the field and its byte offset, not the file.
Result<StoredArray> parse_npy(std::span<const std::byte> file);

// What stands before the elements of an array in such a file, version 1; of f32 unless `descr` says otherwise.
std::string npy_header(std::span<const index_t> shape, std::string_view descr = "<f4");

// Writes f32, version 1. The file appears whole or not at all; an existing one is replaced, a link to it stays. What is no
// regular file, such as a device or a pipe, is written in place.
Status write_npy(const std::string& path, std::span<const index_t> shape, std::span<const float> values);

}  // namespace attn
