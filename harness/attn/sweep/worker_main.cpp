#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "attn/core/time.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "attn/measure/machine.hpp"
#include "attn/measure/worker.hpp"
#include "attn/program/exit.hpp"
#include "attn/program/process.hpp"
#include "attn/record/sink.hpp"
#include "attn/sweep/sweep.hpp"
#include "attn/sweep/verify.hpp"
#include "attn/variant/plugin.hpp"

namespace attn {

namespace {

// The process's start on the monotonic clock is what the parent noted before it forked.
std::string answer_to(const nlohmann::json& question, const Registry& registry) {
  const auto started_s = question.at("started_s").get<double>();
  if (question.at("kind") == "peak") {
    if (Status forced = kernels::force_isa(question.at("isa").get<std::string>()); !forced) {
      std::fprintf(stderr, "%s\n", forced.reason().c_str());  // last words
      return "";
    }
    const Arena arena(question.at("threads").get<int>(), question.at("pin").get<bool>() ? Pinning::cores : Pinning::none);
    return to_json(measure_peak(arena, true));
  }
  Cell cell;
  Settings settings;
  from_json(question.dump(), cell, settings);
  return to_json(measure_cell(registry, cell, settings, started_s));
}

}  // namespace

int worker_main(const std::vector<std::string>& plugins, CallMeter* meter) {
  Registry registry;
  register_builtin_variants(registry);
  if (Status status = load_plugins(plugins, registry); !status) {
    std::fprintf(stderr, "%s\n", status.reason().c_str());
    return exit_usage;
  }
  const auto question = nlohmann::json::parse(std::string{std::istreambuf_iterator<char>(std::cin), {}});
  if (question.at("kind") == "property") {
    answer_verify(question.at("variant").get<std::string>(), question.at("property").get<std::string>(), registry,
                  {.threads = question.at("threads").get<int>(), .meter = meter});
    ::_exit(exit_ok);
  }
  const std::string answer = answer_to(question, registry);
  if (!write_whole(answer_fd, answer)) return exit_failed_cell;
  // Destructors of a plugin or a library cannot spoil an answer that is already given.
  ::_exit(exit_ok);
}

}  // namespace attn
