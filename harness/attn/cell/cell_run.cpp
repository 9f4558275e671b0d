#include "attn/cell/cell_run.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "attn/cell/lengths.hpp"
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
    if ((*variant)->is_guest())
      return refuse("a guest, or a set of ranks, is timed by itself, not in a layer: it takes --scope mixer");
    if (cell.problem.pass == Pass::decode) return refuse("a layer is timed whole, not in steps: --pass decode takes --scope mixer");
    if (cell.problem.mask.given())
      return refuse("a layer is timed without a mask: --scope mixer takes one, ',mask=none' after the input's name leaves it out");
    variant = layer_around(*std::move(variant), layer_clock);
    if (cell.problem.ragged || cell.problem.page_rows > 0)
      return refuse("a layer is timed with sequences of one length whose keys lie in a row: --scope mixer takes others");
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
  auto lengths = lengths_of(cell.lengths, cell.problem, cell.seed);
  if (!lengths) return lengths.refusal();
  run->take_lengths(*std::move(lengths));
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
  run->lengths_ = lengths_;
  run->arena_ = arena_;
  if (Status made = run->make_tensors(**other); !made) return made.refusal();
  if (Status planned = run->plan(*std::move(other)); !planned) return planned.refusal();
  return run;
}

Problem CellRun::made_for(const Variant& variant) const {
  Problem p = cell_.problem;
  if (decodes() && looks_at_all_queries(variant, p)) p.q_len = p.kv_len;
  return p;
}

Status CellRun::make_tensors(const Variant& variant) {
  const Problem p = made_for(variant);
  if (tensors_ && tensors_->q.extent(2) >= p.q_len) return {};
  Status made;
  arena_->execute([&] {
    auto tensors = input_->make(p, cell_.seed);
    if (tensors) blank_padding(*tensors);
    auto stored = tensors ? store(*std::move(tensors), p) : Result<StoredTensors>(tensors.refusal());
    if (!stored) {
      made = refuse(tensors ? "input " + input_->name() + ": " + stored.reason() : stored.reason());
    } else {
      tensors_ = std::make_shared<const StoredTensors>(*std::move(stored));
    }
  });
  return made;
}

Result<Tensors> CellRun::unrounded() const {
  Problem p = made_for(*variant_);
  p.q_len = tensors_->q.extent(2);  // beside another variant it may have more
  std::optional<Result<Tensors>> made;
  arena_->execute([&] { made.emplace(input_->make(p, cell_.seed)); });
  return *std::move(made);
}

// What is no token of a sequence is no number, so that who reads it cannot be right.
void CellRun::blank_padding(const Tensors& tensors) const {
  for (index_t b = 0; b < std::ssize(lengths_); ++b) {
    const Problem own = cell_.problem.sequence(lengths_[static_cast<std::size_t>(b)]);
    const auto blank = [&](const View<float, 4>& x, index_t rows) {
      for (index_t h = 0; h < x.extent(1); ++h)
        for (index_t i = rows; i < x.extent(2); ++i) std::fill_n(x[b][h].row(i), x.extent(3), nan);
    };
    blank(tensors.k, own.kv_len);
    blank(tensors.v, own.kv_len);
    if (!decodes()) blank(tensors.q, own.q_len);
  }
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
  if (decodes()) {
    step_ = step_of(arrays_);
    if (!lengths_.empty()) step_.k = rows_of_step(arrays_.k, step_k_), step_.v = rows_of_step(arrays_.v, step_v_);
  } else if (cell_.problem.page_rows > 0) {
    paged_.emplace(kept_tokens(cell_.problem, cell_.problem.kv_len), cell_.problem.batch);
    paged_->blank();
    Arrays all = arrays_;
    all.lengths = lengths_;
    paged_->append(all);
  }
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
    pass(given(nullptr), parameters());
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
    pass(given(copy), parameters);
  });
}

Arrays CellRun::given(const Copy* copy) const {
  Arrays arrays = arrays_;
  if (paged_) {
    arrays = (copy != nullptr ? *copy->state : *paged_).asked_by(arrays);
  } else if (copy != nullptr) {
    arrays.q = copy->tensors.q, arrays.k = copy->tensors.k, arrays.v = copy->tensors.v;
  }
  arrays.lengths = lengths_;
  return arrays;
}

Cost CellRun::cost() const {
  if (lengths_.empty()) return variant_->cost(cell_.problem);
  Cost all;
  for (const index_t length : lengths_) all = all + variant_->cost(cell_.problem.sequence(length));
  return all;
}

CellRun::Sequence CellRun::alone(index_t batch) const {
  const index_t length = lengths_.empty() ? cell_.problem.kv_len : lengths_[static_cast<std::size_t>(batch)];
  Problem own = cell_.problem.sequence(length);
  own.page_rows = 0;
  const auto part = [&](const Arrays& all, index_t queries) {
    Arrays some = all;
    for (Array* array : {&some.q, &some.out}) *array = array->empty() ? *array : array->part(0, batch, 1).first(2, queries);
    for (Array* array : {&some.k, &some.v}) *array = array->part(0, batch, 1).first(2, length);
    some.lengths = {};
    return some;
  };
  return {own, part(arrays_, own.q_len), part(sequence_, decodes() ? sequence_.q.extent(2) : own.q_len)};
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
  if (remote() != nullptr) return refuse("--cache cold: a guest, or a rank, has its inputs to itself, and takes --cache hot");
  constexpr index_t page = 4096;  // what lies in a page of its own takes the room of one in a cache
  index_t one = paged_ ? paged_->bytes() : static_cast<index_t>(tensors_->memory.bytes());
  if (decodes()) one = std::max({state_->bytes(), page * std::ssize(state_->spec().tensors), page});
  one += parameter_bytes(specs());
  // A run may look at a part of it only: a step at one row of a table of weights.
  const index_t touched = std::clamp<index_t>(static_cast<index_t>(cost().bytes), page, one);
  const index_t cache = last_level_cache_bytes(), copies = 4 * cache / touched + 2;
  const Limits limits = read_limits();
  if (limits.memory_bytes && copies * one > *limits.memory_bytes)
    return refuse("--cache cold: " + std::to_string(copies) + " copies of " + std::to_string(one) +
                  " bytes, more than four times a last-level cache of " + std::to_string(cache) + ", do not fit the " +
                  std::to_string(*limits.memory_bytes) + " bytes that are available by " + limits.memory_by);
  for (index_t i = 0; i < copies; ++i) {
    Copy& copy = cold_.emplace_back();
    if (decodes() || paged_) {
      copy.state = (decodes() ? *state_ : *paged_).copy();
    } else {
      copy.tensors = tensors_->copy();
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

State CellRun::fresh_state() const {
  State state(variant_->state(planned_step(*variant_, cell_.problem)), cell_.problem.batch);
  if (state.pages() || cell_.problem.ragged) state.blank();  // rows that no token comes to are no numbers
  return state;
}

// Of each sequence the last ones.
Array CellRun::rows_of_step(const Array& tokens, Buffer& memory) const {
  const index_t count = cell_.problem.q_len, heads = tokens.extent(1), width = tokens.extent(3);
  const index_t extents[] = {tokens.extent(0), heads, count, width}, bytes = bytes_of(tokens.dtype(), count * width);
  memory = Buffer(static_cast<std::size_t>(extents[0] * heads * bytes));
  for (index_t b = 0; b < extents[0]; ++b) {
    const index_t first = lengths_[static_cast<std::size_t>(b)] - count;
    for (index_t h = 0; h < heads; ++h) {
      const Array rows = tokens.part(0, b, 1).part(1, h, 1).part(2, first, count);
      std::memcpy(memory.data() + (b * heads + h) * bytes, rows.data(), static_cast<std::size_t>(bytes));
    }
  }
  return {tokens.dtype(), memory.data(), extents};
}

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
  const index_t before = cell_.problem.kv_len - cell_.problem.q_len;
  if (lengths_.empty()) {
    take_up(*planned_, tokens_of(past, 0, before), parameters, state);
    return take_step(*planned_, step_of(arrays), parameters, state);
  }
  std::vector<index_t> lengths(lengths_);  // at once: the tokens of a part are as many for each sequence
  for (index_t& length : lengths) length -= cell_.problem.q_len;
  Arrays all = tokens_of(past, 0, before);
  all.lengths = lengths;
  if (before > 0) take_up(*planned_, all, parameters, state, before);
  take_step(*planned_, step_, parameters, state);
}

}  // namespace attn
