#include "attn/record/terminal.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "attn/core/text.hpp"

namespace attn {

std::size_t terminal_columns(int fd) {
  winsize size{};
  if (::isatty(fd) != 1 || ::ioctl(fd, TIOCGWINSZ, &size) != 0) return any_width;
  return size.ws_col;
}

std::vector<std::string> wrapped(std::string_view text, std::size_t width) {
  std::vector<std::string> lines;
  for (const auto word : split(text, ' ')) {
    if (word.empty()) continue;
    if (lines.empty() || lines.back().size() + 1 + word.size() > width) {
      lines.emplace_back(word);
    } else {
      lines.back() += " " + std::string(word);
    }
  }
  return lines;
}

std::string cut(std::string_view text, std::size_t width) {
  if (width == any_width || text.size() <= width) return std::string(text);
  return width < 4 ? std::string(text.substr(0, width)) : std::string(text.substr(0, width - 3)) + "...";
}

std::string three_digits(double value) {
  constexpr double longer = 999.5;  // which three digits would round to 1e+03
  return value < longer ? fmt::format("{:.3g}", value) : fmt::format("{:.0f}", value);
}

}  // namespace attn
