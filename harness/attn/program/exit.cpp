#include "attn/program/exit.hpp"

#include <cstdio>

#include "attn/record/sink.hpp"

namespace attn {

int print_and_exit(const std::string& text) { return tell(stdout, text) ? exit_ok : exit_not_written; }

int fail(int code, const std::string& program, const std::string& reason) {
  tell(stderr, program + ": " + reason + "\n");
  return code;
}

int not_written(const std::string& program, const std::string& reason, const std::string& go_on) {
  return fail(exit_not_written, program, reason + "; finished rows are kept, this goes on: " + go_on);
}

void tell_of_interruption(const std::string& program, const std::string& go_on) {
  tell(stderr, program + ": interrupted; finished rows are kept, this goes on: " + go_on + "\n");
}

}  // namespace attn
