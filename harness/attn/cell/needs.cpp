#include "attn/cell/needs.hpp"

#include <nlohmann/json.hpp>

#include "attn/variant/decode.hpp"
#include "attn/variant/planned.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

namespace {

using nlohmann::json;

index_t elements_of(const InputSpec& spec) {
  index_t count = 1;
  for (const index_t extent : spec.extents) count *= extent;
  return count;
}

Needs needs_of(const Variant& variant, const Problem& p) {
  const bool decodes = p.pass == Pass::decode;
  const Problem tokens = decodes ? whole_sequence(p) : p;
  Needs needs;
  const index_t queries = p.batch * p.heads * p.q_len, keys = p.batch * p.kv_heads * p.kv_len;
  needs.inputs = bytes_of(p.dtype, queries * p.head_dim) + bytes_of(p.kv_dtype, keys * p.head_dim) +
                 bytes_of(p.kv_dtype, keys * p.value_dim) + bytes_of(DType::f32, queries * p.value_dim);
  for (const InputSpec& spec : variant.inputs(tokens)) needs.inputs += bytes_of(DType::f32, elements_of(spec));
  needs.parameters = parameter_bytes(variant.parameters(tokens));
  if (decodes) needs.state = p.batch * variant.state_bytes(planned_step(variant, p));
  return needs;
}

Result<std::unique_ptr<Variant>> supporting(const Registry& registry, const Cell& cell) {
  auto variant = registry.configure(cell.variant);
  if (!variant) return variant.refusal();
  if (Status status = (*variant)->supports(cell.problem); !status) return status.refusal();
  if (cell.problem.pass == Pass::forward_backward) {
    if (Status status = (*variant)->supports_backward(cell.problem); !status) return status.refusal();
  }
  return variant;
}

}  // namespace

Result<Needs> needs_before_planning(const Registry& registry, const Cell& cell) {
  const auto variant = supporting(registry, cell);
  if (!variant) return variant.refusal();
  return needs_of(**variant, cell.problem);
}

Result<Needs> needs_of(const Registry& registry, const Cell& cell) {
  const auto variant = supporting(registry, cell);
  if (!variant) return variant.refusal();
  Needs needs = needs_of(**variant, cell.problem);
  if ((*variant)->is_guest()) return needs;
  const bool decodes = cell.problem.pass == Pass::decode;
  needs.workspace =
      Planned(**variant, decodes ? planned_step(**variant, cell.problem) : cell.problem, cell.threads).workspace_bytes();
  return needs;
}

std::string to_json(const Needs& needs) {
  json j = {{"inputs", needs.inputs}, {"parameters", needs.parameters}, {"state", needs.state}};
  if (needs.workspace) j["workspace"] = *needs.workspace;
  return j.dump();
}

Needs needs_from_json(const std::string& text) {
  const json j = json::parse(text);
  Needs needs{.inputs = j.at("inputs"), .parameters = j.at("parameters"), .state = j.at("state"), .workspace = {}};
  if (j.contains("workspace")) needs.workspace = j.at("workspace").get<index_t>();
  return needs;
}

}  // namespace attn
