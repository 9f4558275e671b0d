// NumPy's archives of arrays: zip files whose members are .npy files, stored (numpy.savez) or deflated (savez_compressed). Format: PKWARE APPNOTE 6.3, sections 4.3 and 4.5.3 (zip64, which savez uses beyond 4 GiB).
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "attn/core/result.hpp"
#include "attn/inputs/array.hpp"

namespace attn {

// The array called `name` (member "name.npy"). Refusals name the field and its byte offset in the archive, within a member
// that of the member, and not the file. Refused too where two members have the name, or its bytes another check sum.
Result<StoredArray> parse_npz(std::span<const std::byte> file, std::string_view name);
// The bytes of a member that is no array, "note.txt", as text; likewise refused.
Result<std::string> text_in_npz(std::span<const std::byte> file, const std::string& member);

// For write_npz.
struct NpzArray {
  std::string name;  // without .npy
  std::vector<index_t> shape;
  std::span<const float> values;
};
// Arrays of f32 and one member of text behind them, as numpy.load reads them. The file appears whole or not at all. Refused where it would be
// larger than 4 GiB.
Status write_npz(const std::string& path, std::span<const NpzArray> arrays, const std::string& member, std::string_view text);

// The names of its members, whatever they are.
Result<std::vector<std::string>> names_in_npz(std::span<const std::byte> file);

}  // namespace attn
