#include <algorithm>
#include <cmath>

#include "attn/kernels/dense/band.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// conv1d: a convolution over the sequence, N vectors to N vectors.
//   out_t = sum_u x_(t+u-P) W_u + b,  P = (width - 1) / 2, or width - 1 when causal;  tokens outside count as zeros
//   W [H,width,D,D], b [H,D]: one group for each head;  depthwise=yes: channel by channel, W [H,width,D]
//   baseline
//   useful flops 2 N width D^2 a head, depthwise 2 N width D; no workspace
struct Conv1d {
  struct Options {
    index_t width = 7;
    bool depthwise = false;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("width", &Options::width, 1, 4096, "tokens in the window")
        .flag("depthwise", &Options::depthwise, "each channel by itself");
  }

  static VariantInfo info() {
    return {.title = "Convolution",
            .formula = "out_t = sum_u x_(t+u-P) W_u + b",
            .paper = "baseline",
            .cost_in_n = "N width D^2",
            .fine_print =
                "P = (width - 1) / 2, rounded down, so an even width reaches one token further ahead, other "
                "than light_conv and dynamic_conv; width - 1 when causal. Tokens outside of the sequence count "
                "as zeros.",
            .exactness = Exactness::different,
            .reads = Reads::x,
            .cross = false,
            .grouped_heads = true,
            .row_wise = false,
            .time_exponent = 1};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    const index_t h = p.heads, d = p.head_dim, fan_in = o.width * (o.depthwise ? 1 : d);
    const Init init = init::uniform(1 / std::sqrt(static_cast<double>(fan_in)));
    return {{.name = "W",
             .shape = o.depthwise ? Shape{h, o.width, d} : Shape{h, o.width, d, d},
             .init = init,
             .axes = o.depthwise ? "heads, width, head_dim" : "heads, width, head_dim, head_dim",
             .doc = o.depthwise ? "W[head, u] times token t + u - P, channel by channel" : "x_(t+u-P) W[head, u]: rows meet x"},
            {.name = "b", .shape = {h, d}, .init = init, .axes = "heads, head_dim", .doc = "added"}};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const auto heads = static_cast<double>(p.heads), b = static_cast<double>(p.batch), d = static_cast<double>(p.head_dim);
    const double pairs =
        count_pairs(p, [&](index_t t) { return visible_keys(p, t, t - left(p, o), t - left(p, o) + o.width - 1); });
    const double per_pair = o.depthwise ? d : d * d;
    return {.flops = 2 * b * heads * pairs * per_pair,
            .bytes = q_bytes(p) + out_bytes(p) + sizeof(float) * heads * static_cast<double>(o.width) * per_pair};
  }

  static StateSpec state(const Problem& p, const Options& o) { return last_rows(p, o.width); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T>& w = parameters["W"];
    const Tensor<T> bias = unsqueeze(parameters["b"], 1);
    if (o.depthwise) return depthwise_conv(in.x(), w, left(p, o)) + bias;
    const Tensor<T> near = windows(in.x(), o.width, 1, left(p, o), p.q_len);  // [B,H,N,width,D]
    return matmul(flatten(near, -2, -1), flatten(w, 1, 2)) + bias;
  }

  Conv1d(const Problem& p, const Options& o, WorkspacePlan&) : p_(p), o_(o) {}

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace&) const {
    const index_t d = p_.head_dim, tiles = (p_.q_len + tile_rows - 1) / tile_rows;
    const auto bias = parameters.view<2>("b");
    const float* weights = parameters["W"].data();
    parallel_tasks(p_.batch * p_.heads * tiles, [&](index_t task, int) {
      const index_t first = task % tiles * tile_rows, head = task / tiles % p_.heads, batch = task / tiles / p_.heads;
      const index_t rows = std::min(tile_rows, p_.q_len - first);
      const auto x = a.x()[batch][head];
      const auto to = a.out[batch][head];
      kernels::copy(rows, d, {bias.row(head), 0}, {to.row(first), to.stride(0)});
      if (o_.depthwise) {
        kernels::depthwise(rows, d, {weights + head * o_.width * d, d}, o_.width, first, left(p_, o_),
                           {{x.data_handle(), x.stride(0)}, p_.q_len}, true, {to.row(first), to.stride(0)});
        return;
      }
      for (index_t u = 0; u < o_.width; ++u) {
        // The rows whose tap u lies inside the sequence.
        const index_t shift = u - left(p_, o_), begin = std::max(first, -shift), end = std::min(first + rows, p_.q_len - shift);
        if (begin >= end) continue;
        kernels::gemm(end - begin, d, d, {x.row(begin + shift), x.stride(0)}, {weights + (head * o_.width + u) * d * d, d},
                      {to.row(begin), to.stride(0)}, {.add = true});
      }
    });
  }

  void absorb(const FloatArrays& tokens, const ParameterSet<float>&, const State& state, Workspace&) const {
    move_up(tokens.x(), state);
  }
  void answer(const FloatArrays& queries, const ParameterSet<float>& parameters, const State& state, Workspace&) const {
    const index_t d = p_.head_dim;
    const auto x = state["x"].f32();
    const index_t rows = x.extent(2);
    const auto bias = parameters.view<2>("b");
    const float* weights = parameters["W"].data();
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int) {
      const index_t head = task % p_.heads, batch = task / p_.heads;
      const auto near = x[batch][head];
      const kernels::Into to{queries.out[batch][head].row(0), d};
      std::copy_n(bias.row(head), d, to.data);
      if (o_.depthwise) {
        kernels::depthwise(1, d, {weights + head * o_.width * d, d}, o_.width, rows - 1, o_.width - 1,
                           {{near.data_handle(), d}, rows}, true, to);
        return;
      }
      for (index_t r = 0; r < rows; ++r)
        kernels::gemm(1, d, d, {near.row(r), d}, {weights + (head * o_.width + o_.width - rows + r) * d * d, d}, to, {.add = true});
    });
  }

 private:
  static constexpr index_t tile_rows = 192;
  static index_t left(const Problem& p, const Options& o) { return p.causal ? o.width - 1 : (o.width - 1) / 2; }

  Problem p_;
  Options o_;
};
ATTN_VARIANT(conv1d, Conv1d)

}  // namespace attn
