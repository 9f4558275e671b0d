// Small text helpers for option parsing and refusals.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"

namespace attn {

std::vector<std::string_view> split(std::string_view text, char separator);
std::string_view trim(std::string_view text);
std::string join(const std::vector<std::string>& parts, std::string_view separator);
std::string counted(std::size_t count, std::string_view noun);  // "1 cell", "2 cells"

// The whole text must be the number; otherwise a refusal that quotes it.
Result<index_t> parse_integer(std::string_view text);
Result<double> parse_number(std::string_view text);

// Three digits, for refusals.
std::string three_digits(double value);

// Shortest text that reads back as the same number.
std::string format_number(double value);

// The candidate with the smallest edit distance; empty when there is none within half the length.
std::string nearest(std::string_view given, const std::vector<std::string>& candidates);

}  // namespace attn
