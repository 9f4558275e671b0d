#include <array>
#include <cmath>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/softmax/attention.hpp"
#include "attn/variant/variant.hpp"
#include "attn/variant/windowed.hpp"

namespace attn {

// qk_norm: softmax attention of normalised queries and keys, over all keys or, with `window`, the nearest.
//   out_i = sum_j softmax_j(s q^_i.k^_j) v_j;  |i - j| < window;  j <= i when causal
//   norm=rms: x^ = w x / sqrt(mean x^2 + 1e-6), w of queries and of keys one for each channel, s = 1/sqrt(D), as in Qwen 3
//   norm=l2:  x^ = x / sqrt(|x|^2 + 1e-6), s one for each head, from 10 on, as in lucidrains/x-transformers
//   useful flops 2 pairs (D + Dv); workspace normalised queries and keys, N D each
// In a decode all keys are normalised again at each step.
struct QkNorm {
  enum class Norm { rms, l2 };
  struct Options {
    Norm norm = Norm::rms;
    index_t window = 0;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .choice("norm", &Options::norm, {{"rms", Norm::rms}, {"l2", Norm::l2}},
                "rms: by the root mean square, with learned weights; l2: to length one, with a learned scale")
        .integer("window", &Options::window, 0, unlimited, window_doc)
        .budget();
  }

  static VariantInfo info() {
    return {
        .title = "Normalised queries and keys",
        .formula = "out_i = sum_j softmax_j(q_i.k_j / sqrt(D)) v_j of q and k divided by their root mean squares, times weights",
        .paper = "Qwen 3 2025, QwenLM/Qwen3",
        .cost_in_n = "N^2 D",
        .fine_print =
            "Means of squares and squared lengths are 1e-6 larger. In a decode all keys are normalised again at each step.",
        .exactness = Exactness::different,
        .grouped_heads = true};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    if (o.norm == Norm::l2)
      return {{.name = "scale", .shape = {p.heads}, .init = init::constant(10), .axes = "heads", .doc = "s: of cosines"}};
    return {{.name = "q_weight", .shape = {p.head_dim}, .init = init::constant(1), .axes = "head_dim", .doc = "w of queries"},
            {.name = "k_weight", .shape = {p.head_dim}, .init = init::constant(1), .axes = "head_dim", .doc = "w of keys"}};
  }

  static Cost cost(const Problem& p, const Options& o) { return windowed_cost(p, o.window); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const auto unit = [](const Tensor<T>& x, T squares) {
      return x / sqrt(sum(x * x, -1, Keep::yes) * squares + static_cast<T>(1e-6));
    };
    const T mean = o.norm == Norm::rms ? T{1} / static_cast<T>(p.head_dim) : T{1};
    Tensor<T> q = unit(in.q, mean), k = unit(in.k, mean);
    if (o.norm == Norm::rms)
      q = q * parameters["q_weight"] * static_cast<T>(p.scale()), k = k * parameters["k_weight"];
    else
      q = q * reshape(parameters["scale"], {p.heads, 1, 1});
    const Mask seen = allowed_pairs(p, in, [&](index_t i, index_t j) { return within_window(o.window, i, j); });
    return matmul(softmax(matmul_transposed(q, per_query_head(p, k)), seen), per_query_head(p, in.v));
  }

  QkNorm(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        reach_(reach_of(o.window)),
        engine_(p, {.keys_per_query = o.window > 0 ? 2 * reach_ + 1 : kernels::anywhere, .scale = 1}, workspace),
        q_(workspace.shared<float>(p.batch * p.heads * p.q_len * p.head_dim)),
        k_(workspace.shared<float>(p.batch * p.kv_heads * p.kv_len * p.head_dim)) {}

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const View<float, 4> q(workspace.shared(q_).data(), {p_.batch, p_.heads, p_.q_len, p_.head_dim});
    const View<float, 4> k(workspace.shared(k_).data(), {p_.batch, p_.kv_heads, p_.kv_len, p_.head_dim});
    const auto scale = static_cast<float>(p_.scale());
    const auto weight = [&](const char* name) { return o_.norm == Norm::rms ? parameters[name].data() : nullptr; };
    normalise(
        a.q, weight("q_weight"), [&](index_t h) { return o_.norm == Norm::rms ? scale : parameters["scale"](h); }, q);
    normalise(
        a.k, weight("k_weight"), [](index_t) { return 1.0f; }, k);
    engine_.run({q, k, a.v, a.out}, workspace,
                [this](const kernels::QueryBlock&, kernels::KeyList& keys) { keys.all().band(reach_, reach_); });
  }

 private:
  static constexpr index_t panel = 64;  // rows of a task

  template <class F>
  void normalise(const View<const float, 4>& from, const float* weight, F factor, const View<float, 4>& to) const {
    const index_t heads = from.extent(1), rows = from.extent(2), d = p_.head_dim, panels = ceil_div(rows, panel);
    const float mean = o_.norm == Norm::rms ? 1 / static_cast<float>(d) : 1.0f;
    parallel_tasks(from.extent(0) * heads * panels, [&](index_t task, int) {
      const index_t b = task / panels / heads, h = task / panels % heads, first = task % panels * panel;
      const index_t count = std::min(panel, rows - first);
      const auto own = from[b][h];
      const kernels::Rows x{own.row(first), own.stride(0)};
      const kernels::Into into{to[b][h].row(first), d};
      std::array<float, panel> by;
      kernels::row_squares(count, d, x, by.data());
      for (index_t i = 0; i < count; ++i) {
        float& own_factor = by[static_cast<std::size_t>(i)];
        own_factor = factor(h) / std::sqrt(own_factor * mean + 1e-6f);
      }
      kernels::scale_rows(count, d, x, by.data(), into);
      if (weight != nullptr) kernels::scale_columns(count, d, into, weight, into);
    });
  }

  Problem p_;
  Options o_;
  index_t reach_;
  kernels::Attention engine_;
  Booking<float> q_, k_;
};
ATTN_VARIANT(qk_norm, QkNorm)

}  // namespace attn
