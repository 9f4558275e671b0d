#include "attn/record/terminal.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>

#include "catch.hpp"

using namespace attn;

using Lines = std::vector<std::string>;

TEST_CASE("text is broken at blanks into lines that fit, and a longer word stands alone") {
  CHECK(wrapped("aa bb cc", 8) == Lines{"aa bb cc"});
  CHECK(wrapped("aa bb cc", 7) == Lines{"aa bb", "cc"});
  CHECK(wrapped("aa bb cc", 5) == Lines{"aa bb", "cc"});
  CHECK(wrapped("aa bb cc", 4) == Lines{"aa", "bb", "cc"});
  CHECK(wrapped("a longest b", 3) == Lines{"a", "longest", "b"});
  CHECK(wrapped("  aa   bb ", 9) == Lines{"aa bb"});
  CHECK(wrapped("", 9).empty());
  CHECK(wrapped("  ", 9).empty());
}

TEST_CASE("what is cut ends in three dots, where there is room for them") {
  CHECK(cut("abcdef", 6) == "abcdef");
  CHECK(cut("abcdef", 5) == "ab...");
  CHECK(cut("abcdef", 4) == "a...");
  CHECK(cut("abcdef", 3) == "abc");
  CHECK(cut("abcdef", any_width) == "abcdef");
}

TEST_CASE("three digits are told, and all before the point of larger numbers") {
  CHECK(three_digits(0.0123456) == "0.0123");
  CHECK(three_digits(12.3456) == "12.3");
  CHECK(three_digits(999.4) == "999");
  CHECK(three_digits(999.5) == "1000");
  CHECK(three_digits(1023.4) == "1023");
}

TEST_CASE("a terminal has columns, a file any number") {
  const int file = ::open("/dev/null", O_WRONLY);
  CHECK(terminal_columns(file) == any_width);
  ::close(file);
  CHECK(terminal_columns(-1) == any_width);
  const int master = ::posix_openpt(O_RDWR | O_NOCTTY);
  if (master < 0 || ::grantpt(master) != 0 || ::unlockpt(master) != 0) return;  // no terminals in this container
  const int slave = ::open(::ptsname(master), O_RDWR | O_NOCTTY);
  winsize size{};
  size.ws_col = 77;
  if (slave >= 0 && ::ioctl(slave, TIOCSWINSZ, &size) == 0) CHECK(terminal_columns(slave) == 77);
  ::close(slave);
  ::close(master);
}
