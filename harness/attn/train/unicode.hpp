// Text as the characters that models read and write.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace attn {

// Code points of UTF-8; nothing where the text is none: torn, overlong, a surrogate, or beyond U+10FFFF.
std::optional<std::u32string> code_points(std::string_view utf8);
std::string to_utf8(std::u32string_view text);

}  // namespace attn
