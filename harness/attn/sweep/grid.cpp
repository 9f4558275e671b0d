#include "attn/sweep/grid.hpp"

#include <algorithm>

#include "attn/cell/axes.hpp"
#include "attn/core/text.hpp"
#include "attn/exec/limits.hpp"
#include "attn/inputs/input.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "attn/record/context.hpp"

namespace attn {

namespace {

constexpr index_t longest = index_t{1} << 26;
constexpr index_t most_threads = 4096;

// `text` if it names values, the fallback's values otherwise.
Result<std::vector<index_t>> axis(const char* flag, const std::string& text, index_t low, index_t high) {
  auto values = parse_axis(text, low, high);
  if (!values) return refuse(std::string("--") + flag + ": " + values.reason());
  return values;
}

Result<std::vector<std::unique_ptr<Variant>>> chosen_variants(const std::string& names, const Registry& registry) {
  if (names != "default") return registry.configure_list(names);
  std::vector<std::unique_ptr<Variant>> list;
  for (const auto& type : registry.all()) {
    if (!type->info.in_default_sweep) continue;
    auto variant = registry.configure(type->id);
    if (!variant) return variant.refusal();
    list.push_back(*std::move(variant));
  }
  return list;
}

}  // namespace

Result<std::vector<Block>> make_grid(const SweepOptions& o, const Registry& registry) {
  auto variants = chosen_variants(o.variants, registry);
  if (!variants) return refuse("--variants: " + variants.reason());

  if (!o.against.empty()) {
    auto reference = registry.configure(o.against);
    if (!reference) return refuse("--against: " + reference.reason());
    const bool listed =
        std::any_of(variants->begin(), variants->end(), [&](const auto& v) { return v->name() == (*reference)->name(); });
    if (!listed) variants->push_back(*std::move(reference));  // it has a row of its own
  }

  struct Named {
    const char* flag;
    std::string text;
    index_t low, high;
  };
  const std::string all_cores = std::to_string(usable_cores());
  const std::vector<Named> named = {
      {"n", o.n.empty() ? "128..4096*2" : o.n, 1, longest},
      {"kv-len", o.kv_len.empty() ? "1" : o.kv_len, 1, longest},
      {"batch", o.batch, 1, 65536},
      {"heads", o.heads, 1, 65536},
      {"kv-heads", o.kv_heads.empty() ? "1" : o.kv_heads, 1, 65536},
      {"head-dim", o.head_dim, 1, widest_head},
      {"value-dim", o.value_dim.empty() ? "1" : o.value_dim, 1, widest_head},
      {"threads", o.threads.empty() ? all_cores : o.threads, 1, most_threads},
      {"seed", o.seed, 0, index_t{1} << 62},
  };
  std::vector<std::vector<index_t>> axes;
  for (const auto& [flag, text, low, high] : named) {
    auto values = axis(flag, text, low, high);
    if (!values) return values.refusal();
    axes.push_back(*std::move(values));
  }
  std::sort(axes[0].begin(), axes[0].end());
  const auto causal = parse_causal(o.causal);
  if (!causal) return refuse("--causal: " + causal.reason());

  std::vector<std::string> isas = {kernels::active_isa()};
  if (!o.isa.empty()) {
    isas.clear();
    for (const auto name : split(o.isa, ',')) isas.emplace_back(trim(name));
    for (const auto& name : isas) {
      const auto available = kernels::available_isas();
      if (std::find(available.begin(), available.end(), name) == available.end()) {
        return refuse("--isa: '" + name + "' is not available; this machine and build have " + join(available, ", "));
      }
    }
  }
  std::vector<Pass> passes;
  for (const auto name : split(o.pass, ',')) {
    const auto pass = parse_pass(trim(name));
    if (!pass) return refuse("--pass: " + pass.reason());
    passes.push_back(*pass);
  }
  std::vector<Scope> scopes;
  for (const auto name : split(o.scope, ',')) {
    const auto scope = parse_scope(trim(name));
    if (!scope) return refuse("--scope: " + scope.reason());
    scopes.push_back(*scope);
  }
  std::vector<std::unique_ptr<Input>> inputs;
  for (const auto& text : o.inputs.empty() ? std::vector<std::string>{"text"} : o.inputs) {
    auto input = parse_input(text);
    if (!input) return refuse("--input: " + input.reason());
    inputs.push_back(*std::move(input));
  }

  std::vector<Block> blocks;
  for (const index_t n : axes[0])
    for (const index_t kv_len : axes[1])
      for (const bool is_causal : *causal)
        for (const index_t batch : axes[2])
          for (const index_t heads : axes[3])
            for (const index_t kv_heads : axes[4])
              for (const index_t head_dim : axes[5])
                for (const index_t value_dim : axes[6])
                  for (const auto& input : inputs)
                    for (const index_t threads : axes[7])
                      for (const auto& isa : isas)
                        for (const Pass pass : passes)
                          for (const Scope scope : scopes)
                            for (const index_t seed : axes[8]) {
                              Problem asked{.batch = batch,
                                            .heads = heads,
                                            .kv_heads = o.kv_heads.empty() ? heads : kv_heads,
                                            .q_len = n,
                                            .kv_len = o.kv_len.empty() ? n : kv_len,
                                            .head_dim = head_dim,
                                            .value_dim = o.value_dim.empty() ? head_dim : value_dim,
                                            .causal = is_causal,
                                            .pass = pass};
                              auto problem = input->adapt(asked);
                              if (!problem) return refuse("--input " + input->name() + ": " + problem.reason());
                              // A length that was asked for and is not in the file is a row, refused when its tensors are made.
                              const auto held = input->shape();
                              if (!o.n.empty() && held && held->self_attention() && held->kv_len < asked.kv_len) {
                                problem->q_len = asked.q_len;
                                problem->kv_len = asked.kv_len;
                              }
                              Block block;
                              for (const auto& variant : *variants) {
                                block.cells.push_back({variant->name(), *problem, input->name(), static_cast<std::uint64_t>(seed),
                                                       static_cast<int>(threads), isa, scope});
                              }
                              // Files fix their shape, so several lengths asked for may be one problem.
                              const bool twice = std::any_of(blocks.begin(), blocks.end(), [&](const Block& other) {
                                const Cell& a = other.cells.front();
                                const Cell& b = block.cells.front();
                                return a.problem == b.problem && a.input == b.input && a.seed == b.seed && a.threads == b.threads &&
                                       a.isa == b.isa && a.scope == b.scope;
                              });
                              if (!twice) blocks.push_back(std::move(block));
                            }
  return blocks;
}

std::string repeat_command(const Cell& cell, const SweepOptions& o) {
  const Problem& p = cell.problem;
  std::vector<std::string> arguments = {"attn_sweep", "--variants", cell.variant, "--n", std::to_string(p.q_len)};
  const auto add = [&](const char* flag, const std::string& value) {
    arguments.emplace_back(flag);
    arguments.push_back(value);
  };
  if (p.kv_len != p.q_len) add("--kv-len", std::to_string(p.kv_len));
  add("--batch", std::to_string(p.batch));
  add("--heads", std::to_string(p.heads));
  if (p.kv_heads != p.heads) add("--kv-heads", std::to_string(p.kv_heads));
  add("--head-dim", std::to_string(p.head_dim));
  if (p.value_dim != p.head_dim) add("--value-dim", std::to_string(p.value_dim));
  add("--causal", p.causal ? "yes" : "no");
  add("--threads", std::to_string(cell.threads));
  add("--isa", cell.isa);
  if (cell.problem.pass != Pass::forward) add("--pass", std::string(to_string(cell.problem.pass)));
  if (cell.scope != Scope::mixer) add("--scope", std::string(to_string(cell.scope)));
  add("--input", cell.input);
  add("--seed", std::to_string(cell.seed));
  add("--samples", std::to_string(o.samples));
  add("--rounds", std::to_string(o.rounds));
  add("--sample-time", format_number(o.sample_time_s));
  const SweepOptions usual;
  if (o.fidelity != usual.fidelity) add("--fidelity", o.fidelity);
  if (o.fidelity_seeds != usual.fidelity_seeds) add("--fidelity-seeds", std::to_string(o.fidelity_seeds));
  if (!o.against.empty()) add("--against", o.against);
  if (!o.pin) arguments.emplace_back("--no-pin");
  for (const auto& plugin : o.plugins) add("--plugin", plugin);
  return shell_quoted(arguments);
}

}  // namespace attn
