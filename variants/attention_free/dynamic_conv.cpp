#include <algorithm>

#include "attn/core/round.hpp"
#include "attn/kernels/dense/band.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// dynamic_conv: convolution whose softmax-normalised weights each token computes from itself.
//   out_t = sum_u softmax(W_h^T x_t)_u x_(t+u-P),  P = width / 2, or width - 1 when causal;  tokens outside count as zeros
//   Wu et al. 2019, arXiv:1901.10430, section 4; W [H,D,width], each head from its own channels
//   useful flops 4 N width D a head; workspace 128 width a worker
struct DynamicConv {
  struct Options {
    index_t width = 31;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>().integer("width", &Options::width, 1, 4096, "tokens in the window");
  }

  static VariantInfo info() {
    return {.title = "Dynamic convolution",
            .formula = "out_t = sum_u softmax(W x_t)_u x_(t+u-P)",
            .paper = "Wu et al. 2019, arXiv:1901.10430, section 4",
            .cost_in_n = "N width D",
            .fine_print =
                "P = width / 2, rounded down, so an even width reaches one token further back; width - 1 when "
                "causal. Tokens outside of the sequence count as zeros.",
            .exactness = Exactness::different,
            .reads = Reads::x,
            .cross = false,
            .grouped_heads = true,
            .row_wise = false,
            .time_exponent = 1};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    return {{.name = "W",
             .shape = {p.heads, p.head_dim, o.width},
             .init = init::xavier_uniform(p.head_dim, o.width),
             .axes = "heads, head_dim, width",
             .doc = "x_t W, whose softmax weighs token t + u - P by its number u"}};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const auto heads = static_cast<double>(p.batch * p.heads), d = static_cast<double>(p.head_dim);
    const auto n = static_cast<double>(p.q_len), width = static_cast<double>(o.width);
    const double pairs =
        count_pairs(p, [&](index_t t) { return visible_keys(p, t, t - left(p, o), t - left(p, o) + o.width - 1); });
    return {.flops = 2 * heads * d * (pairs + n * width),
            .bytes = q_bytes(p) + out_bytes(p) + sizeof(float) * static_cast<double>(p.heads) * d * width,
            .exps = heads * n * width};
  }

  static StateSpec state(const Problem& p, const Options& o) { return last_rows(p, o.width); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> weights = softmax(matmul(in.x(), parameters["W"]));       // [B,H,N,width]
    const Tensor<T> near = windows(in.x(), o.width, 1, left(p, o), p.q_len);  // [B,H,N,width,D]
    return squeeze(matmul(unsqueeze(weights, -2), near), -2);
  }

  DynamicConv(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p), o_(o), stride_(round_up(o.width, 16)), weights_(workspace.per_worker<float>(tile_rows * stride_)) {}

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const auto w = parameters.view<3>("W");
    const index_t tiles = (p_.q_len + tile_rows - 1) / tile_rows;
    parallel_tasks(p_.batch * p_.heads * tiles, [&](index_t task, int worker) {
      const index_t first = task % tiles * tile_rows, head = task / tiles % p_.heads, batch = task / tiles / p_.heads;
      const index_t rows = std::min(tile_rows, p_.q_len - first);
      const auto x = a.x()[batch][head];
      const auto to = a.out[batch][head];
      const kernels::Into weights{workspace.of(worker, weights_).data(), stride_};
      kernels::gemm(rows, o_.width, p_.head_dim, {x.row(first), x.stride(0)}, {w[head].data_handle(), o_.width}, weights);
      kernels::softmax(rows, o_.width, weights, 1, weights);
      kernels::band(rows, p_.head_dim, weights, o_.width, first, left(p_, o_), {{x.data_handle(), x.stride(0)}, p_.q_len}, false,
                    {to.row(first), to.stride(0)});
    });
  }

  void absorb(const FloatArrays& tokens, const ParameterSet<float>&, const State& state, Workspace&) const {
    move_up(tokens.x(), state);
  }
  void answer(const FloatArrays& queries, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    const auto w = parameters.view<3>("W");
    const auto x = state["x"].f32();
    const index_t rows = x.extent(2);
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int worker) {
      const index_t head = task % p_.heads, batch = task / p_.heads;
      const auto near = x[batch][head];
      const kernels::Into weights{workspace.of(worker, weights_).data(), o_.width};
      kernels::gemm(1, o_.width, p_.head_dim, {near.row(rows - 1), p_.head_dim}, {w[head].data_handle(), o_.width}, weights);
      kernels::softmax(1, o_.width, weights, 1, weights);
      kernels::band(1, p_.head_dim, weights, o_.width, rows - 1, o_.width - 1, {{near.data_handle(), p_.head_dim}, rows}, false,
                    {queries.out[batch][head].row(0), 0});
    });
  }

 private:
  static constexpr index_t tile_rows = 128;
  static index_t left(const Problem& p, const Options& o) { return p.causal ? o.width - 1 : o.width / 2; }

  Problem p_;
  Options o_;
  index_t stride_;  // of a token's weights, in whole lines: rows of 31 side by side take 37 ns a softmax, not 12 (Zen 4)
  Booking<float> weights_;
};
ATTN_VARIANT(dynamic_conv, DynamicConv)

}  // namespace attn
