#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/softmax/attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// synth_dense: Synthesizer whose logits are computed from the query's token alone: attention with learned, static keys.
//   out_i = sum_j softmax_j(h_i.k_j) v_j,  h_i = relu(x_i W1),  k_j row j of W2;  j <= i when causal
//   Tay et al. 2020, arXiv:2005.00743, section 3.1.1 (Dense Synthesizer); per head, W1 [D,D], W2 [L,D], no 1/sqrt(D), no biases,
//   as in the authors' code (mesh_tensorflow, "dense_minus")
//   useful flops 2 N D^2 + 2 N^2 (D + Dv) a head, the second half of it when causal; workspace N D a head
struct SynthDense {
  struct Options {
    index_t max_len = 0;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>().integer("max_len", &Options::max_len, 0, unlimited,
                                          "positions with a learned key, of which the first N are used; 0: N");
  }

  static VariantInfo info() {
    return {.title = "Dense Synthesizer",
            .formula = "out_i = sum_j softmax_j(relu(x_i W1).w2_j) v_j",
            .paper = "Tay et al. 2020, arXiv:2005.00743, section 3.1.1",
            .cost_in_n = "N^2 D",
            .exactness = Exactness::different,
            .reads = Reads::xv,
            .cross = false,
            .grouped_heads = true,
            .last_rows = true};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    const index_t h = p.heads, d = p.head_dim, l = length(p, o);
    return {{.name = "W1",
             .shape = {h, d, d},
             .init = init::xavier_uniform(d, d),
             .axes = "heads, head_dim, head_dim",
             .doc = "x_i W1: rows meet x"},
            {.name = "W2",
             .shape = {h, l, d},
             .init = init::xavier_uniform(d, l),
             .axes = "heads, L, head_dim",
             .doc = "row j is the key of position j"}};
  }

  static Status supports(const Problem& p, const Options& o) { return within_learned(p, o.max_len); }
  static Status supports_backward(const Problem& p, const Options&) { return ungrouped(p); }

  static Cost cost(const Problem& p, const Options&) {
    Cost c = softmax_cost(p, count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1); }));
    const auto rows = static_cast<double>(p.heads * p.q_len), d = static_cast<double>(p.head_dim);
    c.flops += 2 * static_cast<double>(p.batch) * rows * d * d;
    const auto heads = static_cast<double>(p.heads), keys = static_cast<double>(p.kv_len);
    c.bytes = q_bytes(p) + v_bytes(p) + out_bytes(p) + sizeof(float) * heads * d * (d + keys);
    return c;
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options&, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> keys = slice(parameters["W2"], 1, 0, p.kv_len);
    const Tensor<T> logits = matmul_transposed(relu(matmul(in.x(), parameters["W1"])), keys);
    return matmul(softmax(logits, allowed_pairs(p, in, every_key)), per_query_head(p, in.v));
  }

  SynthDense(const Problem& p, const Options&, WorkspacePlan& workspace)
      : p_(p), hidden_(workspace.shared<float>(p.batch * p.heads * p.q_len * p.head_dim)), engine_(of_groups(p), {.scale = 1.0}, workspace) {
    if (!workspace.training()) return;
    d_hidden_ = workspace.shared<float>(hidden_.count);
    d_keys_ = workspace.shared<float>(hidden_.count);
    transposed_ = workspace.per_worker<float>(p.head_dim * p.head_dim);
  }

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const auto w1 = parameters.view<3>("W1");
    const View<float, 4> hidden = of_tokens(hidden_, workspace);
    const index_t tiles = (p_.q_len + tile_rows - 1) / tile_rows;
    parallel_tasks(p_.batch * p_.heads * tiles, [&](index_t task, int) {
      const index_t first = task % tiles * tile_rows, rows = std::min(tile_rows, p_.q_len - first);
      const index_t h = task / tiles % p_.heads, b = task / tiles / p_.heads;
      const auto x = a.x()[b][h];
      const kernels::Into to{hidden[b][h].row(first), p_.head_dim};
      kernels::gemm(rows, p_.head_dim, p_.head_dim, {x.row(first), x.stride(0)}, {w1[h].data_handle(), p_.head_dim}, to);
      kernels::relu_plus(rows, p_.head_dim, to, 0, to);
    });
    const View<const float, 4> keys = this->keys(parameters);
    if (p_.kv_heads == p_.heads) return engine_.run({hidden, keys, a.v, a.out}, workspace, kernels::all_keys);
    for (index_t b = 0; b < p_.batch; ++b)
      engine_.run({grouped(hidden[b]), grouped(keys[b]), shared(a.v[b]), grouped(a.out[b])}, workspace, kernels::all_keys);
  }

  // The engine gives the gradients of H and of each batch item's keys; those of the keys are summed over the batch, that of H goes
  // through the rectifier to x and W1.
  void backward(const FloatArrays& a, const ParameterSet<float>& parameters, const FloatGradients& g, Workspace& workspace) const {
    const auto w1 = parameters.view<3>("W1");
    const auto d_w1 = g.d_parameters.view<3>("W1"), d_w2 = g.d_parameters.view<3>("W2");
    const View<float, 4> hidden = of_tokens(hidden_, workspace), d_hidden = of_tokens(d_hidden_, workspace);
    const View<float, 4> d_keys = of_tokens(d_keys_, workspace);
    engine_.backward({hidden, keys(parameters), a.v}, {a.out, g.d_out, d_hidden, d_keys, g.d_v}, workspace, kernels::all_keys);
    const index_t n = p_.q_len, d = p_.head_dim;
    parallel_tasks(p_.heads, [&](index_t h, int worker) {
      const kernels::Into w1_transposed{workspace.of(worker, transposed_).data(), d};
      kernels::transpose(d, d, {w1[h].data_handle(), d}, w1_transposed);
      std::fill_n(d_w2[h].row(0), d_w2.extent(1) * d, 0.0f);
      for (index_t batch = 0; batch < p_.batch; ++batch) {
        const auto x = a.x()[batch][h];
        const auto d_x = g.d_q[batch][h], d_k = g.d_k[batch][h];
        const kernels::Into d_h{d_hidden[batch][h].row(0), d};
        kernels::relu_gradient(n, d, {hidden[batch][h].row(0), d}, d_h);
        kernels::gemm(n, d, d, {d_h.data, d}, w1_transposed, {d_x.row(0), d_x.stride(0)});
        kernels::gemm(d, d, n, {x.row(0), 1, x.stride(0)}, d_h, {d_w1[h].row(0), d}, {.add = batch > 0});
        kernels::add(n, d, {d_keys[batch][h].row(0), d}, {d_w2[h].row(0), d});
        for (index_t j = 0; j < n; ++j) std::fill_n(d_k.row(j), d, 0.0f);
      }
    });
  }

 private:
  static constexpr index_t tile_rows = 192;
  static index_t length(const Problem& p, const Options& o) { return o.max_len == 0 ? p.kv_len : o.max_len; }

  // Query heads that share values have keys of their own. A batch item then is a batch of kv heads, whose query heads are the heads.
  static Problem of_groups(Problem p) {
    if (p.kv_heads == p.heads) return p;
    p.batch = p.kv_heads;
    p.heads = p.kv_heads = p.heads / p.batch;
    return p;
  }
  template <class T>
  View<T, 4> grouped(const View<T, 3>& x) const {
    const index_t group = p_.heads / p_.kv_heads;
    return {x.data_handle(), {p_.kv_heads, group, x.extent(1), x.extent(2)}, {group * x.stride(0), x.stride(0), x.stride(1), x.stride(2)}};
  }
  View<const float, 4> shared(const View<const float, 3>& v) const {
    const index_t group = p_.heads / p_.kv_heads;
    return {v.data_handle(), {p_.kv_heads, group, v.extent(1), v.extent(2)}, {v.stride(0), 0, v.stride(1), v.stride(2)}};
  }

  View<float, 4> of_tokens(const Booking<float>& booking, const Workspace& workspace) const {
    return {workspace.shared(booking).data(), {p_.batch, p_.heads, p_.q_len, p_.head_dim}};
  }
  // The whole batch has the same keys: stride 0.
  View<const float, 4> keys(const ParameterSet<float>& parameters) const {
    const auto w2 = parameters.view<3>("W2");
    return {w2.data_handle(), {p_.batch, p_.heads, p_.kv_len, p_.head_dim}, {0, w2.stride(0), p_.head_dim, 1}};
  }

  Problem p_;
  Booking<float> hidden_, d_hidden_, d_keys_, transposed_;
  kernels::Attention engine_;
};
ATTN_VARIANT(synth_dense, SynthDense)

}  // namespace attn
