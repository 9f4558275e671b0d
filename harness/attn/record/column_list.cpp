#include "attn/record/column_list.hpp"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "attn/core/text.hpp"

namespace attn {

namespace {

template <class T>
bool read_whole(const std::string& text, T& value) {
  const auto whole = parse_integer(text);
  if (!whole || !std::in_range<T>(*whole)) return false;
  value = static_cast<T>(*whole);
  return true;
}

}  // namespace

std::string print_field(double value) {
  if (std::abs(value) == std::numeric_limits<double>::max()) return value > 0 ? "inf" : "-inf";
  return fmt::format("{:.6g}", value);
}

bool read_field(const std::string& text, double& value) {
  const auto figure = parse_number(text);
  if (figure) value = *figure;
  return static_cast<bool>(figure);
}

bool read_field(const std::string& text, bool& value) {
  value = text == "1";
  return text == "0" || text == "1";
}

bool read_field(const std::string& text, index_t& value) { return read_whole(text, value); }
bool read_field(const std::string& text, std::uint64_t& value) { return read_whole(text, value); }
bool read_field(const std::string& text, int& value) { return read_whole(text, value); }

std::string print_list(const std::vector<double>& values) {
  std::vector<std::string> parts;
  for (const double value : values) parts.push_back(print_field(value));
  return join(parts, ";");
}

bool read_list(const std::string& text, std::vector<double>& values) {
  values.clear();
  if (text.empty()) return true;
  for (const auto part : split(text, ';')) {
    if (!read_field(std::string(part), values.emplace_back())) return false;
  }
  return true;
}

}  // namespace attn
