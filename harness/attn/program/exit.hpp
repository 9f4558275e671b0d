// How every program ends.
#pragma once

#include <string>

namespace attn {

inline constexpr int exit_ok = 0;
inline constexpr int exit_failed_cell = 1;  // some cell inaccurate, diverged or crashed
inline constexpr int exit_usage = 2;
inline constexpr int exit_nothing_measured = 5;
inline constexpr int exit_not_written = 6;  // disk full or the like: what was finished before is kept
inline constexpr int exit_interrupted = 130;

// Text to stdout; exit_not_written where it takes none.
int print_and_exit(const std::string& text);

// "PROGRAM: REASON" to stderr; the code.
int fail(int code, const std::string& program, const std::string& reason);

// As fail, of a program that keeps its rows; exit_not_written. `go_on`: the command that goes on with them.
int not_written(const std::string& program, const std::string& reason, const std::string& go_on);

// "PROGRAM: interrupted; finished rows are kept, this goes on: COMMAND" to stderr.
void tell_of_interruption(const std::string& program, const std::string& go_on);

}  // namespace attn
