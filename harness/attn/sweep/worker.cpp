#include "attn/measure/worker.hpp"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "attn/kernels/machine/isa.hpp"
#include "attn/measure/machine.hpp"
#include "attn/sweep/sweep.hpp"

namespace attn {

namespace {

std::string answer_peak(const std::string& text, const Registry&) {
  const auto question = nlohmann::json::parse(text);
  if (Status forced = kernels::force_isa(question.at("isa").get<std::string>()); !forced) {
    std::fprintf(stderr, "%s\n", forced.reason().c_str());  // last words
    return "";
  }
  const Arena arena(question.at("threads").get<int>(), question.at("pin").get<bool>() ? Pinning::cores : Pinning::none);
  return to_json(measure_peak(arena, true));
}

// The process's start on the monotonic clock is what the parent noted before it forked.
std::string answer_cell(const std::string& text, const Registry& registry) {
  Cell cell;
  Settings settings;
  from_json(text, cell, settings);
  return to_json(measure_cell(registry, cell, settings, nlohmann::json::parse(text).at("started_s").get<double>()));
}

}  // namespace

std::vector<WorkerKind> sweep_kinds() { return {{"cell", answer_cell}, {"peak", answer_peak}}; }

}  // namespace attn
