#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <vector>

#include "attn/kernels/dense/activations.hpp"
#include "attn/kernels/dense/band.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/spectral/causal_convolution.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// long_conv: each channel of a head is convolved with a filter as long as the sequence, between two gates.
//   out_t = q_t * sum_(s <= t) h_(t-s) * (k_s * v_s),  * channel by channel;  gated=no: sum_(s <= t) h_(t-s) * v_s
//   filter=learned: h_u [L, D], zeros from L = length on
//   filter=ema: h_u = sum_(n < order) c_n a_n^u, a = sigmoid(A) and c learned for each channel: exponential moving averages
//   Poli et al. 2023, arXiv:2302.10866 (Hyena of order 2); averages: facebookresearch/mega. The filter's own network lies outside.
//   useful flops 10 N log2(2 N) D, or 2 N^2 D where that is less; workspace N D a head and some N a worker
// Causal only. Blocks of rows meet those after them, so no row has a part in those before it, not even by rounding; that takes log2(N / 128) times
// as many transforms as one of the whole.
struct LongConv {
  enum class Filter { learned, ema };
  struct Options {
    Filter filter = Filter::learned;
    index_t length = 0, order = 4;
    bool gated = true;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .choice("filter", &Options::filter, {{"learned", Filter::learned}, {"ema", Filter::ema}},
                "learned: number by number; ema: a sum of exponentials")
        .integer("length", &Options::length, 0, 65536,
                 "learned: tokens that the filter reaches, the current one included; 0: all")
        .integer("order", &Options::order, 1, 64, "ema: exponentials of a channel")
        .flag("gated", &Options::gated, "no: values alone are convolved, and queries and keys are not read");
  }

  static VariantInfo info() {
    return {.title = "Long convolution",
            .formula = "out_t = q_t * sum_(s <= t) h_(t-s) * (k_s * v_s), channel by channel",
            .paper = "Poli et al. 2023, arXiv:2302.10866",
            .cost_in_n = "N log N D",
            .fine_print = "A NaN or an infinity in one channel shows in the others of its head, from its token on.",
            .exactness = Exactness::different,
            .causality = Causality::always,
            .grouped_heads = true,
            .time_exponent = 1};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    if (o.filter == Filter::learned) {
      const index_t taps = o.length > 0 ? o.length : p.kv_len;
      return {{.name = "h",
               .shape = {p.heads, taps, p.value_dim},
               .init = init::normal(1 / std::sqrt(static_cast<double>(taps))),
               .axes = "heads, length, value_dim",
               .doc = "what a token weighs as many tokens later"}};
    }
    const auto order = static_cast<double>(o.order);
    // Half-lives of the averages from a token to 2^8.
    const auto decays = [](std::span<float> values, const Shape&, const Rng& rng) {
      for (index_t i = 0; i < std::ssize(values); ++i) {
        const double a = std::exp2(-std::exp2(-8 * rng.uniform(i)));
        values[static_cast<std::size_t>(i)] = static_cast<float>(std::log(a / (1 - a)));
      }
    };
    return {{.name = "A",
             .shape = {p.heads, o.order, p.value_dim},
             .init = decays,
             .axes = "heads, order, value_dim",
             .doc = "sigmoid(A) is what is left of a number one token later"},
            {.name = "c",
             .shape = {p.heads, o.order, p.value_dim},
             .init = init::normal(1 / std::sqrt(order)),
             .axes = "heads, order, value_dim",
             .doc = "what each average weighs"}};
  }

  static Status supports(const Problem& p, const Options& o) {
    if (o.gated && p.head_dim != p.value_dim)
      return refuse("gates channel by channel and needs value_dim equal to head_dim, or gated=no");
    return {};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const auto channels = static_cast<double>(p.batch * p.heads * p.value_dim), m = static_cast<double>(p.kv_len);
    const index_t reach = o.filter == Filter::learned && o.length > 0 ? o.length : p.kv_len;
    const double direct = 2 * count_pairs(p, [&](index_t t) { return visible_keys(p, t, t - reach + 1, t); });
    const double transforms = 10 * m * std::log2(2 * m);
    Cost cost{.flops = channels * std::min(direct, transforms), .bytes = tensor_bytes(p)};
    if (o.gated) {
      cost.flops += channels * (m + static_cast<double>(p.q_len));
    } else {
      cost.bytes -= sizeof(float) * static_cast<double>(p.batch * (p.heads * p.q_len + p.kv_heads * p.kv_len) * p.head_dim);
    }
    cost.bytes += sizeof(float) *
                  static_cast<double>(p.heads * p.value_dim * (o.filter == Filter::ema ? 2 * o.order : std::min(reach, p.kv_len)));
    return cost;
  }

  static StateSpec state(const Problem& p, const Options& o) { return kept_tokens(p, o.gated ? Reads::qkv : Reads::xv, p.kv_len); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> h = filter(p, o, parameters), u = per_query_head(p, o.gated ? in.k * in.v : in.v);
    const index_t taps = h.extent(1);
    const Tensor<T> turned = unsqueeze(flip(h, 1), 0);  // row taps - 1 - u is h_u
    std::vector<Tensor<T>> rows;
    for (const index_t t : in.position) {
      const index_t seen = std::min(t + 1, taps);
      rows.push_back(seen <= 0 ? zeros<T>({p.batch, p.heads, 1, p.value_dim})
                               : sum(slice(turned, 2, taps - seen, taps) * slice(u, 2, t + 1 - seen, t + 1), 2, Keep::yes));
    }
    const Tensor<T> y = concat(rows, 2);
    return o.gated ? in.q * y : y;
  }

  LongConv(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p), o_(o), direct_(p.q_len < few_rows && p.q_len < p.kv_len) {
    const index_t reach = o.filter == Filter::learned && o.length > 0 ? std::min(o.length, p.kv_len) : p.kv_len;
    if (makes_rows()) products_ = workspace.shared<float>(rows() * p.value_dim);
    if (o.filter == Filter::ema) taps_ = workspace.shared<float>(p.heads * p.kv_len * p.value_dim);
    if (direct_) return;
    convolution_.emplace(p.kv_len, p.value_dim, reach, workspace);
    if (!p.self_attention()) sums_ = workspace.shared<float>(rows() * p.value_dim);
  }

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    View<const float, 4> u = a.v;
    if (makes_rows()) {
      const View<float, 4> products(workspace.shared(products_).data(), {p_.batch, p_.heads, p_.kv_len, p_.value_dim});
      each_panel(p_.kv_len, [&](index_t b, index_t h, index_t first, index_t rows) {
        const index_t kv_head = p_.kv_head(h);
        const kernels::Rows v = of(a.v, b, kv_head, first);
        const kernels::Into to{products[b][h].row(first), p_.value_dim};
        if (o_.gated)
          kernels::multiply(rows, p_.value_dim, of(a.k, b, kv_head, first), v, to);
        else
          kernels::copy(rows, p_.value_dim, v, to);
      });
      u = products;
    }
    const Taps h = taps(parameters, workspace);
    if (direct_)
      sum_directly(h, u, a.out);
    else
      convolve(h, u, a.out, workspace);
    if (!o_.gated) return;
    each_panel(p_.q_len, [&](index_t b, index_t head, index_t first, index_t rows) {
      const kernels::Into to{a.out[b][head].row(first), a.out.stride(2)};
      kernels::multiply(rows, p_.value_dim, to, of(a.q, b, head, first), to);
    });
  }

 private:
  static constexpr index_t panel = 256;    // rows of a task
  static constexpr index_t few_rows = 64;  // queries up to which their sums are made one by one

  // Of all heads.
  struct Taps {
    const float* data;
    index_t count;
  };

  template <class T>
  static Tensor<T> filter(const Problem& p, const Options& o, const ParameterSet<T>& parameters) {
    if (o.filter == Filter::learned) return parameters["h"];
    const Tensor<T> decay = unsqueeze(-softplus(-parameters["A"]), 1);  // [H,1,order,Dv]: ln of a sigmoid
    const Tensor<T> ages = reshape(arange<T>(p.kv_len), {p.kv_len, 1, 1});
    return sum(unsqueeze(parameters["c"], 1) * exp(decay * ages), 2);
  }

  // The rows that are folded are made: by a gate, or for each of the query heads that share a kv head.
  bool makes_rows() const { return o_.gated || p_.kv_heads != p_.heads; }
  index_t rows() const { return p_.batch * p_.heads * p_.kv_len; }
  static kernels::Rows of(const View<const float, 4>& x, index_t b, index_t h, index_t first) {
    return {x[b][h].row(first), x.stride(2)};
  }
  kernels::Rows of_head(const Taps& h, index_t head) const { return {h.data + head * h.count * p_.value_dim, p_.value_dim}; }

  template <class F>
  void each_panel(index_t count, F f) const {
    const index_t panels = ceil_div(count, panel);
    parallel_tasks(p_.batch * p_.heads * panels, [&](index_t task, int) {
      const index_t first = task % panels * panel, head = task / panels;
      f(head / p_.heads, head % p_.heads, first, std::min(panel, count - first));
    });
  }

  Taps taps(const ParameterSet<float>& parameters, const Workspace& workspace) const {
    if (o_.filter == Filter::learned) return {parameters["h"].data(), parameters["h"].extent(1)};
    const auto decay = parameters.view<3>("A"), weight = parameters.view<3>("c");
    float* const to = workspace.shared(taps_).data();
    const index_t panels = ceil_div(p_.kv_len, panel), width = p_.value_dim;
    parallel_tasks(p_.heads * panels, [&](index_t task, int) {
      const index_t head = task / panels, first = task % panels * panel, count = std::min(panel, p_.kv_len - first);
      float* const own = to + (head * p_.kv_len + first) * width;
      std::fill_n(own, count * width, 0.0f);
      for (index_t n = 0; n < o_.order; ++n) {
        for (index_t c = 0; c < width; ++c) {
          // From each panel's beginning anew, so that products of decays lose nothing.
          const double log_decay = -std::log1p(std::exp(-static_cast<double>(decay(head, n, c)))), kept = std::exp(log_decay);
          double tap = static_cast<double>(weight(head, n, c)) * std::exp(log_decay * static_cast<double>(first));
          for (index_t u = 0; u < count; ++u, tap *= kept) own[u * width + c] += static_cast<float>(tap);
        }
      }
    });
    return {to, p_.kv_len};
  }

  void convolve(const Taps& h, const View<const float, 4>& u, const View<float, 4>& out, const Workspace& workspace) const {
    View<float, 4> y = out;
    if (!p_.self_attention()) y = View<float, 4>(workspace.shared(sums_).data(), {p_.batch, p_.heads, p_.kv_len, p_.value_dim});
    const index_t near = convolution_->near_tasks(), far = convolution_->far_tasks();
    parallel_tasks(p_.batch * p_.heads * near, [&](index_t task, int) {
      const index_t head = task / near % p_.heads, b = task / near / p_.heads;
      convolution_->near(task % near, of_head(h, head), of(u, b, head, 0), {y[b][head].row(0), y.stride(2)});
    });
    parallel_tasks(p_.heads * far, [&](index_t task, int worker) {
      convolution_->far(task % far, task / far, of_head(h, task / far), u, y, workspace, worker);
    });
    if (p_.self_attention()) return;
    each_panel(p_.q_len, [&](index_t b, index_t head, index_t first, index_t count) {
      for (index_t i = first; i < first + count; ++i) {
        const index_t t = p_.query_position(i);
        if (t < 0)
          std::fill_n(out[b][head].row(i), p_.value_dim, 0.0f);
        else
          std::copy_n(y[b][head].row(t), p_.value_dim, out[b][head].row(i));
      }
    });
  }

  void sum_directly(const Taps& h, const View<const float, 4>& u, const View<float, 4>& out) const {
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int) {
      const index_t head = task % p_.heads, b = task / p_.heads, taps = std::min(h.count, p_.kv_len);
      const kernels::Rows own = of_head(h, head);
      kernels::depthwise(p_.q_len, p_.value_dim, {own.data + (taps - 1) * own.stride, -own.stride}, taps, p_.query_position(0),
                         taps - 1, {of(u, b, head, 0), p_.kv_len}, false, {out[b][head].row(0), out.stride(2)});
    });
  }

  Problem p_;
  Options o_;
  bool direct_;
  std::optional<kernels::CausalConvolution> convolution_;
  Booking<float> products_, taps_, sums_;
};
ATTN_VARIANT(long_conv, LongConv)

}  // namespace attn
