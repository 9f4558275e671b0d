// From plain structs to variants that the harness can list, configure, plan and run by name.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "attn/algebra/algebra.hpp"
#include "attn/core/array.hpp"
#include "attn/core/input_spec.hpp"
#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"
#include "attn/core/view.hpp"
#include "attn/exec/state.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/kernels/machine/compute.hpp"
#include "attn/variant/name.hpp"
#include "attn/variant/options.hpp"
#include "attn/variant/parameters.hpp"

namespace attn {

template <class T>
struct Values;
class Remote;

// What a backward pass is given beside the arrays of the forward pass. Every element of the gradients is written, zeros for an input
// that the variant does not read.
struct Gradients : InputGradients {
  const ParameterGradients& d_parameters;  // of the trainable ones
};

// The same for a page that reads and writes elements as floats.
struct FloatGradients {
  View<const float, 4> d_out;
  View<float, 4> d_q, d_k, d_v;
  const ParameterGradients& d_parameters;

  explicit FloatGradients(const Gradients& g)
      : d_out(g.d_out.f32()), d_q(g.d_q.f32_out()), d_k(g.d_k.f32_out()), d_v(g.d_v.f32_out()), d_parameters(g.d_parameters) {}
};

// Useful work of a problem, independent of how it is done; the harness adds the roof.
struct Cost {
  double flops = 0;  // a multiply-add is two
  double bytes = 0;  // each input read once, the output written once
  double exps = 0;   // exp, tanh, sin and the like

  friend Cost operator+(const Cost& a, const Cost& b) { return {a.flops + b.flops, a.bytes + b.bytes, a.exps + b.exps}; }
};

// Q (or x), K, V read or the output written once, in bytes as they are stored; and all of them.
double q_bytes(const Problem& p);
double k_bytes(const Problem& p);
double v_bytes(const Problem& p);
double out_bytes(const Problem& p);
double tensor_bytes(const Problem& p);

// What a variant that takes masks reads of a problem that has one (Problem::mask). Numbers are at most this far from 0, or -inf, which hides
// the key from the query.
inline constexpr double largest_mask = 1e9;
InputSpec mask_input(const Problem& p);

// A backward pass as that of fused softmax attention: five products (the weights again, their gradient, those of Q, K and V)
// against the forward's two, its exps again, and a gradient moved for every element that the forward moves.
Cost softmax_backward_cost(const Cost& forward);

enum class Exactness {
  exact,          // equals softmax attention
  pattern,        // softmax attention over chosen keys
  approximation,  // aims at softmax attention
  fitted,         // likewise, once its learned tensors have been fitted: at their start the distance says nothing
  different,      // another operator: distance to softmax attention says nothing
};
enum class Causality { both, never, always };
enum class Reads { qkv, xv, x };

// A state of the first `pinned` tokens and of the last `rows`, or of all where there are fewer: of what the variant reads of them, K and
// V, V, or x. Queries of a step may each ask for so many (Pass::decode).
StateSpec kept_tokens(const Problem& p, Reads reads, index_t rows, index_t pinned = 0);

struct VariantInfo {
  std::string title;
  std::string formula;
  std::string paper;            // author year, identifier, section; "baseline" where there is none
  std::string cost_in_n;        // such as "N^2 D"
  std::string fine_print = {};  // sentences on what the formula leaves out: guards, epsilons, departures from the paper
  Exactness exactness = Exactness::exact;
  Causality causality = Causality::both;
  Reads reads = Reads::qkv;
  bool cross = true;                    // q_len != kv_len is defined
  bool grouped_heads = false;           // kv_heads < heads is defined
  bool heads_independent = true;        // false: parameters or the operator mix heads
  bool row_wise = true;                 // output row i depends on no other row of Q: sampled rows can be checked alone
  bool randomised = false;              // parameters hold random features or tables
  bool membership_sees_future = false;  // who attends to whom is chosen from all tokens, even when causal
  bool in_default_sweep = false;        // one of the few that a sweep without --variants measures
  double time_exponent = 2;             // declared growth of time in N at fixed options
  bool last_rows = false;               // though q_len != kv_len is not defined, run makes the last rows of a sequence alone
  std::string acausal = {};             // of Causality::never, why: "its projections sum over all positions"
};

std::string_view to_string(Exactness e);
std::string_view to_string(Causality c);
std::string_view to_string(Reads r);

// A variant planned for one problem.
class Plan {
 public:
  virtual ~Plan() = default;
  // Inside an arena of the planned number of threads. Writes every element of the output.
  virtual void run(const Arrays& arrays, const ParameterSet<float>& parameters, Workspace& workspace) const = 0;
  // After `run` with the same arrays, parameters and workspace, when the plan was made for training and the variant's
  // supports_backward() is fine.
  virtual void backward(const Arrays& arrays, const ParameterSet<float>& parameters, const Gradients& gradients,
                        Workspace& workspace) const = 0;

  // Of a plan for decoding (Pass::decode). The state is one of the variant's, for the problem's batch.
  // Takes up tokens, [B,Hk,any,D], that follow those of the state.
  virtual void absorb(const Arrays& tokens, const ParameterSet<float>& parameters, State& state, Workspace& workspace) const;
  // Outputs for the problem's q_len queries, which stand at the last positions of the state: all of them where it is one of tokens; else
  // each as if at the last one. It has at most kv_len tokens; exactly as many where it is one of tokens and the variant reads no layouts.
  virtual void answer(const Arrays& queries, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const;
  // Both of one token, whose bits are those of absorb() followed by answer().
  virtual void step(const Arrays& token, const ParameterSet<float>& parameters, State& state, Workspace& workspace) const;
  // Where the variant merges(): `into` is a state of the tokens that precede those of `later`, and of all of them afterwards.
  virtual void merge(State& into, const State& later) const;

  // Of a guest's plan (remote.hpp), else null.
  virtual Remote* remote() const { return nullptr; }
};

// A variant with its implementation chosen and its options set.
class Variant {
 public:
  // `short_name`: of people, see Registry::short_text.
  Variant(VariantName name, std::string short_name) : name_(std::move(name)), short_name_(std::move(short_name)) {}
  virtual ~Variant() = default;
  const VariantName& name() const { return name_; }  // with every option
  const std::string& short_name() const { return short_name_; }
  virtual const VariantInfo& info() const = 0;

  // What info() declares, and what the variant's and the implementation's own supports() add.
  Status supports(const Problem& p) const;
  // Number types of q, k and v that its plans take, as they are or as copies that a run makes first (variant/door.hpp). What else a variant
  // reads is f32.
  virtual std::span<const DType> dtypes() const = 0;
  // What its products are made with, of a plan that is made now.
  virtual kernels::Compute compute(const Problem&) const { return kernels::Compute::f32; }
  // Whether it reads Arrays::lengths and Arrays::layout; what does not must not be given any.
  virtual bool reads_layouts() const = 0;
  // Whether it computes problems that have a mask.
  virtual bool takes_mask() const { return false; }
  virtual Parameters parameters(const Problem& p) const = 0;
  // What it reads beside q, k and v: Arrays::more has these by name.
  virtual std::vector<InputSpec> inputs(const Problem& p) const = 0;
  // Of the problem's pass. A step that tokens are folded in costs what they would as a sequence of their own, and its state is read and
  // written.
  Cost cost(const Problem& p) const;
  // Whether plans have a backward pass of their own. Without one, gradients come from the definition, on the algebra's tape.
  virtual Status supports_backward(const Problem& p) const = 0;
  // What must be kept of one sequence to answer later queries about it: what the page says, else all that it reads of the tokens.
  virtual StateSpec state(const Problem& p) const = 0;
  index_t state_bytes(const Problem& p) const { return state(p).bytes(); }
  // Whether plans absorb and answer by themselves. Otherwise a state of all tokens is run over.
  virtual bool steps() const = 0;
  virtual bool merges() const = 0;
  // Whether plans compute in a process of their own: what there is to say of memory and threads of this one then says nothing of it.
  virtual bool is_guest() const { return false; }
  // Whether there is a definition to hold it against. A guest's own variant may lack one.
  virtual bool has_definition() const { return true; }
  virtual std::unique_ptr<Plan> plan(const Problem& p, WorkspacePlan& workspace) const = 0;
  // What is a variable among the inputs and parameters has a gradient (attn/algebra/gradient.hpp): the definition is the tape.
  // Choices by number (hashes, the largest k, clusters) are constants to it.
  virtual Tensor<double> definition(const Problem&, const Values<double>&, const ParameterSet<double>&) const = 0;
  virtual Tensor<float> definition(const Problem&, const Values<float>&, const ParameterSet<float>&) const = 0;
  // What there is to know of it on these inputs, such as how far an iteration came; mostly nothing.
  virtual std::string note(const Problem& p, const Arrays& arrays) const = 0;

 protected:
  virtual Status supports_options(const Problem& p) const = 0;
  // What the page says of the forward pass, or of queries about a state of tokens; and of the backward pass alone, else
  // softmax_backward_cost.
  virtual Cost page_cost(const Problem& p) const = 0;
  virtual Cost backward_cost(const Problem& p) const = 0;

 private:
  Status supports_decode(const Problem& p) const;
  Status supports_mask(const Problem& p) const;
  Cost step_cost(const Problem& p) const;

  VariantName name_;
  std::string short_name_;
};

struct ImplementationInfo {
  std::string title;              // how it computes the variant
  bool in_default_sweep = false;  // beside the native one of the variant
  std::string formerly = {};      // an id that it was known by
};

// Another way to compute a registered variant than its page's: the same definition, so the gate, costs and parameters are the page's.
class Implementation {
 public:
  virtual ~Implementation() = default;
  std::string id, name;  // of the variant, and its own
  ImplementationInfo info;

  // Of what the variant's own supports() takes. `options` are canonical, here and below.
  virtual Status supports(const Problem& p, const OptionValues& options) const = 0;
  virtual Status supports_backward(const Problem& p, const OptionValues& options) const = 0;
  virtual std::unique_ptr<Plan> plan(const Problem& p, const OptionValues& options, WorkspacePlan& workspace) const = 0;
  virtual std::span<const DType> dtypes() const = 0;
  virtual kernels::Compute compute(const Problem&) const { return kernels::Compute::f32; }
  virtual bool reads_layouts() const = 0;
  virtual bool takes_mask() const { return false; }
  virtual bool steps() const = 0;
  virtual bool merges() const = 0;
  virtual bool is_guest() const { return false; }  // see Variant
  virtual std::string note(const Problem& p, const OptionValues& options, const Arrays& arrays) const = 0;
};
using ImplementationPtr = std::shared_ptr<const Implementation>;  // variants outlive registries

// A registered variant, not yet configured.
class VariantType {
 public:
  virtual ~VariantType() = default;
  std::string id, family;
  VariantInfo info;
  std::vector<OptionDoc> options;
  // By the page's own implementation where `implementation` is null.
  virtual Result<std::unique_ptr<Variant>> configure(const OptionValues& options, ImplementationPtr implementation) const = 0;
};

using VariantList = std::vector<std::unique_ptr<Variant>>;

class Registry {
 public:
  // A second variant of the same id, or a second implementation of the same name, is a bug in the tree (in a plugin it is refused
  // before it gets here). An implementation may come before its variant.
  void add(std::unique_ptr<VariantType> type);
  void add(ImplementationPtr implementation);
  // Takes a variant out with all its implementations, or an implementation alone: for a plugin that is preferred to the tree.
  void remove(std::string_view id, std::string_view implementation = native);
  const VariantType* find(std::string_view id) const;
  ImplementationPtr find(std::string_view id, std::string_view implementation) const;  // null: native, or none
  const std::vector<std::unique_ptr<VariantType>>& all() const { return types_; }      // sorted by family, then id
  const std::vector<ImplementationPtr>& all_implementations() const {
    return implementations_;
  }  // but native; sorted by id, then name
  std::vector<ImplementationPtr> implementations(std::string_view id) const;

  // "local:left=64,right=64", "full@unfused". Unknown names are refused with the nearest one.
  Result<std::unique_ptr<Variant>> configure(std::string_view name) const;
  Result<std::unique_ptr<Variant>> configure(const VariantName& name) const;

  // "full,local:left=64,right=64,full@unfused"; or "all", a family's name, an id with * and ?, whose implementations are the native
  // ones unless '@' and a name, with * and ? too, stand behind; or "default", the few of a sweep that was not told which.
  Result<VariantList> configure_list(std::string_view names) const;

  // For people: without the options that have their default. A variant that is not known has all of them.
  std::string short_text(const VariantName& name) const;
  std::string short_text(std::string_view canonical) const;

  // A sentence for who asks for a variant by an id that it no longer has; mostly none.
  std::string renamed(std::string_view names) const;

 private:
  VariantName as_of_today(VariantName name) const;  // without ids of before
  std::vector<VariantName> matches(const VariantName& asked) const;

  std::vector<std::unique_ptr<VariantType>> types_;
  std::vector<ImplementationPtr> implementations_;
};

// Every variant of the tree; the body is generated from the file names.
void register_builtin_variants(Registry& registry);

}  // namespace attn

#include "attn/variant/erase.hpp"
