// What would make measurements better on this machine.
#pragma once

#include <string>
#include <vector>

namespace attn {

struct Advice {
  enum class Verdict { fine, improve, unsupported } verdict = Verdict::fine;
  std::string topic;
  std::string found;  // or why it cannot be read
  std::string why;    // it matters
  std::string todo;   // empty when fine
};

// Reads proc and sys under `root`; oneDNN and the environment are this process's own.
std::vector<Advice> examine(const std::string& root = "/");

std::string advice_text(const std::vector<Advice>& advice);

}  // namespace attn
