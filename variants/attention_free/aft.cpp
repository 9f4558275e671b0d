#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "attn/kernels/dense/activations.hpp"
#include "attn/kernels/dense/band.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/dense/weighted_sum.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// aft: the attention free transformer: each channel is a mean of values by e^(key + learned bias), gated by the query.
//   out_t = sigmoid(q_t) * sum_j e^(k_j + w_tj) v_j / sum_j e^(k_j + w_tj);  j <= t when causal
//   Zhai et al. 2021, arXiv:2105.14103, sections 3.1 (full), 3.2 (simple, local, conv)
//   form=full: w [L,L], shared by all channels. simple: w = 0. local: w_tj = 0 where |t-j| >= window, but those keys still count.
//   conv: w depends on t - j and on the head, and the head's key is one number: here its first channel.
//   useful flops a head: full 4 N^2 D (half when causal); otherwise 5 N D and 4 N (2 window - 1) D
//   workspace: full 4 N D a head; local and conv 2 N D a worker; simple none that grows with N
// Sums with e^w = 1 + (e^w - 1): all keys once, and a band. Exponents are taken relative to the largest key of a channel, or, when
// causal, to the first: the largest might come later. A key more than 80 above the first overflows there.
struct Aft {
  enum class Form { full, simple, local, conv };
  struct Options {
    Form form = Form::full;
    index_t window = 32;
    index_t max_len = 0;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .choice("form", &Options::form,
                {{"full", Form::full}, {"simple", Form::simple}, {"local", Form::local}, {"conv", Form::conv}},
                "full: any bias; simple: none; local: near keys; conv: by distance")
        .integer("window", &Options::window, 1, 4096, "local, conv: |t - j| < window have a bias")
        .integer("max_len", &Options::max_len, 0, 65536, "full, local: positions with learned biases, the first N are used; 0: N");
  }

  static VariantInfo info() {
    return {.title = "Attention free transformer",
            .formula = "out_t = sigmoid(q_t) * sum_j e^(k_j + w_tj) v_j / sum_j e^(k_j + w_tj)",
            .paper = "Zhai et al. 2021, arXiv:2105.14103, section 3",
            .cost_in_n = "N^2 D",
            .exactness = Exactness::different,
            .cross = false};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    const index_t l = o.max_len == 0 ? p.q_len : o.max_len, band = 2 * o.window - 1;
    const auto bias = [](Shape shape) { return Parameters{{.name = "w", .shape = std::move(shape), .init = init::normal(0.01)}}; };
    switch (o.form) {
      case Form::full: return bias({l, l});
      case Form::simple: return {};
      case Form::local: return bias({l, band});
      case Form::conv: return bias({p.heads, band});
    }
    return {};
  }

  static Status supports(const Problem& p, const Options& o) {
    if (p.head_dim != p.value_dim) return refuse("weighs values channel by channel and needs value_dim equal to head_dim");
    const bool bounded = o.form == Form::full || o.form == Form::local;
    return bounded ? within_learned(p, o.max_len) : Status();
  }

  static Cost cost(const Problem& p, const Options& o) {
    const auto channels = static_cast<double>(p.batch * p.heads * p.head_dim), n = static_cast<double>(p.q_len);
    const index_t reach = o.form == Form::full ? p.q_len : o.form == Form::simple ? 0 : o.window;
    const double pairs =
        reach == 0 ? 0 : count_pairs(p, [&](index_t t) { return visible_keys(p, t, t - reach + 1, t + reach - 1); });
    return {.flops = 4 * channels * pairs + 5 * channels * n, .bytes = tensor_bytes(p), .exps = 2 * channels * n};
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> biases = bias(p, o, in, parameters);  // [rows,N] or, for conv, [H,rows,N]
    const Tensor<T> keys = o.form == Form::conv ? broadcast_to(slice(in.k, -1, 0, 1), in.k.shape()) : in.k;
    const Tensor<T> by_bias = where(allowed_pairs(p, in, every_key), exp(biases - max(biases, -1, Keep::yes)), T{0});
    const Tensor<T> by_key = exp(keys - max(keys, 2, Keep::yes));
    return attn::sigmoid(in.q) * matmul(by_bias, by_key * in.v) / matmul(by_bias, by_key);
  }

  Aft(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        values_(full()                   ? workspace.shared<float>(pairs_size())
                : o.form == Form::simple ? Booking<float>{}
                                         : workspace.per_worker<float>(2 * p.q_len * p.head_dim)),
        mixed_(full() ? workspace.shared<float>(pairs_size()) : workspace.per_worker<float>((panel + 1) * 2 * p.head_dim)),
        band_(workspace.shared<float>(o.form == Form::local  ? p.q_len * taps()
                                      : o.form == Form::conv ? p.heads * taps()
                                                             : 0)),
        sums_(doubled(p), kernels::WeightedSum::Kind::weights, kernels::WeightedSum::Sharing::all, workspace) {}

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    if (full()) return run_full(a, parameters.view<2>("w"), workspace);
    kernels::Into band{workspace.shared(band_).data(), taps()};
    if (o_.form != Form::simple) {
      const index_t rows = o_.form == Form::local ? p_.q_len : p_.heads;
      kernels::exp_minus_one(rows, taps(), {parameters["w"].data(), taps()}, band);
    }
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int worker) {
      const index_t b = task / p_.heads, h = task % p_.heads;
      const Head head{a, b, h, reference(a, b, h)};
      const kernels::Into sums{workspace.of(worker, mixed_).data(), 2 * p_.head_dim};  // row 0: of all keys so far
      std::fill_n(sums.data, sums.stride, 0.0f);
      if (o_.form == Form::simple) return run_simple(head, sums.data, {sums.data + sums.stride, sums.stride});
      const kernels::Rows weights = o_.form == Form::local ? kernels::Rows(band) : kernels::Rows{band.data + h * taps(), 0};
      run_band(head, weights, {workspace.of(worker, values_).data(), sums.stride}, sums.data,
               {sums.data + sums.stride, sums.stride});
    });
  }

 private:
  static constexpr index_t panel = 64;
  using Reference = std::array<float, 256>;  // of a head's channels

  struct Head {
    const FloatArrays& a;
    index_t b, h;
    Reference reference;
  };

  template <class F>
  void each_panel(F f) const {
    for (index_t first = 0; first < p_.q_len; first += panel) f(first, std::min(panel, p_.q_len - first));
  }

  // A panel of terms at a time, in `own`: nothing of the length of the sequence is written but the output.
  void run_simple(const Head& head, float* before, kernels::Into own) const {
    const index_t d = p_.head_dim;
    if (p_.causal) {
      return each_panel([&](index_t first, index_t rows) {
        make_terms(head, first, rows, own);
        sum_along(rows, before, own);
        finish(head, first, rows, own);
      });
    }
    each_panel([&](index_t first, index_t rows) {
      make_terms(head, first, rows, own);
      kernels::add_column_sums(rows, 2 * d, own, before);
    });
    kernels::divide(1, d, {before, d}, {before + d, d}, std::numeric_limits<float>::min(), {before, d});
    const auto q = head.a.q[head.b][head.h];
    const auto o = head.a.out[head.b][head.h];
    each_panel([&](index_t first, index_t rows) {
      const kernels::Into to{o.row(first), o.stride(0)};
      kernels::sigmoid(rows, d, {q.row(first), q.stride(0)}, 1, 0, to);
      kernels::scale_columns(rows, d, to, before, to);
    });
  }

  // local: a row of weights for each token; conv: stride 0.
  void run_band(const Head& head, kernels::Rows weights, kernels::Into terms, float* before, kernels::Into own) const {
    const index_t width = 2 * p_.head_dim;
    each_panel([&](index_t first, index_t rows) {
      make_terms(head, first, rows, {terms.data + first * terms.stride, terms.stride});
    });
    if (!p_.causal) kernels::add_column_sums(p_.q_len, width, terms, before);
    each_panel([&](index_t first, index_t rows) {
      if (p_.causal) {
        kernels::copy(rows, width, {terms.data + first * terms.stride, terms.stride}, own);
        sum_along(rows, before, own);
      } else {
        kernels::copy(rows, width, {before, 0}, own);
      }
      kernels::band(rows, width, {weights.data + first * weights.stride, weights.stride}, p_.causal ? o_.window : taps(), first,
                    o_.window - 1, {terms, p_.q_len}, true, own);
      finish(head, first, rows, own);
    });
  }

  void run_full(const FloatArrays& a, View<const float, 2> w, Workspace& workspace) const {
    const View<float, 4> values(workspace.shared(values_).data(), {p_.batch, p_.heads, p_.q_len, 2 * p_.head_dim});
    const View<float, 4> mixed(workspace.shared(mixed_).data(), {p_.batch, p_.heads, p_.q_len, 2 * p_.head_dim});
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int) {
      const index_t b = task / p_.heads, h = task % p_.heads;
      const Head head{a, b, h, reference(a, b, h)};
      each_panel([&](index_t first, index_t rows) { make_terms(head, first, rows, {values[b][h].row(first), 2 * p_.head_dim}); });
    });
    sums_.run(values, mixed, workspace, [&](const kernels::WeightBlock& block) -> kernels::Rows {
      const kernels::Rows biases{w.row(block.first), w.stride(0)};
      std::array<float, kernels::WeightedSum::max_rows> minus_top;
      kernels::row_max(block.rows, block.keys, biases, minus_top.data());
      for (float& x : minus_top) x = -x;
      kernels::exp(block.rows, block.keys, biases, minus_top.data(), block.to);
      return block.to;
    });
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int) {
      const index_t b = task / p_.heads, h = task % p_.heads;
      finish({a, b, h, {}}, 0, p_.q_len, {mixed[b][h].data_handle(), 2 * p_.head_dim});
    });
  }

  Reference reference(const FloatArrays& a, index_t b, index_t h) const {
    const auto k = a.k[b][h];
    const index_t n = p_.causal ? 1 : p_.q_len, channels = o_.form == Form::conv ? 1 : p_.head_dim;
    Reference top;
    std::copy_n(k.data_handle(), channels, top.data());
    kernels::raise_column_max(n, channels, {k.data_handle(), k.stride(0)}, top.data());
    if (o_.form == Form::conv) std::fill_n(top.data(), p_.head_dim, top[0]);
    return top;
  }

  // Row r: e^k_j v_j, then e^k_j, of token j = first + r.
  void make_terms(const Head& head, index_t first, index_t rows, kernels::Into to) const {
    const index_t d = p_.head_dim;
    const auto k = head.a.k[head.b][head.h], v = head.a.v[head.b][head.h];
    const kernels::Into weights{to.data + d, to.stride};
    kernels::Rows keys{k.row(first), k.stride(0)};
    if (o_.form == Form::conv) {
      for (index_t r = 0; r < rows; ++r) std::fill_n(weights.data + r * weights.stride, d, k(first + r, 0));
      keys = weights;
    }
    kernels::exp_minus(rows, d, keys, head.reference.data(), weights);
    kernels::multiply(rows, d, weights, {v.row(first), v.stride(0)}, to);
  }

  // Each row becomes the sum of the rows up to it and of `before`, which moves on.
  void sum_along(index_t rows, float* before, kernels::Into to) const {
    const index_t width = 2 * p_.head_dim;
    for (index_t i = 0; i < rows; ++i)
      kernels::add(1, width, {i == 0 ? before : to.data + (i - 1) * to.stride, to.stride}, {to.data + i * to.stride, to.stride});
    kernels::copy(1, width, {to.data + (rows - 1) * to.stride, to.stride}, {before, width});
  }

  void finish(const Head& head, index_t first, index_t rows, kernels::Into sums) const {
    const index_t d = p_.head_dim;
    const auto q = head.a.q[head.b][head.h];
    const auto o = head.a.out[head.b][head.h];
    const kernels::Into to{o.row(first), o.stride(0)};
    kernels::divide(rows, d, sums, {sums.data + d, sums.stride}, std::numeric_limits<float>::min(), to);
    kernels::sigmoid_gate(rows, d, to, {q.row(first), q.stride(0)}, to);
  }

  template <class T>
  static Tensor<T> bias(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const auto rows = static_cast<index_t>(in.position.size());
    if (o.form == Form::simple) return zeros<T>({rows, p.kv_len});
    const Indices positions({rows}, in.position);
    if (o.form == Form::full) return slice(take(parameters["w"], positions, 0), -1, 0, p.kv_len);
    // Column j - t + window - 1 of the band; outside of it the column of zeros put behind it.
    const index_t taps = 2 * o.window - 1;
    const auto column = [&](index_t t, index_t j) { return std::abs(t - j) < o.window ? j - t + o.window - 1 : taps; };
    const Tensor<T> band = pad(parameters["w"], -1, 0, 1);
    const auto position = [&](index_t row) { return in.position[static_cast<std::size_t>(row)]; };
    if (o.form == Form::local) {
      return take_along(take(band, positions, 0),
                        Indices::from({rows, p.kv_len}, [&](index_t r, index_t j) { return column(position(r), j); }), -1);
    }
    return take_along(
        broadcast_to(unsqueeze(band, 1), {p.heads, rows, taps + 1}),
        Indices::from({p.heads, rows, p.kv_len}, [&](index_t, index_t r, index_t j) { return column(position(r), j); }), -1);
  }

  static Problem doubled(Problem p) { return p.value_dim *= 2, p; }
  bool full() const { return o_.form == Form::full; }
  index_t taps() const { return 2 * o_.window - 1; }
  index_t pairs_size() const { return p_.batch * p_.heads * p_.q_len * 2 * p_.head_dim; }

  Problem p_;
  Options o_;
  Booking<float> values_, mixed_, band_;
  kernels::WeightedSum sums_;
};
ATTN_VARIANT(aft, Aft)

}  // namespace attn
