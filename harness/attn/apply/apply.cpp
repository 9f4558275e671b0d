#include "attn/apply/apply.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>

#include "attn/apply/continuation.hpp"
#include "attn/apply/map.hpp"
#include "attn/apply/parameters.hpp"
#include "attn/cell/values.hpp"
#include "attn/exec/limits.hpp"
#include "attn/guest/host.hpp"
#include "attn/guest/spec.hpp"
#include "attn/inputs/file.hpp"
#include "attn/inputs/npy.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "attn/measure/worker.hpp"
#include "attn/program/components.hpp"
#include "attn/program/exit.hpp"
#include "attn/program/flags.hpp"
#include "attn/program/renamed.hpp"
#include "attn/record/context.hpp"
#include "attn/record/row.hpp"
#include "attn/record/sink.hpp"
#include "attn/variant/plugin.hpp"
#include "attn/variant/remote.hpp"

namespace attn {

namespace {

struct ApplyOptions {
  std::string variant = "full";
  std::string q, k, v, input;
  std::string out;         // empty: none, with a map; else o.npy
  std::string parameters;  // folder
  std::string state;
  index_t context = 0;
  std::string compare = "none";
  MapOptions map;
  index_t n = 0, heads = 8, head_dim = 64;  // of an input that takes any shape
  std::string isa;
  std::string dtype = "f32", kv_dtype;
  std::vector<std::string> plugins, guests;
  index_t seed = 1;
  int threads = usable_cores();
  int fidelity_seeds = 5;
  std::string causal;  // empty: as the input says
  std::string prefer;
  bool force = false;
  bool pin = true;
  bool quiet = false;
  bool version = false;
};

constexpr const char* examples =
    R"(Examples
  attn_apply --variant performer --q q.npy --k k.npy --v v.npy --compare full
  attn_apply --variant full --input npz:captured/layer0.npz --out o.npy
  attn_apply --variant local --input text --n 128 --map map.html
  attn_apply --variant linear --input npz:more.npz --state s.npz --context 4096

Exit codes
  0 fine; 1 the output is not what the definition says; 2 usage;
  6 the output could not be written)";

void declare(CLI::App& app, ApplyOptions& o) {
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.add_option("--variant", o.variant, "variant with options, such as performer:m=256")->capture_default_str();
  app.add_option("--q", o.q, "queries, .npy: [N,d], [H,N,d] or [B,H,N,d]");
  app.add_option("--k", o.k, "keys, .npy");
  app.add_option("--v", o.v, "values, .npy");
  app.add_option("--input", o.input,
                 "instead of the three: npz:FILE, safetensors:FILE or npy:Q,K,V, each with ,layer=i if need be, the first two with "
                 ",prefix=P; or, "
                 "with --n, any input of attn_sweep --list");
  app.add_option("--n", o.n, "tokens of an input that has no shape of its own")->check(CLI::Range(index_t{1}, index_t{1} << 24));
  app.add_option("--heads", o.heads, "with --n: heads")->check(CLI::Range(index_t{1}, index_t{4096}))->capture_default_str();
  app.add_option("--head-dim", o.head_dim, "with --n: width of a head")
      ->check(CLI::Range(index_t{1}, widest_head))
      ->capture_default_str();
  app.add_option("--out", o.out, "output, .npy: [B,H,N,d] in f32 (default: o.npy; with --map none)");
  app.add_option("--parameters", o.parameters,
                 "folder of the learned tensors and random tables, one .npy each: read if they are there, else drawn or "
                 "fitted, and written");
  app.add_option("--compare", o.compare, "print gate and fidelity: none, rows or full")
      ->check(CLI::IsMember({"none", "rows", "full"}))
      ->capture_default_str();
  app.add_option("--map", o.map.file,
                 "what each head looks at: FILE.npy with the weights [B,H,N,M], FILE.html with a page that draws them");
  app.add_option("--tokens", o.map.tokens, "with --map: what the tokens are, a file of one a line (default: what the input knows)");
  app.add_option("--fidelity-seeds", o.fidelity_seeds, "seeds of random tables that fidelity is averaged over")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--seed", o.seed, "seed of parameters that are drawn")
      ->check(CLI::Range(index_t{0}, index_t{1} << 62))
      ->capture_default_str();
  app.add_option("--threads", o.threads, "threads of the pool")->check(CLI::Range(1, 4096))->capture_default_str();
  app.add_option("--dtype", o.dtype, "number type that Q, K and V are rounded to and stored as: " + dtype_names(true))
      ->capture_default_str();
  app.add_option("--kv-dtype", o.kv_dtype, "of K and V: " + dtype_names(false) + " (default: as --dtype)");
  app.add_option("--isa", o.isa, "avx512, avx2, neon or scalar (default: the best here)");
  add_texts(app, "plugin", o.plugins, "shared library with a variant; may be given several times", "Options");
  add_texts(app, "guest", o.guests,
            "command of a program that computes variants (scripts/guests/README.md); may be given several times", "Options");
  app.add_option(
      "--state", o.state,
      "goes on with a causal sequence: the state after the tokens so far, .npz, is read if it is there, and written with these");
  app.add_option("--context", o.context,
                 "with --state, of variants that fold tokens into sums: the longest sequence that it will be")
      ->check(CLI::Range(index_t{1}, index_t{1} << 26));
  add_prefer(app, o.prefer, "Options");
  add_yes_or_text(
      app, "causal", [&o](const std::string& given) { o.causal = given; },
      "no or yes; alone: yes: query i sees keys j <= i + kv_len - q_len only (default: what the input says)", "Options");
  app.add_flag("--pin,!--no-pin", o.pin, "bind threads to cores");
  app.add_flag("--force", o.force, "replace the output file");
  app.add_flag("-q,--quiet", o.quiet, "do not say what was done");
  app.add_flag("--version", o.version, "version, commit and libraries");
}

Result<std::string> input_name(const ApplyOptions& o) {
  const int given = !o.q.empty() + !o.k.empty() + !o.v.empty();
  if (given == 3 && o.input.empty()) {
    for (const auto& [flag, path] : {std::pair("--q", o.q), std::pair("--k", o.k), std::pair("--v", o.v)}) {
      if (path.find(',') != std::string::npos)
        return refuse(std::string(flag) + ": '" + path +
                      "' has a comma, which ends a path in an input's name; accepted: a path without one, such as a link");
    }
    return "npy:" + o.q + "," + o.k + "," + o.v;
  }
  if (given == 0 && !o.input.empty()) return o.input;
  return refuse("give --q, --k and --v, or --input npz:FILE or safetensors:FILE");
}

// Asked before anything is drawn: later the system kills this process.
Status fits_memory(const CellRun& run) {
  const auto parameters = static_cast<std::size_t>(parameter_bytes(run.specs()));
  const auto workspace = static_cast<std::size_t>(run.workspace_bytes());
  const Limits limits = read_limits();
  if (!limits.memory_bytes || parameters + workspace <= static_cast<std::size_t>(*limits.memory_bytes)) return {};
  return refuse(
      fmt::format("--variant: {} takes {} bytes of parameters and {} of workspace, {} bytes of memory are available, by {}",
                  run.variant().name().text(), parameters, workspace, *limits.memory_bytes, limits.memory_by));
}

Status writable(const std::string& flag, const std::string& file, bool force) {
  std::error_code none;
  if (!force && ::access(file.c_str(), F_OK) == 0) return refuse("'" + file + "' exists: --force replaces it");
  if (std::filesystem::is_directory(file, none)) return refuse(flag + ": '" + file + "' is a folder, a file is accepted");
  const auto folder = std::filesystem::path(file).parent_path();
  if (!folder.empty() && !std::filesystem::is_directory(folder, none))
    return refuse(flag + ": there is no folder '" + folder.string() + "'");
  return {};
}

// That of the input, or the one asked for of an input that takes any.
Result<Problem> shape_of(const ApplyOptions& o, const Input& input) {
  const auto own = input.shape();
  if (own && o.n > 0) return refuse("--n is given, input " + input.name() + " has a shape of its own; accepted: one of them");
  if (own) return *own;
  if (o.n == 0)
    return refuse("input " + input.name() + " has no shape of its own; accepted: npy:, npz: and safetensors:, or --n with it");
  return input.adapt(
      {.heads = o.heads, .kv_heads = o.heads, .q_len = o.n, .kv_len = o.n, .head_dim = o.head_dim, .value_dim = o.head_dim});
}

// What a user names, and what there is to know of it.
struct Named {
  std::unique_ptr<Variant> variant;
  std::unique_ptr<Input> input;
  Problem shape;
};

Result<Named> named(const ApplyOptions& o, const Registry& registry) {
  for (const auto& [flag, file] : {std::pair("--out", o.out), std::pair("--map", o.map.file)}) {
    if (file.empty()) continue;
    if (Status status = writable(flag, file, o.force); !status) return status.refusal();
  }
  const auto name = input_name(o);
  if (!name) return name.refusal();
  auto variant = registry.configure(o.variant);
  if (!variant) return refuse("--variant: " + variant.reason());
  tell_of_renamed(registry, {o.variant}, "attn_apply");
  auto input = parse_input(*name);
  if (!input) return input.refusal();
  auto shape = shape_of(o, **input);
  if (!shape) return shape.refusal();
  const auto dtype = parse_dtype(o.dtype), kv_dtype = parse_dtype(o.kv_dtype.empty() ? o.dtype : o.kv_dtype);
  if (!dtype) return refuse("--dtype: " + dtype.reason());
  if (!kv_dtype) return refuse("--kv-dtype: " + kv_dtype.reason());
  shape->dtype = *dtype;
  shape->kv_dtype = *kv_dtype;
  if (!o.causal.empty()) {
    const auto causal = parse_one_causal(o.causal);
    if (!causal) return refuse("--causal: " + causal.reason());
    if (shape->causal && !*causal)
      return refuse("--causal " + o.causal + " is given, input " + *name +
                    " says that it is causal; accepted: no --causal, or yes");
    shape->causal = *causal;
  }
  return Named{*std::move(variant), *std::move(input), *shape};
}

// Everything that a user may get wrong is refused here, before the output is touched.
Result<std::unique_ptr<CellRun>> prepare(const ApplyOptions& o, const Registry& registry, bool& parameters_loaded) {
  auto given = named(o, registry);
  if (!given) return given.refusal();
  if (!o.map.file.empty()) {
    if (Status possible = check_map(o.map, given->shape); !possible) return possible.refusal();
  }
  const Cell cell{.variant = given->variant->name().text(),
                  .problem = given->shape,
                  .input = given->input->name(),
                  .seed = static_cast<std::uint64_t>(o.seed),
                  .threads = o.threads,
                  .isa = o.isa};
  auto run = CellRun::open(registry, cell, o.pin);
  if (!run) return run.refusal();
  if (Status fits = fits_memory(**run); !fits) return fits.refusal();
  const Parameters specs = (*run)->specs();
  const auto draw = [&] { return make_parameters(specs, (*run)->seed(), (*run)->fitted()); };
  auto parameters = load_or_draw(specs, o.parameters, draw);
  if (!parameters) return refuse("--parameters: " + parameters.reason());
  parameters_loaded = parameters->loaded;
  (*run)->equip(std::move(parameters->set));
  return run;
}

std::string figures_text(const Measurement& m) {
  Row row;
  row.measurement = m;
  std::string text;
  for (const auto& column : row_schema().columns()) {
    const std::string& name = column.info.name;
    const bool told = column.info.role == Role::accuracy || name.starts_with("in_");
    if (const std::string value = column.get(row); told && !value.empty()) text += fmt::format("{:<20} {}\n", name, value);
  }
  return text;
}

int failed(int code, const std::string& reason) { return fail(code, "attn_apply", reason); }

int usage(const std::string& reason) { return failed(exit_usage, reason); }

// Says on stderr that outputs are not finite; inputs are, others are refused.
void warn_unless_finite(const View<float, 4>& out, bool unchecked) {
  const std::span values(out.data_handle(), static_cast<std::size_t>(out.size()));
  const auto count = std::ranges::count_if(values, [](float x) { return !std::isfinite(x); });
  if (count == 0) return;
  tell(stderr, fmt::format("attn_apply: {} of {} outputs are not finite{}\n", count, values.size(),
                           unchecked ? "; --compare rows tells whether the definition's are" : ""));
}

// "o.npy: [1,8,512,64] f32 by performer:m=256, ... on 2 threads; MORE".
int tell_what_was_done(const ApplyOptions& o, const View<float, 4>& out, const std::string& variant, const std::string& more) {
  if (o.quiet) return exit_ok;
  return print_and_exit(fmt::format("{}: [{},{},{},{}] f32 by {} on {} thread{}{}\n", o.out, out.extent(0), out.extent(1),
                                    out.extent(2), out.extent(3), variant, o.threads, o.threads == 1 ? "" : "s", more));
}

std::string parameters_text(const ApplyOptions& o, bool loaded, bool any) {
  if (!any) return "";
  if (loaded) return "; parameters of " + o.parameters;
  return fmt::format("; parameters drawn or fitted, seed {}", o.seed) + (o.parameters.empty() ? "" : ", now in " + o.parameters);
}

// With --state.
int go_on(const ApplyOptions& o, const Registry& registry) {
  if (o.compare != "none")
    return usage(
        "--compare holds a whole sequence against its definition, --state has the last of its tokens; accepted: one of them");
  if (!o.map.file.empty()) return usage("--map shows a whole sequence, --state has the last of its tokens; accepted: one of them");
  if (!o.isa.empty()) {
    if (Status forced = kernels::force_isa(o.isa); !forced) return usage(forced.reason());
  }
  auto given = named(o, registry);
  if (!given) return usage(given.reason());
  if (!o.causal.empty() && !given->shape.causal)
    return usage("--state goes on with a causal sequence, --causal " + o.causal + " is given; accepted: one of them");
  if (given->shape.dtype != DType::f32 || given->shape.kv_dtype != DType::f32)
    return usage("--state keeps a sequence in f32; accepted: no other --dtype and --kv-dtype with it");
  const std::string variant = given->variant->short_name();
  const auto next = Continuation::open(std::move(given->variant), std::move(given->input), given->shape,
                                       {.state = o.state,
                                        .context = o.context,
                                        .parameters = o.parameters,
                                        .seed = static_cast<std::uint64_t>(o.seed),
                                        .threads = o.threads,
                                        .pin = o.pin});
  if (!next) return usage(next.reason());
  const View<float, 4> out = (*next)->run();
  const std::span<const float> values(out.data_handle(), static_cast<std::size_t>(out.size()));
  if (Status written = write_npy(o.out, out.extents(), values); !written)
    return failed(exit_not_written, "--out: " + written.reason());
  warn_unless_finite(out, false);
  if (Status written = (*next)->save(); !written) return failed(exit_not_written, "--state: " + written.reason());
  const index_t tokens = (*next)->tokens();
  return tell_what_was_done(o, out, variant, fmt::format("; {} holds {} token{}", o.state, tokens, tokens == 1 ? "" : "s"));
}

int apply(const ApplyOptions& o) {
  Registry registry;
  register_builtin_variants(registry);
  if (Status status = load_plugins(o.plugins, registry, prefer_from(o.prefer)); !status) return usage(status.reason());
  std::vector<std::string> guest_specs;
  for (const std::string& command : o.guests) {
    constexpr double patience_s = 60;
    const auto spec = greet_guest(command, patience_s);
    if (!spec) return usage(spec.reason());
    guest_specs.push_back(spec->text);
  }
  if (Status status = register_guests(guest_specs, registry); !status) return usage(status.reason());
  place_guests(o.threads, o.pin);
  if (const std::string crowded = read_limits().crowded(o.threads); !crowded.empty()) tell(stderr, "attn_apply: " + crowded + "\n");
  if (!o.state.empty()) return go_on(o, registry);
  if (o.context > 0) return usage("--context is of a state: give --state too");
  if (o.map.file.empty() && !o.map.tokens.empty()) return usage("--tokens is of a map: give --map too");
  bool parameters_loaded = false;
  const auto run = prepare(o, registry, parameters_loaded);
  if (!run) return usage(run.reason());
  if (const std::string& note = (*run)->note(); !note.empty()) tell(stderr, fmt::format("attn_apply: {}\n", note));
  (*run)->run();
  std::optional<AttentionMap> map;
  if (!o.map.file.empty()) {
    auto found = AttentionMap::of(**run, o.map);
    if (!found) return usage(found.reason());
    map.emplace(*std::move(found));
  }
  if (!o.out.empty()) {
    if (Status written = save_output(**run, o.out); !written) return failed(exit_not_written, "--out: " + written.reason());
  }
  if (map) {
    if (Status written = map->write(); !written) return failed(exit_not_written, written.reason());
  }
  warn_unless_finite((*run)->output(), o.compare == "none");
  const std::string of_parameters = parameters_text(o, parameters_loaded, !(*run)->specs().empty());
  int said = exit_ok;
  if (!o.out.empty()) said = tell_what_was_done(o, (*run)->output(), (*run)->variant().short_name(), of_parameters);
  if (map && !o.quiet && said == exit_ok) said = print_and_exit(map->text(of_parameters));
  if (o.compare == "none" || said != exit_ok) return said;

  Settings settings;
  settings.fidelity = comparison_from(o.compare);
  settings.fidelity_seeds = parameters_loaded ? 1 : o.fidelity_seeds;
  Measurement m;
  check_cell(**run, settings, m);
  const int told = print_and_exit(figures_text(m));
  return m.outcome == Outcome::ok ? told : failed(exit_failed_cell, m.reason);
}

}  // namespace

int apply_main(int argc, char** argv) {
  open_standard_streams();
  ApplyOptions o;
  CLI::App app("Applies one attention variant to your Q, K and V.", "attn_apply");
  app.footer(examples);
  declare(app, o);
  const FlagsEnd end = read_flags(app, {argv + 1, argv + argc}, {"plugin", "guest"});
  if (end.exit && end.exit_code != exit_ok) {
    tell(stderr, end.text);
    return end.exit_code;
  }
  if (end.exit) return print_and_exit(end.text);
  if (o.version) return print_and_exit(program_version());
  if (o.out.empty() && o.map.file.empty()) o.out = "o.npy";
  try {
    return apply(o);
  } catch (const RemoteError& e) {
    return failed(e.refused() ? exit_usage : exit_failed_cell, e.what());
  } catch (const std::bad_alloc&) {
    return usage("there is not enough memory for this problem");
  }
}

}  // namespace attn
