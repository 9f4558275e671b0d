// attn_sweep --verify: every property of attn/prove/conformance.hpp on every chosen variant, each in a process of its own,
// so that a crash or a hang is that property's failure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "attn/program/worker.hpp"
#include "attn/prove/call_meter.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

struct VerifyOptions {
  std::optional<std::string> variants;  // none: those that the plugins and guests brought, or all
  std::string property = "all";
  std::string format = "text";         // or "md", "json"
  std::optional<std::string> threads;  // none: 2
  std::string memory_limit;
  double timeout_s = 60;
  std::vector<std::string> plugins, guests;
  std::string prefer;                    // empty, or plugin
  std::vector<std::string> guest_specs;  // what the guests said of themselves
  bool quiet = false;
};

// Prints what each variant came to on stdout; an exit code.
int verify(const VerifyOptions& options, const Registry& registry);

// What its workers are asked: one property of one variant. `meter` is null where the program has none.
WorkerKind verify_kind(CallMeter* meter);

}  // namespace attn
