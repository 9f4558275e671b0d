// The container of https://github.com/huggingface/safetensors: eight bytes of header length, a JSON header, the tensors.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "attn/core/result.hpp"
#include "attn/inputs/array.hpp"

namespace attn {

// The tensor called `name`: F16, BF16, F32 or F64. Refusals name the field and the byte offset, not the file. Refused too what
// the format forbids: a name given twice, tensors that overlap or leave bytes of the data to none.
Result<StoredArray> parse_safetensors(std::span<const std::byte> file, std::string_view name);
Result<std::vector<std::string>> names_in_safetensors(std::span<const std::byte> file);

}  // namespace attn
