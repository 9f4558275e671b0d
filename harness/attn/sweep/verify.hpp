// attn_sweep --verify: every property of attn/prove/conformance.hpp on every chosen variant, each in a process of its own,
// so that a crash or a hang is that property's failure.
#pragma once

#include <string>
#include <vector>

#include "attn/prove/conformance.hpp"
#include "attn/sweep/options.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// One variant's findings, in the order of the properties tried.
struct Verdict {
  std::string variant, family;
  std::vector<Finding> findings;
};

// Prints verdicts to stdout; the exit code of the program. `worker_arguments` start a worker that knows all of `registry`.
int verify(const SweepOptions& options, const Registry& registry, const std::vector<std::string>& worker_arguments);

// Inside the worker: tries one property, writing each case to answer_fd before it is tried and the finding at the end.
void answer_verify(const std::string& variant, const std::string& property, const Registry& registry, ConformanceOptions options);

std::string verdicts_text(const std::vector<Property>& tried, const std::vector<Verdict>& verdicts, const SweepOptions& options);
std::string verdicts_markdown(const std::vector<Property>& tried, const std::vector<Verdict>& verdicts);
std::string verdicts_json(const std::vector<Property>& tried, const std::vector<Verdict>& verdicts, const SweepOptions& options);

}  // namespace attn
