#include <cmath>
#include <limits>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/softmax/attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// diff: differential attention: of two softmaxes, each of half a query and key, the second is taken from the first, so that what both see everywhere
// cancels.
//   out = (1 - l0) RMS(A1 V - l A2 V),  A_n = softmax(q_n.k_n / sqrt(D / 2)), q_n and k_n the n-th half of q and k;  j <= i when causal
//   l = e^(lq1.lk1) - e^(lq2.lk2) + l0,  RMS(x) = x / sqrt(mean x^2 + 1e-5)
//   Ye et al. 2024, arXiv:2410.05258; microsoft/unilm, Diff-Transformer, whose norm has a learned gain besides. norm=none: A1 V - l A2 V
//   useful flops 2 pairs (D + 2 Dv), 2 exps a pair; workspace N Dv a head and the softmax engine's, twice
struct Diff {
  using Engine = kernels::Attention;
  enum class Norm { rms, none };
  struct Options {
    double lambda = 0.8;
    Norm norm = Norm::rms;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .number("lambda", &Options::lambda, 0, 1, "l0: 0.8 - 0.6 e^(-0.3 n) in the authors' layer n from 0, so 0.8 in deep ones")
        .choice("norm", &Options::norm, {{"rms", Norm::rms}, {"none", Norm::none}}, "rms: of each output row, times 1 - l0");
  }

  static VariantInfo info() {
    return {.title = "Differential attention",
            .formula = "out = (1 - l0) RMS(A1 V - l A2 V), A_n = softmax of the n-th halves of q and k",
            .paper = "Ye et al. 2024, arXiv:2410.05258",
            .cost_in_n = "N^2 D",
            .fine_print =
                "l is one number for all heads, as its four learned vectors are. RMS has no gain, and 1e-5 beside the mean square.",
            .exactness = Exactness::different,
            .grouped_heads = true};
  }

  static Parameters parameters(const Problem& p, const Options&) {
    Parameters list;
    for (const char* name : {"lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"})
      list.push_back(
          {.name = name, .shape = {p.head_dim / 2}, .init = init::normal(0.1), .axes = "c", .doc = "of l; c = head_dim / 2"});
    return list;
  }

  static Status supports(const Problem& p, const Options&) {
    if (p.head_dim % 2 != 0) return refuse("halves queries and keys: needs an even head_dim");
    if (p.head_dim / 2 % block_of(p.kv_dtype) != 0)
      return refuse("halves keys: of " + std::string(to_string(p.kv_dtype)) + " needs a head_dim of whole blocks twice");
    return {};
  }

  static Cost cost(const Problem& p, const Options&) {
    const Problem half = halved(p);
    Cost cost = softmax_cost(half, 2 * count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1); }));
    cost.bytes = tensor_bytes(p);
    return cost;
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const auto attention = [&](index_t from) {
      Values<T> half = in;
      half.q = slice(in.q, -1, from, from + p.head_dim / 2);
      half.k = slice(in.k, -1, from, from + p.head_dim / 2);
      return softmax_attention(halved(p), half, every_key);
    };
    const auto product = [&](const char* a, const char* b) { return exp(sum(parameters[a] * parameters[b])); };
    const Tensor<T> l = product("lambda_q1", "lambda_k1") - product("lambda_q2", "lambda_k2") + static_cast<T>(o.lambda);
    const Tensor<T> y = attention(0) - l * attention(p.head_dim / 2);
    return o.norm == Norm::none ? y : rms_norm(y, 1e-5) * static_cast<T>(1 - o.lambda);
  }

  Diff(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        first_(halved(p), {}, workspace),
        second_(halved(p), {}, workspace),
        taken_(workspace.shared<float>(p.batch * p.heads * p.q_len * p.value_dim)) {}

  void run(const Arrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const View<float, 4> taken(workspace.shared(taken_).data(), {p_.batch, p_.heads, p_.q_len, p_.value_dim});
    const index_t half = p_.head_dim / 2;
    const auto halves = [&](index_t from) {
      Arrays own = a;
      own.q = a.q.part(3, from, half);
      own.k = a.k.part(3, from, half);
      if (from > 0) own.out = taken;
      return own;
    };
    first_.run(halves(0), workspace, kernels::all_keys);
    second_.run(halves(half), workspace, kernels::all_keys);
    const float l = lambda(parameters);
    const View<float, 4> out = a.out.f32_out();
    const index_t panels = ceil_div(p_.q_len, panel);
    parallel_tasks(p_.batch * p_.heads * panels, [&](index_t task, int) {
      const index_t h = task / panels % p_.heads, b = task / panels / p_.heads, first = task % panels * panel;
      const index_t rows = std::min(panel, p_.q_len - first);
      const kernels::Into to{out[b][h].row(first), out.stride(2)};
      kernels::add(rows, p_.value_dim, {taken[b][h].row(first), p_.value_dim}, to, -l);
      if (o_.norm == Norm::none) return;
      float factors[panel];
      kernels::row_squares(rows, p_.value_dim, to, factors);
      for (index_t i = 0; i < rows; ++i)
        factors[i] = static_cast<float>(1 - o_.lambda) / std::sqrt(factors[i] / static_cast<float>(p_.value_dim) + 1e-5f);
      kernels::scale_rows(rows, p_.value_dim, to, factors, to);
    });
  }

 private:
  static constexpr index_t panel = 64;

  static Problem halved(Problem p) { return p.head_dim /= 2, p; }

  float lambda(const ParameterSet<float>& parameters) const {
    const auto product = [&](const char* a, const char* b) {
      double dot = 0;
      for (index_t i = 0; i < p_.head_dim / 2; ++i)
        dot += static_cast<double>(parameters[a].data()[i]) * static_cast<double>(parameters[b].data()[i]);
      return std::exp(dot);
    };
    return static_cast<float>(product("lambda_q1", "lambda_k1") - product("lambda_q2", "lambda_k2") + o_.lambda);
  }

  Problem p_;
  Options o_;
  Engine first_, second_;
  Booking<float> taken_;
};
ATTN_VARIANT(diff, Diff)

}  // namespace attn
