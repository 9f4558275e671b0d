#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>
#include <vector>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/linear/gated_panel.hpp"
#include "attn/kernels/softmax/engine.hpp"
#include "attn/kernels/softmax/scored.hpp"
#include "attn/variant/chosen_keys.hpp"
#include "attn/variant/recurrent.hpp"

namespace attn {

// fox: forgetting attention, softmax whose logits fade with what was forgotten since the key.
//   out_i = sum_{j<=i} softmax_j(q_i.k_j / sqrt(D) + c_i - c_j) v_j,  c_t = sum_{s<=t} ln f_s,  f_t = sigmoid(w.k_t + b)
//   Lin et al. 2025, arXiv:2503.02130; there the gate reads the layer's input, here k_t for it, or it is an array of the input.
//   prune > 0: keys with c_i - c_j < -prune are not seen. With 2 U + ln N + 10, U the largest logit, a row loses e^-10 of its mass at most,
//   arXiv:2504.06949, zhixuan-lin/forgetting-transformer
//   useful flops 2 pairs (D + Dv), of all pairs j <= i; when pruned of those that drawn gates leave on keys of variance 1: i - j up to about
//   prune half_life / (ln 2 sqrt(e)); workspace N doubles a head
//   exact where all gates are 1; with equal gates ALiBi
class Fox {
  static constexpr float lowest_log_gate = -256;  // of a row that forgets all: what it adds to c leaves later gates their digits

  // c of a head: sums[t] = ln f_0 + .. + ln f_t. read(first, count, to) gives logarithms of so many gates.
  template <class Read>
  static void add_up(index_t tokens, Read read, double* sums) {
    constexpr index_t panel = 256;
    float log_gates[panel];
    double sum = 0;
    for (index_t first = 0; first < tokens; first += panel) {
      const index_t count = std::min(panel, tokens - first);
      read(first, count, log_gates);
      for (index_t t = 0; t < count; ++t) {
        const float log_gate = log_gates[t] < lowest_log_gate ? lowest_log_gate : log_gates[t];  // a NaN stays
        sums[first + t] = sum += static_cast<double>(log_gate);
      }
    }
  }
  static auto given_gates(const View<const float, 1>& given) {
    return [=](index_t first, index_t count, float* to) {
      for (index_t t = 0; t < count; ++t) to[t] = given(first + t);
    };
  }
  static auto learned_gates(kernels::Rows k, index_t head_dim, const ParameterSet<float>& parameters, index_t head) {
    const float* const w = parameters["gate_w"].data() + head * head_dim;
    const float bias = parameters["gate_b"](head);
    return [=](index_t first, index_t count, float* to) {
      kernels::row_dots(count, head_dim, {k.data + first * k.stride, k.stride}, w, to);
      for (index_t t = 0; t < count; ++t) to[t] += bias;
      kernels::softplus(1, count, {to, count}, -1, {to, count});
      for (index_t t = 0; t < count; ++t) to[t] = -to[t];
    };
  }

 public:
  enum class Gate { learned, input };
  struct Options {
    Gate gate = Gate::learned;
    double prune = 0, half_life = 64;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .choice("gate", &Options::gate, {{"learned", Gate::learned}, {"input", Gate::input}},
                "of k by learned weights, or by array log_decay [B,H,M] of the input")
        .number("prune", &Options::prune, 0, 1e6, "keys whose logits have faded by more than this are not seen; 0: all are")
        .number("half_life", &Options::half_life, 1, kernels::longest_half_life,
                "tokens after which half of a weight is left, at the start or where no file has the array");
  }

  static VariantInfo info() {
    return {
        .title = "Forgetting attention",
        .formula = "out_i = sum_{j<=i} softmax_j(q_i.k_j / sqrt(D) + ln f_(j+1) + .. + ln f_i) v_j, f_t = sigmoid(w.k_t + b)",
        .paper = "Lin et al. 2025, arXiv:2503.02130",
        .cost_in_n = "N^2 D",
        .fine_print =
            "Gates read k_t, those of each query head by its own weights. Array log_decay [B,H,M] is ln f_t <= 0. No gate "
            "counts as less "
            "than e^-256. What pruning leaves out depends on the gates: the declared work is that of gates as they are drawn, on "
            "keys of variance 1.",
        .exactness = Exactness::different,
        .causality = Causality::always,
        .grouped_heads = true};
  }

  static double time_exponent(const Options& o) { return o.prune > 0 ? 1 : 2; }

  static Parameters parameters(const Problem& p, const Options& o) {
    if (o.gate != Gate::learned) return {};
    return learned_gate(p.heads, "heads", p.head_dim, o.half_life, "f");
  }

  static std::vector<InputSpec> inputs(const Problem& p, const Options& o) {
    if (o.gate != Gate::input) return {};
    return {log_decay_input({p.batch, p.heads, p.kv_len}, o.half_life, "a weight", "f")};
  }

  static Status supports(const Problem& p, const Options& o) {
    if (p.pass == Pass::decode && o.gate == Gate::input)
      return refuse("keeps keys and values of the tokens of a decode, not their gates: needs gate=learned");
    return {};
  }

  static Cost cost(const Problem& p, const Options& o) {
    // A gate's logarithm is about -ln 2 / half_life e^z, z ~ N(0, 1) of learned ones, and N(0, 1/4) of an array that no file has: the mean of
    // e^z is e^(variance / 2).
    const double mean = std::numbers::ln2 / o.half_life * std::exp(o.gate == Gate::learned ? 0.5 : 0.125);
    const double fading = o.prune / mean;  // tokens until a logit has faded by `prune`
    return softmax_cost(p, count_pairs(p, [&](index_t i) {
                          const bool all = o.prune <= 0 || fading >= static_cast<double>(i);
                          return visible_keys(p, i, all ? 0 : i - static_cast<index_t>(fading), i);
                        }));
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> k = per_query_head(p, in.k);
    const auto log_gate = [&] {
      return -softplus(-(sum(k * unsqueeze(parameters["gate_w"], 1), -1) + unsqueeze(parameters["gate_b"], 1)));
    };
    const Tensor<T> given = o.gate == Gate::input ? in["log_decay"] : log_gate();
    const Tensor<T> logits = matmul_transposed(in.q, k) * static_cast<T>(p.scale()) + faded(p, in, given);
    const std::vector<std::int32_t> first = first_keys(p, o, in, parameters);
    const auto rows = std::ssize(in.position);
    const Mask seen = chosen_pairs(p, in, [&](index_t b, index_t h, index_t row, index_t j) {
      return j >= first[static_cast<std::size_t>((b * p.heads + h) * rows + row)];
    });
    return matmul(softmax(logits, seen), per_query_head(p, in.v));
  }

  Fox(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        before_(std::max<index_t>(0, p.q_len - p.kv_len)),

        sums_(workspace.shared<double>(p.batch * p.heads * (before_ + p.kv_len))),
        first_(workspace.shared<std::int32_t>(o.prune > 0 ? p.batch * p.heads * p.q_len : 0)) {
    if (o.prune > 0)
      pruned_.emplace(p, kernels::EngineOptions{.compute = kernels::Compute::f32, .biased = true}, workspace);
    else
      all_.emplace(p, kernels::EngineOptions{.biased = true}, workspace);
  }

  void run(const Arrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const View<double, 3> sums(workspace.shared(sums_).data(), {p_.batch, p_.heads, before_ + p_.kv_len});
    const View<std::int32_t, 3> first(workspace.shared(first_).data(), {p_.batch, p_.heads, p_.q_len});
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int) {
      const index_t b = task / p_.heads, h = task % p_.heads;
      const auto k = a.k.f32<4>()[b][p_.kv_head(h)];
      std::fill_n(&sums(b, h, 0), before_, 0.0);
      if (o_.gate == Gate::input)
        add_up(p_.kv_len, given_gates(a.more["log_decay"].f32<3>()[b][h]), &sums(b, h, before_));
      else
        add_up(p_.kv_len, learned_gates({k.row(0), k.stride(0)}, p_.head_dim, parameters, h), &sums(b, h, before_));
      for (index_t i = 0; i < p_.q_len && o_.prune > 0; ++i)
        first(b, h, i) = first_key(&sums(b, h, before_), p_.query_position(i), o_.prune);
    });
    kernels::EngineArrays arrays(a);
    arrays.potential = sums;
    if (all_) return all_->run(arrays, workspace, kernels::all_keys);
    pruned_->run(arrays, workspace, [&](const kernels::QueryBlock& queries, kernels::KeyList& keys) {
      const std::int32_t* const of_rows = &first(queries.batch, queries.head, 0);
      const index_t begin = of_rows[queries.row(0)];
      keys.range(begin, p_.kv_len - begin).from(of_rows);
    });
  }

 private:
  // c_i - c_j for the rows' positions i and keys j <= i, each a sum of its own.
  template <class T>
  static Tensor<T> faded(const Problem& p, const Values<T>& in, const Tensor<T>& log_gate) {
    const Tensor<T> own = where(allowed_pairs(p, in, every_key), unsqueeze(log_gate, -2), T{0});
    return shift(flip(cumsum(flip(own, -1), -1), -1), -1, -1);
  }

  // The first key that the query at this position sees.
  static std::int32_t first_key(const double* sums, index_t position, double prune) {
    if (position <= 0) return 0;
    const double least = sums[position] + prune;  // falls with the position
    if (std::isnan(least)) return static_cast<std::int32_t>(position);
    return static_cast<std::int32_t>(std::partition_point(sums, sums + position, [&](double sum) { return sum > least; }) - sums);
  }
  // For the definition, by the same sums of floats: [B,H,rows].
  template <class T>
  static std::vector<std::int32_t> first_keys(const Problem& p, const Options& o, const Values<T>& in,
                                              const ParameterSet<T>& parameters) {
    const index_t rows = std::ssize(in.position);
    std::vector<std::int32_t> first(static_cast<std::size_t>(p.batch * p.heads * rows), 0);
    if (o.prune <= 0) return first;
    ParameterSet<float> floats;
    for (const auto& [name, tensor] : parameters.all()) floats.set(name, cast<float>(tensor));
    const Tensor<float> read = cast<float>(o.gate == Gate::input ? in["log_decay"] : in.k);
    std::vector<double> sums(static_cast<std::size_t>(p.kv_len));
    for (index_t head = 0; head < p.batch * p.heads; ++head) {
      const index_t b = head / p.heads, h = head % p.heads;
      if (o.gate == Gate::input)
        add_up(p.kv_len, given_gates({read.data() + head * p.kv_len, {p.kv_len}}), sums.data());
      else
        add_up(p.kv_len,
               learned_gates({read.data() + (b * p.kv_heads + p.kv_head(h)) * p.kv_len * p.head_dim, p.head_dim}, p.head_dim,
                             floats, h),
               sums.data());
      for (index_t row = 0; row < rows; ++row)
        first[static_cast<std::size_t>(head * rows + row)] =
            first_key(sums.data(), in.position[static_cast<std::size_t>(row)], o.prune);
    }
    return first;
  }

  Problem p_;
  Options o_;
  index_t before_;  // positions before the first key
  std::optional<kernels::ScoredAttention> all_;
  std::optional<kernels::SoftmaxEngine> pruned_;  // where queries have keys of their own
  Booking<double> sums_;
  Booking<std::int32_t> first_;
};
ATTN_VARIANT(fox, Fox)

}  // namespace attn
