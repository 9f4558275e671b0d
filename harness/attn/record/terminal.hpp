// How wide what a person reads may be.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace attn {

inline constexpr std::size_t any_width = 0;

// Columns of the terminal that a stream is, any_width where it is none: what goes into a file is not cut.
std::size_t terminal_columns(int fd);

// The text in lines of at most `width` letters, broken at blanks; a longer word stands alone. No line for a text without a word.
std::vector<std::string> wrapped(std::string_view text, std::size_t width);

// At most `width` letters, the last three of them dots where something is left out.
std::string cut(std::string_view text, std::size_t width);

// Three digits, and all before the point of larger numbers: "0.0123", "12.3", "1023".
std::string three_digits(double value);

}  // namespace attn
