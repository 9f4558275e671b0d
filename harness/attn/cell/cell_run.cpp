#include "attn/cell/cell_run.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "attn/core/rng.hpp"
#include "attn/exec/limits.hpp"
#include "attn/exec/topology.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "attn/variant/decode.hpp"
#include "attn/variant/remote.hpp"

namespace attn {

namespace {

// The variant, in a layer if the cell is about one.
Result<std::unique_ptr<Variant>> configured(const Registry& registry, const std::string& name, const Cell& cell,
                                            const std::shared_ptr<LayerClock>& layer_clock) {
  auto variant = registry.configure(name);
  if (!variant) return variant.refusal();
  if (Status status = (*variant)->supports(cell.problem); !status) return status.refusal();
  if (layer_clock) {
    if ((*variant)->is_guest()) return refuse("a guest is timed by itself, not in a layer: it takes --scope mixer");
    if (cell.problem.pass == Pass::decode) return refuse("a layer is timed whole, not in steps: --pass decode takes --scope mixer");
    variant = layer_around(*std::move(variant), layer_clock);
    if (Status status = (*variant)->supports(cell.problem); !status) return status.refusal();
  }
  if (cell.problem.pass == Pass::forward_backward) {
    if (Status status = (*variant)->supports_backward(cell.problem); !status)
      return refuse((*variant)->name().label() + " " + status.reason());
  }
  return variant;
}

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

// Room for as many floats as the array has elements, and a dense array of its shape there.
Buffer floats(const Array& array) { return Buffer(static_cast<std::size_t>(bytes_of(DType::f32, array.size()))); }
Array like(const Array& array, const Buffer& memory) { return {DType::f32, memory.data(), array.extents()}; }

// Whether the queries of all tokens are looked at, where a decode answers only those of its step.
bool looks_at_all_queries(const Variant& variant, const Problem& p) {
  const Parameters specs = variant.parameters(whole_sequence(p));
  return variant.info().reads == Reads::x || !variant.info().row_wise ||
         std::ranges::any_of(specs, [](const ParameterSpec& spec) { return spec.fit != nullptr; });
}

}  // namespace

Result<std::unique_ptr<CellRun>> CellRun::open(const Registry& registry, const Cell& cell, bool pin) {
  if (!cell.isa.empty()) {
    if (Status forced = kernels::force_isa(cell.isa); !forced) return forced.refusal();
  }
  std::unique_ptr<CellRun> run(new CellRun(cell));
  auto variant = configured(registry, cell.variant, cell, run->layer_clock_);
  if (!variant) return variant.refusal();
  auto input = parse_input(cell.input);
  if (!input) return input.refusal();
  run->input_ = *std::move(input);
  run->note_ = run->input_->note(cell.problem);
  run->arena_ = std::make_shared<const Arena>(cell.threads, pin ? Pinning::cores : Pinning::none);
  run->arena_->execute([&] { parallel_tasks(cell.threads, [](index_t, int) {}); });  // threads and their stacks exist from here on
  if (Status made = run->make_tensors(**variant); !made) return made.refusal();
  if (Status planned = run->plan(*std::move(variant)); !planned) return planned.refusal();
  return run;
}

Result<std::unique_ptr<CellRun>> CellRun::beside(const Registry& registry, const std::string& variant) const {
  std::unique_ptr<CellRun> run(new CellRun(cell_));
  auto other = configured(registry, variant, cell_, run->layer_clock_);
  if (!other) return other.refusal();
  run->cell_.variant = variant;
  run->note_ = note_;
  run->input_ = input_;
  run->tensors_ = tensors_;
  run->arena_ = arena_;
  if (Status made = run->make_tensors(**other); !made) return made.refusal();
  if (Status planned = run->plan(*std::move(other)); !planned) return planned.refusal();
  return run;
}

Status CellRun::make_tensors(const Variant& variant) {
  Problem p = cell_.problem;
  if (decodes() && looks_at_all_queries(variant, p)) p.q_len = p.kv_len;
  if (tensors_ && tensors_->q.extent(2) >= p.q_len) return {};
  Status made;
  arena_->execute([&] {
    auto tensors = input_->make(p, cell_.seed);
    if (tensors) {
      tensors_ = std::make_shared<const Tensors>(*std::move(tensors));
    } else {
      made = tensors.refusal();
    }
  });
  return made;
}

Status CellRun::plan(std::unique_ptr<Variant> variant) {
  variant_ = std::move(variant);
  const Problem tokens = decodes() ? whole_sequence(cell_.problem) : cell_.problem;
  auto named = input_->make_named(tokens, variant_->inputs(tokens), cell_.seed);
  if (!named) return named.refusal();
  named_ = *std::move(named);
  output_memory_ = output_buffer(cell_.problem);
  const View<float, 4> output = output_view(cell_.problem, output_memory_);
  std::fill_n(output.data_handle(), output.size(), nan);
  sequence_ = tensors_->arrays();
  sequence_.more = named_.arrays;
  arrays_ = sequence_;
  const index_t queries = cell_.problem.q_len;
  arrays_.q = arrays_.q.part(2, arrays_.q.extent(2) - queries, queries);
  arrays_.out = output;
  if (decodes()) step_ = step_of(arrays_);
  planned_.emplace(*variant_, decodes() ? planned_step(*variant_, cell_.problem) : cell_.problem, cell_.threads);
  if (cell_.problem.pass == Pass::forward_backward)
    gradients_ = std::make_unique<GivenGradients>(*this, variant_->parameters(cell_.problem));
  return {};
}

CellRun::GivenGradients::GivenGradients(const CellRun& run, const Parameters& specs)
    : d_out(floats(run.arrays_.out)),
      d_q(floats(run.arrays_.q)),
      d_k(floats(run.arrays_.k)),
      d_v(floats(run.arrays_.v)),
      d_parameters(specs),
      arrays{{.d_out = like(run.arrays_.out, d_out),
              .d_q = like(run.arrays_.q, d_q),
              .d_k = like(run.arrays_.k, d_k),
              .d_v = like(run.arrays_.v, d_v)},
             d_parameters} {
  Rng(run.cell_.seed, "gradient of the output").normals({d_out.as<float>(), static_cast<std::size_t>(run.arrays_.out.size())});
  for (const Array& gradient : {arrays.d_q, arrays.d_k, arrays.d_v})
    std::fill_n(gradient.f32_out().data_handle(), gradient.size(), nan);
}

Parameters CellRun::specs() const { return variant_->parameters(decodes() ? whole_sequence(cell_.problem) : cell_.problem); }

ParameterSet<float> CellRun::fitted() const {
  ParameterSet<float> set;
  arena_->execute([&] { set = fit_parameters(specs(), decodes() ? sequence_ : arrays_); });
  return set;
}

index_t CellRun::state_bytes() const {
  if (!decodes()) return 0;
  return cell_.problem.batch * variant_->state_bytes(planned_step(*variant_, cell_.problem));
}

bool CellRun::in_place() const { return decodes() && !variant_->state(planned_step(*variant_, cell_.problem)).of_tokens; }

void CellRun::run() const {
  arena_->execute([&] {
    if (decodes()) return decode(arrays_, parameters(), state_.emplace(fresh_state()));
    pass(arrays_, parameters());
  });
}

void CellRun::run(const Arrays& arrays, const ParameterSet<float>& parameters) const {
  arena_->execute([&] {
    if (!decodes()) return planned_->run(arrays, parameters);
    State state = fresh_state();
    decode(arrays, parameters, state);
  });
}

void CellRun::again() const {
  if (Remote* const guest = remote()) {
    guest->runs(1);
    return;
  }
  arena_->execute([&] {
    Copy* const copy = next_copy();
    const ParameterSet<float>& parameters = copy != nullptr ? copy->parameters : planned_->parameters();
    if (decodes()) {
      State& state = copy != nullptr ? *copy->state : *state_;
      state.rewind(cell_.problem.q_len);
      return take_step(*planned_, step_, parameters, state);
    }
    if (copy == nullptr) return pass(arrays_, parameters);
    Arrays arrays = arrays_;
    arrays.q = copy->tensors.q, arrays.k = copy->tensors.k, arrays.v = copy->tensors.v;
    pass(arrays, parameters);
  });
}

void CellRun::append() const {
  arena_->execute([&] {
    Copy* const copy = next_copy();
    State& state = copy != nullptr ? *copy->state : *state_;
    state.rewind(cell_.problem.q_len);
    take_up(*planned_, step_, copy != nullptr ? copy->parameters : parameters(), state, most_at_once(state, step_));
  });
}

Status CellRun::go_cold() {
  if (remote() != nullptr) return refuse("--cache cold: a guest has its inputs to itself, and takes --cache hot");
  constexpr index_t page = 4096;  // what lies in a page of its own takes the room of one in a cache
  index_t one = static_cast<index_t>(tensors_->memory.bytes());
  if (decodes()) one = std::max({state_->bytes(), page * std::ssize(state_->spec().tensors), page});
  one += parameter_bytes(specs());
  const index_t cache = last_level_cache_bytes(), copies = 4 * cache / one + 2;
  const Limits limits = read_limits();
  if (limits.memory_bytes && copies * one > *limits.memory_bytes)
    return refuse("--cache cold: " + std::to_string(copies) + " copies of " + std::to_string(one) +
                  " bytes, more than four times a last-level cache of " + std::to_string(cache) + ", do not fit the " +
                  std::to_string(*limits.memory_bytes) + " bytes that are available by " + limits.memory_by);
  for (index_t i = 0; i < copies; ++i) {
    Copy& copy = cold_.emplace_back();
    if (decodes()) {
      copy.state = state_->copy();
    } else {
      copy.tensors = Tensors::allocate(cell_.problem);
      std::memcpy(copy.tensors.memory.data(), tensors_->memory.data(), copy.tensors.memory.bytes());
    }
    for (const auto& [name, tensor] : parameters().all())  // another tensor of the same elements would share them
      copy.parameters.set(name, Tensor<float>(tensor.shape(), {tensor.data(), tensor.data() + tensor.size()}));
  }
  return {};
}

void CellRun::pass(const Arrays& arrays, const ParameterSet<float>& parameters) const {
  planned_->run(arrays, parameters);
  if (gradients_) planned_->backward(arrays, gradients_->arrays);
}

CellRun::Copy* CellRun::next_copy() const { return cold_.empty() ? nullptr : &cold_[turn_++ % cold_.size()]; }

State CellRun::fresh_state() const { return {variant_->state(planned_step(*variant_, cell_.problem)), cell_.problem.batch}; }

Arrays CellRun::step_of(const Arrays& arrays) const {
  const index_t count = cell_.problem.q_len, before = cell_.problem.kv_len - count;
  Arrays step = arrays, keys = arrays;
  keys.q = keys.out = Array();
  keys = tokens_of(keys, before, count);
  step.k = keys.k, step.v = keys.v, step.more = keys.more;
  return step;
}

void CellRun::decode(const Arrays& arrays, const ParameterSet<float>& parameters, State& state) const {
  Arrays past = arrays;
  past.q = sequence_.q.extent(2) == cell_.problem.kv_len ? sequence_.q : Array();
  past.out = {};
  take_up(*planned_, tokens_of(past, 0, cell_.problem.kv_len - cell_.problem.q_len), parameters, state);
  take_step(*planned_, step_of(arrays), parameters, state);
}

}  // namespace attn
