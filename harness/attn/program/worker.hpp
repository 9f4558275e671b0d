// A program as its own worker: "PROGRAM --worker KIND [--prefer-plugin] PLUGIN... [--guests SPEC...]", one question on standard input, the answer on answer_fd.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "attn/variant/plugin.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// What a worker can be asked. The answer may be empty, with last words on stderr.
struct WorkerKind {
  std::string name;
  std::function<std::string(const std::string& question, const Registry& registry)> answer;
};

// For run_worker: a worker of this kind that knows the plugins' variants and, by what they said of themselves, those of guests.
std::vector<std::string> worker_arguments(const std::string& kind, const std::vector<std::string>& plugins, Prefer prefer,
                                          const std::vector<std::string>& guest_specs = {});

// Whether a program's arguments make it a worker.
bool is_worker(const std::vector<std::string>& arguments);

// The worker, by its arguments. Ends the process after an answer.
int worker_main(const std::vector<std::string>& arguments, const std::vector<WorkerKind>& kinds);

}  // namespace attn
