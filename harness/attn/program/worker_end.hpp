// Why a worker gave no answer, in the words of a row.
#pragma once

#include <string>

#include "attn/cell/cell.hpp"
#include "attn/program/process.hpp"

namespace attn {

struct NoAnswer {
  Outcome outcome;
  std::string reason;
};

// The row of a worker whose answer is missing or torn. `where` says how far it came, " at 3 of 7".
NoAnswer no_answer(const ProcessEnd& end, double timeout_s, const std::string& where = "");

}  // namespace attn
