// NumPy's archives of arrays: zip files whose members are .npy files. Stored members only: numpy.savez, not
// savez_compressed. Format: PKWARE APPNOTE 6.3, sections 4.3 and 4.5.3 (zip64, which savez uses beyond 4 GiB).
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
// The names of its members, whatever they are.
Result<std::vector<std::string>> names_in_npz(std::span<const std::byte> file);

}  // namespace attn
