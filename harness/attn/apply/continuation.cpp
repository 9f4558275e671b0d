#include "attn/apply/continuation.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "attn/apply/parameters.hpp"
#include "attn/core/rng.hpp"
#include "attn/exec/limits.hpp"
#include "attn/inputs/file.hpp"
#include "attn/inputs/npz.hpp"

namespace attn {

using json = nlohmann::ordered_json;

namespace {

constexpr const char* described_in = "state.json";

// What a number of parameters comes down to: a state made by others is none of these.
std::string fingerprint(const ParameterSet<float>& parameters) {
  std::string all;
  for (const auto& [name, tensor] : parameters.all()) {
    const auto bytes = std::as_bytes(tensor.values());
    all += fmt::format("{}:{:016x};", name, hash_name({reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
  }
  return fmt::format("{:016x}", hash_name(all));
}

// The file and what it says of itself.
struct StateFile {
  MappedFile file;
  json told;
};

Result<StateFile> open_state(const std::string& path) {
  auto file = MappedFile::open(path);
  if (!file) return file.refusal();
  const auto text = text_in_npz(file->bytes(), described_in);
  if (!text) return refuse("'" + path + "': " + text.reason());
  json told = json::parse(*text, nullptr, false);
  const auto whole = [&](const char* key, index_t least) {
    return told.contains(key) && told[key].is_number_integer() && told[key].get<index_t>() >= least;
  };
  if (!told.is_object() || !whole("length", 0) || !whole("context", 1))
    return refuse("'" + path + "': " + described_in + " describes no state of attn_apply");
  return StateFile{*std::move(file), std::move(told)};
}

Status fits_memory(const Variant& variant, index_t parameters, index_t workspace, index_t state) {
  const Limits limits = read_limits();
  if (!limits.memory_bytes || parameters + workspace + state <= *limits.memory_bytes) return {};
  return refuse(fmt::format(
      "--variant: {} takes {} bytes of parameters, {} of workspace and {} of state, {} bytes of memory are available, by {}",
      variant.name().text(), parameters, workspace, state, *limits.memory_bytes, limits.memory_by));
}

}  // namespace

Result<std::unique_ptr<Continuation>> Continuation::open(std::unique_ptr<Variant> variant, std::unique_ptr<Input> input,
                                                         const Problem& shape, const ContinuationOptions& options) {
  if (!shape.self_attention())
    return refuse(
        fmt::format("--state: {} queries and {} keys are given, as many of each are accepted: the sequence goes on with them",
                    shape.q_len, shape.kv_len));
  std::unique_ptr<Continuation> next(new Continuation(std::move(variant), std::move(input), options));
  std::optional<StateFile> before;
  if (::access(options.state.c_str(), F_OK) == 0) {
    auto opened = open_state(options.state);
    if (!opened) return refuse("--state: " + opened.reason());
    before.emplace(*std::move(opened));
  }
  const index_t length = before ? before->told["length"].get<index_t>() : 0;
  const index_t context = before ? before->told["context"].get<index_t>() : 0;
  if (Status placed = next->place(shape, length, context); !placed) return placed.refusal();
  if (Status made = next->make_tensors(shape); !made) return made.refusal();
  if (Status equipped = next->equip(); !equipped) return equipped.refusal();
  if (!before) return next;
  const json ours = json::parse(next->description(length));
  for (const auto& [key, value] : ours.items()) {
    const json theirs = before->told.value(key, json());
    if (theirs != value && key != "length" && key != "context")
      return refuse(
          fmt::format("--state: '{}' is a state of {} {}, this call has {}", options.state, key, theirs.dump(), value.dump()));
  }
  if (Status loaded = next->load(before->file.bytes(), length); !loaded)
    return refuse("--state: '" + options.state + "': " + loaded.reason());
  return next;
}

// After `length` tokens, in a file of a state that was made for such a context; 0: there is none.
Status Continuation::place(const Problem& shape, index_t length, index_t made_for) {
  p_ = shape;
  p_.pass = Pass::decode;
  p_.causal = true;
  p_.kv_len = length + p_.q_len;
  if (variant_->state(p_).of_tokens) return {};
  if (made_for > 0 && options_.context > 0 && made_for != options_.context)
    return refuse(fmt::format("--context: '{}' is for a context of {} tokens, not {}", options_.state, made_for, options_.context));
  const index_t context = std::max(made_for, options_.context);
  if (context > 0 && p_.kv_len > context)
    return refuse(fmt::format(
        "--state: {} tokens and {} more do not fit a context of {}; accepted: --context {} or more from the first call on", length,
        p_.q_len, context, p_.kv_len));
  p_.kv_len = std::max(p_.kv_len, context);
  return {};
}

Status Continuation::make_tensors(const Problem& shape) {
  if (Status takes = variant_->supports(p_); !takes) return takes;
  auto tensors = input_->make(shape, options_.seed);
  if (!tensors) return tensors.refusal();
  tensors_ = *std::move(tensors);
  auto named = input_->make_named(shape, variant_->inputs(shape), options_.seed);
  if (!named) return named.refusal();
  named_ = *std::move(named);
  return {};
}

Status Continuation::equip() {
  const Problem step = planned_step(*variant_, p_);
  const Parameters specs = variant_->parameters(whole_sequence(p_));
  for (const ParameterSpec& spec : specs) {
    if (spec.fit != nullptr) return refuse("--state: " + spec.name + " is fitted to one Q, K and V, and here they come bit by bit");
  }
  planned_.emplace(*variant_, step, options_.threads);
  const index_t state_bytes = p_.batch * variant_->state_bytes(step);
  if (Status fits = fits_memory(*variant_, parameter_bytes(specs), planned_->workspace_bytes(), state_bytes); !fits) return fits;
  auto parameters = load_or_draw(specs, options_.parameters, [&] { return make_parameters(specs, options_.seed); });
  if (!parameters) return refuse("--parameters: " + parameters.reason());
  planned_->equip(std::move(parameters->set));
  state_.emplace(variant_->state(step), p_.batch);
  output_ = output_buffer(p_);
  return {};
}

std::string Continuation::description(index_t length) const {
  return json({{"build", build_tag()},
               {"variant", variant_->name().text()},
               {"dtype", to_string(p_.dtype)},
               {"kv_dtype", to_string(p_.kv_dtype)},
               {"batch", p_.batch},
               {"heads", p_.heads},
               {"kv_heads", p_.kv_heads},
               {"head_dim", p_.head_dim},
               {"value_dim", p_.value_dim},
               {"parameters", fingerprint(planned_->parameters())},
               {"length", length},
               {"context", p_.kv_len}})
             .dump(2) +
         "\n";
}

// Of tokens there may be rows for others than here.
Status Continuation::load(std::span<const std::byte> file, index_t length) {
  StateSpec spec = state_->spec();
  std::vector<StoredArray> arrays;
  for (StateTensor& tensor : spec.tensors) {
    auto array = parse_npz(file, tensor.name);
    if (!array) return array.refusal();
    std::vector<index_t> wanted{p_.batch};
    wanted.insert(wanted.end(), tensor.extents.begin(), tensor.extents.end());
    const index_t rows = spec.of_tokens && array->shape.size() == wanted.size() ? array->shape[2] : 0;
    const index_t needed = spec.of_tokens ? std::min(length, std::max<index_t>(0, wanted[2] - p_.q_len)) : 0;
    if (rows > 0 && rows >= needed) wanted[2] = tensor.extents[1] = rows;
    if (array->shape != wanted)
      return refuse("member " + tensor.name + " has shape " + shape_text(array->shape) + ", " + shape_text(wanted) +
                    " is accepted");
    arrays.push_back(*std::move(array));
  }
  State held(spec, p_.batch);
  for (std::size_t i = 0; i < arrays.size(); ++i) read_floats(arrays[i], 0, held.elements(spec.tensors[i].name));
  held.advance(length);
  if (spec.of_tokens) {
    state_->adopt(held);
  } else {
    state_.emplace(std::move(held));
  }
  return {};
}

View<float, 4> Continuation::run() {
  Arrays tokens = tensors_.arrays();
  tokens.more = named_.arrays;
  tokens.out = output_view(p_, output_);
  const Arena arena(options_.threads, options_.pin ? Pinning::cores : Pinning::none);
  arena.execute([&] { take_step(*planned_, tokens, planned_->parameters(), *state_); });
  return tokens.out.f32_out();
}

Status Continuation::save() const {
  std::vector<NpzArray> arrays;
  for (const StateTensor& tensor : state_->spec().tensors) {
    const auto extents = (*state_)[tensor.name].extents();
    arrays.push_back({tensor.name, {extents.begin(), extents.end()}, state_->elements(tensor.name)});
  }
  return write_npz(options_.state, arrays, described_in, description(state_->length()));
}

}  // namespace attn
