#include "attn/cell/cell.hpp"

#include <array>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

#include "attn/cell/axes.hpp"

namespace attn {

using nlohmann::json;

NLOHMANN_JSON_SERIALIZE_ENUM(Comparison, {{Comparison::none, "none"}, {Comparison::rows, "rows"}, {Comparison::full, "full"}})
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Settings, samples, sample_min_s, gate, fidelity, fidelity_seeds, clock, pin, against,
                                   memory_limit_bytes, output_file, machine_root)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(GateResult, done, scope, max_abs, relative, allowance_abs)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(MatrixFidelity, done, reason, relative, js, recall_1, recall_8, recall_32, support_mass,
                                   support_mass_p05, spectral)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Fidelity, done, reason, skill, relative, row_p50, row_p95, worst_row, cosine_p50, seeds,
                                   relative_sd, bias, scatter, lost_seeds, matrix)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RunMeters, cycles, instructions, cache_misses, joules, unsupported)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Placement, logit_std, row_entropy, perplexity, sink_mass, top32_mass, q_norm2)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Cost, flops, bytes, exps)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RankFigures, sent_bytes, sent_bytes_formula, sent_messages, sent_messages_formula, held_bytes,
                                   exposed, messages_s, imbalance)

namespace {

constexpr std::array outcome_names = {std::pair{Outcome::ok, "ok"},
                                      std::pair{Outcome::unsupported, "unsupported"},
                                      std::pair{Outcome::inaccurate, "inaccurate"},
                                      std::pair{Outcome::timed_out, "timed_out"},
                                      std::pair{Outcome::out_of_memory, "out_of_memory"},
                                      std::pair{Outcome::crashed, "crashed"},
                                      std::pair{Outcome::skipped_budget, "skipped_budget"}};

}  // namespace

std::string_view to_string(Scope scope) { return scope == Scope::mixer ? "mixer" : "layer"; }

Result<Scope> parse_scope(std::string_view name) {
  for (const Scope scope : {Scope::mixer, Scope::layer}) {
    if (to_string(scope) == name) return scope;
  }
  return refuse("'" + std::string(name) + "' is no scope; accepted: mixer, layer");
}

std::string_view to_string(CacheState cache) { return cache == CacheState::hot ? "hot" : "cold"; }

Result<CacheState> parse_cache_state(std::string_view name) {
  for (const CacheState cache : {CacheState::hot, CacheState::cold}) {
    if (to_string(cache) == name) return cache;
  }
  return refuse("'" + std::string(name) + "' is no state of the caches; accepted: hot, cold");
}

std::string_view to_string(Outcome outcome) {
  for (const auto& [value, name] : outcome_names) {
    if (value == outcome) return name;
  }
  return "";
}

Result<Outcome> parse_outcome(std::string_view name) {
  for (const auto& [value, candidate] : outcome_names) {
    if (candidate == name) return value;
  }
  return refuse("'" + std::string(name) + "' is no outcome of a cell");
}

Comparison comparison_from(std::string_view name) { return json(name).get<Comparison>(); }

void to_json(json& j, Outcome outcome) { j = std::string(to_string(outcome)); }
void from_json(const json& j, Outcome& outcome) {
  const auto named = parse_outcome(j.get<std::string>());
  if (!named) throw std::invalid_argument(named.reason());
  outcome = *named;
}

}  // namespace attn

namespace attn::kernels {
void to_json(json& j, Compute compute) { j = std::string(to_string(compute)); }
void from_json(const json& j, Compute& compute) {
  const auto named = parse_compute(j.get<std::string>());
  if (!named) throw std::invalid_argument(named.reason());
  compute = *named;
}
}  // namespace attn::kernels

namespace attn {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Measurement, outcome, reason, isa, samples_s, against, against_s, append_s, parallelism, meters,
                                   mixer_share, choice_share, variant_note, compute, stored, storage_error, gate, fidelity, note,
                                   placed, placement, output_file, cost, workspace_bytes, parameter_bytes, state_bytes, in_place,
                                   peak_rss_bytes, over_ranks, ranks, setup_s, fma_gflops, disturbed, remeasured)

std::string to_json(const Cell& cell, const Settings& settings) {
  json values = json::object();
  for (const Axis& axis : axes()) std::visit([&](const auto& value) { values[axis.name] = value; }, axis.get(cell));
  const MaskExtents& mask = cell.problem.mask;  // no axis: the input has it
  return json{{"cell", values}, {"mask", {mask.batch, mask.heads, mask.rows}}, {"settings", settings}}.dump();
}

void from_json(const std::string& text, Cell& cell, Settings& settings) {
  const json j = json::parse(text);
  cell = {};
  for (const Axis& axis : axes()) {
    const json& value = j.at("cell").at(axis.name);
    const auto read = axis.read(value.is_string() ? value.get<std::string>() : value.dump());
    if (!read) throw std::invalid_argument(axis.name + ": " + read.reason());
    axis.set(cell, *read);
  }
  const json& mask = j.at("mask");
  cell.problem.mask = {mask.at(0), mask.at(1), mask.at(2)};
  j.at("settings").get_to(settings);
}

std::string to_json(const Measurement& m) { return json(m).dump(-1, ' ', false, json::error_handler_t::replace); }

Measurement measurement_from_json(const std::string& text) { return json::parse(text).get<Measurement>(); }

}  // namespace attn
