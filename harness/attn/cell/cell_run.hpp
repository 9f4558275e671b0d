// One cell in this process, from its name to its output: the path that the sweep's workers and attn_apply share.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "attn/cell/cell.hpp"
#include "attn/exec/arena.hpp"
#include "attn/inputs/input.hpp"
#include "attn/layer/layer_variant.hpp"
#include "attn/variant/planned.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

class CellRun {
 public:
  // Forces the instruction set, configures the variant, makes Q, K and V, starts the threads, plans, and fills the output
  // with NaN: an element that the fast path forgets cannot pass for a result.
  static Result<std::unique_ptr<CellRun>> open(const Registry& registry, const Cell& cell, bool pin);

  // Another variant on this cell's tensors, seed and threads, with an output of its own.
  Result<std::unique_ptr<CellRun>> beside(const Registry& registry, const std::string& variant) const;

  // The parameters that the variant fits to these tensors, for make_parameters; mostly none.
  ParameterSet<float> fitted() const;

  void equip(ParameterSet<float> parameters) { planned_->equip(std::move(parameters)); }

  // The fast path into output(), by the parameters handed over; with Pass::forward_backward, gradients() too. A decode fills a state with
  // all tokens but the last q_len, then takes these as its step.
  void run() const;
  // The same plan on other tensors of the same shapes, all of one length and contiguous.
  void run(const Arrays& arrays, const ParameterSet<float>& parameters) const;
  // What is clocked once run() is through: the same again, of a decode the step alone, by a guest what it read then.
  void again() const;
  // Of a guest, after run(); else null.
  Remote* remote() const { return planned_->remote(); }
  // Of a decode: the part of its step that takes up tokens.
  void append() const;
  // From here on these two take their inputs, or their state, and the parameters from copies in turn that together are more than four times
  // the last-level cache. After run(). Refused where the copies do not fit memory.
  Status go_cold();

  const Variant& variant() const { return *variant_; }
  const Problem& problem() const { return cell_.problem; }
  std::uint64_t seed() const { return cell_.seed; }
  const std::string& note() const { return note_; }
  // Of the tensors and of output(); q of a decode is that of the step.
  const Arrays& arrays() const { return arrays_; }
  // Of a decode: q, k and v of all tokens. q is that of the step where the variant and its gate look at no other.
  const Arrays& sequence() const { return sequence_; }
  const Input& input() const { return *input_; }
  // Both as they were before they were rounded to the problem's number types: Q, K and V made once more.
  Result<Tensors> unrounded() const;
  const ParameterSet<float>& parameters() const { return planned_->parameters(); }
  Parameters specs() const;  // of these
  View<float, 4> output() const { return arrays_.out.f32_out(); }
  // With Pass::forward_backward: of normally distributed gradients of the output.
  const Gradients& gradients() const { return gradients_->arrays; }
  bool trains() const { return gradients_ != nullptr; }
  bool decodes() const { return cell_.problem.pass == Pass::decode; }
  // What the runs so far took; null unless the scope is the layer.
  const LayerClock* layer_clock() const { return layer_clock_.get(); }
  Cost cost() const;  // of all sequences
  // Keys of each sequence where they are not all kv_len.
  std::span<const index_t> lengths() const { return lengths_; }
  // One sequence of the batch, as a problem of its own.
  struct Sequence {
    Problem problem;
    Arrays arrays;    // as arrays()
    Arrays sequence;  // as sequence()
  };
  Sequence alone(index_t batch) const;
  const Arena& arena() const { return *arena_; }
  index_t workspace_bytes() const { return planned_->workspace_bytes(); }
  index_t state_bytes() const;  // 0: no decode
  bool in_place() const;        // a decode whose step reads and writes its state

 private:
  explicit CellRun(const Cell& cell)
      : cell_(cell), layer_clock_(cell.scope == Scope::layer ? std::make_shared<LayerClock>() : nullptr) {}
  // The problem whose tensors are made for it.
  Problem made_for(const Variant& variant) const;
  // Where there are none yet, or none that the variant can do with.
  Status make_tensors(const Variant& variant);
  Status plan(std::unique_ptr<Variant> variant);
  State fresh_state() const;
  void take_lengths(std::vector<index_t> lengths) { lengths_ = std::move(lengths); }
  void blank_padding(const Tensors& tensors) const;
  Array rows_of_step(const Array& tokens, Buffer& memory) const;
  Arrays step_of(const Arrays& arrays) const;
  void decode(const Arrays& arrays, const ParameterSet<float>& parameters, State& state) const;
  void pass(const Arrays& arrays, const ParameterSet<float>& parameters) const;  // forward, and backward where it trains
  // What again() and append() run on.
  struct Copy {
    StoredTensors tensors;       // but of a decode
    std::optional<State> state;  // of a decode, or of keys in pages
    ParameterSet<float> parameters;
  };
  Copy* next_copy() const;               // null: on what run() ran on
  Arrays given(const Copy* copy) const;  // but of a decode: with lengths, and keys where they are to lie

  Cell cell_;
  std::shared_ptr<LayerClock> layer_clock_;
  std::string note_;
  std::shared_ptr<const Input> input_;
  std::shared_ptr<const StoredTensors> tensors_;
  std::shared_ptr<const Arena> arena_;
  NamedTensors named_;  // what the variant reads beside them
  Buffer output_memory_;
  std::vector<index_t> lengths_;
  Arrays arrays_, sequence_, step_;
  Buffer step_k_, step_v_;      // of a step of sequences of different lengths
  std::optional<State> paged_;  // but of a decode: keys and values
  struct GivenGradients {
    Buffer d_out, d_q, d_k, d_v;
    ParameterGradients d_parameters;
    Gradients arrays;
    GivenGradients(const CellRun& run, const Parameters& specs);
  };

  std::unique_ptr<Variant> variant_;
  std::optional<Planned> planned_;
  mutable std::optional<State> state_;  // after run(), of all tokens
  mutable std::vector<Copy> cold_;      // of go_cold()
  mutable std::size_t turn_ = 0;
  std::unique_ptr<GivenGradients> gradients_;
};

}  // namespace attn
