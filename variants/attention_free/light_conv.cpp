#include <algorithm>

#include "attn/kernels/dense/band.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// light_conv: lightweight convolution: each head averages its tokens over a window with the same softmax-normalised weights.
//   out_t = sum_u softmax(w_h)_u x_(t+u-P),  P = width / 2, or width - 1 when causal;  tokens outside count as zeros
//   Wu et al. 2019, arXiv:1901.10430, section 3; w [H,width]. The gated projections around it belong to the layer.
//   useful flops 2 N width D a head; no workspace that grows with N
struct LightConv {
  struct Options {
    index_t width = 31;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>().integer("width", &Options::width, 1, 4096, "tokens in the window");
  }

  static VariantInfo info() {
    return {.title = "Lightweight convolution",
            .formula = "out_t = sum_u softmax(w)_u x_(t+u-P)",
            .paper = "Wu et al. 2019, arXiv:1901.10430, section 3",
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
    return {{.name = "w",
             .shape = {p.heads, o.width},
             .init = init::xavier_uniform(p.heads, o.width),
             .axes = "heads, width",
             .doc = "its softmax weighs token t + u - P by number u"}};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const auto channels = static_cast<double>(p.batch * p.heads * p.head_dim);
    const double pairs =
        count_pairs(p, [&](index_t t) { return visible_keys(p, t, t - left(p, o), t - left(p, o) + o.width - 1); });
    return {.flops = 2 * channels * pairs,
            .bytes = q_bytes(p) + out_bytes(p),
            .exps = static_cast<double>(p.heads * o.width)};
  }

  static StateSpec state(const Problem& p, const Options& o) { return last_rows(p, o.width); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    return depthwise_conv(in.x(), unsqueeze(softmax(parameters["w"]), -1), left(p, o));
  }

  LightConv(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p), o_(o), weights_(workspace.shared<float>(p.heads * o.width)) {}

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const kernels::Into weights{workspace.shared(weights_).data(), o_.width};
    kernels::softmax(p_.heads, o_.width, {parameters["w"].data(), o_.width}, 1, weights);
    const index_t tiles = (p_.q_len + tile_rows - 1) / tile_rows;
    parallel_tasks(p_.batch * p_.heads * tiles, [&](index_t task, int) {
      const index_t first = task % tiles * tile_rows, head = task / tiles % p_.heads, batch = task / tiles / p_.heads;
      const auto x = a.x()[batch][head];
      const auto to = a.out[batch][head];
      kernels::band(std::min(tile_rows, p_.q_len - first), p_.head_dim, {weights.data + head * o_.width, 0}, o_.width, first,
                    left(p_, o_), {{x.data_handle(), x.stride(0)}, p_.q_len}, false, {to.row(first), to.stride(0)});
    });
  }

  void absorb(const FloatArrays& tokens, const ParameterSet<float>&, const State& state, Workspace&) const {
    move_up(tokens.x(), state);
  }
  void answer(const FloatArrays& queries, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    const kernels::Into weights{workspace.shared(weights_).data(), o_.width};
    kernels::softmax(p_.heads, o_.width, {parameters["w"].data(), o_.width}, 1, weights);
    const auto x = state["x"].f32();
    const index_t rows = x.extent(2);
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int) {
      const index_t head = task % p_.heads, batch = task / p_.heads;
      kernels::band(1, p_.head_dim, {weights.data + head * o_.width, 0}, o_.width, rows - 1, o_.width - 1,
                    {{x[batch][head].data_handle(), p_.head_dim}, rows}, false, {queries.out[batch][head].row(0), 0});
    });
  }

 private:
  static constexpr index_t tile_rows = 128;
  static index_t left(const Problem& p, const Options& o) { return p.causal ? o.width - 1 : o.width / 2; }

  Problem p_;
  Options o_;
  Booking<float> weights_;
};
ATTN_VARIANT(light_conv, LightConv)

}  // namespace attn
