#include "attn/program/exit.hpp"

#include <cstdio>

#include "attn/record/sink.hpp"

namespace attn {

int print_and_exit(const std::string& text) { return tell(stdout, text) ? exit_ok : exit_not_written; }

int fail(int code, const std::string& program, const std::string& reason) {
  tell(stderr, program + ": " + reason + "\n");
  return code;
}

int not_written(const std::string& program, const std::string& reason) {
  return fail(exit_not_written, program, reason + "; finished rows are kept, --resume goes on");
}

}  // namespace attn
