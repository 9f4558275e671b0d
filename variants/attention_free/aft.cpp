#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "attn/kernels/dense/activations.hpp"
#include "attn/kernels/dense/band.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/dense/weighted_sum.hpp"
#include "attn/kernels/linear/exp_mean.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// aft: the attention free transformer: each channel is a mean of values by e^(key + learned bias), gated by the query.
//   out_t = sigmoid(q_t) * sum_j e^(k_j + w_tj) v_j / sum_j e^(k_j + w_tj);  j <= t when causal
//   Zhai et al. 2021, arXiv:2105.14103, sections 3.1 (full), 3.2 (simple, local, conv)
//   form=full: w [L,L], shared by all channels. simple: w = 0. local: w_tj = 0 where |t-j| >= window, but those keys still count.
//   conv: w depends on t - j and on the head, and the head's key is one number: here its first channel.
//   useful flops a head: full 4 N^2 D (half when causal); otherwise 5 N D and 4 N (2 window - 1) D
//   workspace: full 4 N D a head; local and conv 2 N D a worker; simple none that grows with N
// local, conv: sums of e^k before the window and behind it, and e^w within: nothing is taken out of a sum of everything. Exponents are
// relative to the largest key of a channel or, when causal, where that may come later, to the first, until a key exceeds it by 8. What
// floats cannot hold all the same, such as e^w of 88, or w and k that differ by 40 each, is computed pair by pair.
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
            .fine_print =
                "A key outside of the window has bias 0 and counts all the same. form=conv takes channel 0 of a "
                "head's key for all of its channels.",
            .exactness = Exactness::different,
            .cross = false,
            .grouped_heads = true};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    const index_t l = o.max_len == 0 ? p.kv_len : o.max_len, band = 2 * o.window - 1;
    const auto bias = [](Shape shape, const char* axes, const char* doc) {
      return Parameters{{.name = "w", .shape = std::move(shape), .init = init::normal(0.01), .axes = axes, .doc = doc}};
    };
    switch (o.form) {
      case Form::full: return bias({l, l}, "L, L", "w[t, j], added to the key of token j for the output of token t, in every head");
      case Form::simple: return {};
      case Form::local: return bias({l, band}, "L, 2 window - 1", "w[t, j - t + window - 1], in every head");
      case Form::conv: return bias({p.heads, band}, "heads, 2 window - 1", "w[head, j - t + window - 1]");
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

  // Keys and values where any bias may come to them, of the last `window` tokens where it may come to these; sums of the others.
  static StateSpec state(const Problem& p, const Options& o) {
    if (o.form == Form::full) return kept_keys(p, p.kv_len);
    return kernels::ExpMean::state(p, near(o));
  }

  // As a quotient of products, for all rows at once, where no exponential of a part ends before the whole does.
  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> biases = bias(p, o, in, parameters);  // [rows,N] or, for conv, [H,rows,N]
    const Tensor<T> k = per_query_head(p, in.k), v = per_query_head(p, in.v);
    const Tensor<T> keys = o.form == Form::conv ? broadcast_to(slice(k, -1, 0, 1), k.shape()) : k;
    const Mask allowed = allowed_pairs(p, in, every_key);
    if (spread(biases) + spread(keys) < -0.9 * std::log(static_cast<double>(std::numeric_limits<T>::min()))) {
      const Tensor<T> by_bias = where(allowed, exp(biases - max(biases, -1, Keep::yes)), T{0});
      const Tensor<T> by_key = exp(keys - max(keys, 2, Keep::yes));
      return attn::sigmoid(in.q) * matmul(by_bias, by_key * v) / matmul(by_bias, by_key);
    }
    const Tensor<T> across = transpose(keys), values = transpose(v);  // [B,H,D,N]
    std::vector<Tensor<T>> means;
    for (index_t row = 0; row < in.q.extent(2); ++row) {
      const Mask seen = mask({1, p.kv_len}, [&](index_t, index_t j) { return allowed(row, j); });
      const Tensor<T> weights = softmax(across + slice(biases, -2, row, row + 1), seen);
      means.push_back(sum(weights * values, -1, Keep::yes));
    }
    return attn::sigmoid(in.q) * transpose(concat(means, -1));
  }

  Aft(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        values_(full()                   ? workspace.shared<float>(pairs_size())
                : o.form == Form::simple ? Booking<float>{}
                                         : workspace.per_worker<float>(p.q_len * width())),
        mixed_(full() ? workspace.shared<float>(pairs_size()) : workspace.per_worker<float>((panel + 3) * width())),
        after_(full() || p.causal || o.form == Form::simple ? Booking<float>{} : workspace.per_worker<float>(panels() * width())),
        band_(workspace.shared<float>(band_rows() * taps())),
        heaviest_(workspace.shared<float>((band_rows() + rows_together() - 1) / rows_together())),
        sums_(doubled(p), kernels::WeightedSum::Kind::weights, kernels::WeightedSum::Sharing::all, workspace),
        steps_(p, near(o), o.form == Form::conv, workspace) {}

  void absorb(const FloatArrays& tokens, const ParameterSet<float>&, const State& state, Workspace& workspace) const {
    if (!full()) return steps_.absorb(tokens, state, workspace);
    keep_rows(tokens.k, state, "k");
    keep_rows(tokens.v, state, "v");
  }
  void answer(const FloatArrays& queries, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    const index_t t = state.end() - 1, d = p_.head_dim;
    const float* const w = o_.form == Form::simple ? nullptr : parameters["w"].data();
    if (!full()) {
      steps_.answer(state, queries.out, workspace,
                    [&](index_t h) { return w != nullptr ? w + (o_.form == Form::local ? t : h) * taps() : nullptr; });
    }
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int) {
      const index_t b = task / p_.heads, h = task % p_.heads, kv_head = p_.kv_head(h);
      const float* const q = queries.q[b][h].row(0);
      float* const to = queries.out[b][h].row(0);
      if (!full()) return kernels::sigmoid_gate(1, d, {to, d}, {q, d}, {to, d});
      mean_by_pairs(t, w, h, {state["k"].f32()[b][kv_head].row(0), d}, {state["v"].f32()[b][kv_head].row(0), d}, q, to);
    });
  }

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const float* w = o_.form == Form::simple ? nullptr : parameters["w"].data();
    if (full()) return run_full(a, parameters.view<2>("w"), workspace);
    if (w != nullptr) weigh(w, workspace);
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int worker) {
      Head head{a, w, task / p_.heads, task % p_.heads, {}};
      float* own = workspace.of(worker, mixed_).data();
      const Sums sums{own, own + width(), own + 2 * width(), {own + 3 * width(), width()}};
      std::fill_n(own, 2 * width(), 0.0f);
      head.reference = p_.causal ? column_max(head, 0, 1) : column_max(head, 0, p_.q_len);
      if (o_.form == Form::simple) return run_simple(head, sums);
      const Band band = band_of(head, workspace);
      const kernels::Into terms{workspace.of(worker, values_).data(), width()};
      if (p_.causal) return run_causal_band(head, band, terms, sums);
      run_band(head, band, terms, sums, {workspace.of(worker, after_).data(), width()});
    });
  }

 private:
  static constexpr index_t panel = 32;  // rows: with 64 the windows and sums of a panel leave L1, 2 % at window=32
  static constexpr float margin = 8;    // of a key above its reference: e^8 costs its exponent 3 bits of rounding
  static constexpr float least = 0x1p-60f, most = 0x1p60f;  // of a sum of weights whose terms floats have held
  using Reference = std::array<float, 256>;                 // of a head's channels

  struct Head {
    const FloatArrays& a;
    const float* w;
    index_t b, h;
    Reference reference;
  };

  // Of a worker: the sum of the terms before those at hand, what it has no digits for, the sum of those at hand; a panel of rows.
  struct Sums {
    float *before, *rest, *total;
    kernels::Into own;
  };

  // e^w: local: a row for each token; conv: stride 0. Of the rows of each panel, or of the head, the largest, but 1 at least.
  struct Band {
    kernels::Rows weights;
    const float* heaviest;
    index_t step;  // to the next panel's
  };

  index_t band_rows() const { return o_.form == Form::local ? p_.q_len : o_.form == Form::conv ? p_.heads : 0; }
  index_t rows_together() const { return o_.form == Form::local ? panel : 1; }

  void weigh(const float* w, const Workspace& workspace) const {
    parallel_tasks((band_rows() + rows_together() - 1) / rows_together(), [&](index_t task, int) {
      const index_t first = task * rows_together(), rows = std::min(rows_together(), band_rows() - first);
      float* to = workspace.shared(band_).data() + first * taps();
      float& heaviest = workspace.shared(heaviest_)[static_cast<std::size_t>(task)];
      kernels::exp(1, rows * taps(), {w + first * taps(), 0}, {to, 0});
      kernels::row_max(1, rows * taps(), {to, 0}, &heaviest);
      heaviest = std::max(heaviest, 1.0f);
    });
  }

  Band band_of(const Head& head, const Workspace& workspace) const {
    const float *weights = workspace.shared(band_).data(), *heaviest = workspace.shared(heaviest_).data();
    if (o_.form == Form::local) return {{weights, taps()}, heaviest, 1};
    return {{weights + head.h * taps(), 0}, heaviest + head.h, 0};
  }

  template <class F>
  void each_panel(F f) const {
    for (index_t first = 0; first < p_.q_len; first += panel) f(first, std::min(panel, p_.q_len - first));
  }

  // Calls use(first, rows) for parts of a panel whose keys exceed the reference by `margin` at most. A key that exceeds it by more
  // becomes the reference of its channel when its own row comes, alone: rows before do not see it, and keep their bits. raise(factor)
  // is called before, with what the terms so far have to be multiplied by.
  template <class Raise, class Use>
  void advance(Head& head, index_t first, index_t rows, Raise raise, Use use) const {
    for (const index_t end = first + rows; first < end;) {
      const index_t higher = first_exceeding(head, first, end);
      if (higher > first) use(first, higher - first);
      if (higher < end) {
        std::array<float, 512> factor;
        follow(head, higher, factor.data());
        raise(factor.data());
        use(higher, 1);
      }
      first = higher + 1;
    }
  }

  // The first of some rows with a key more than `margin` above its reference, or `end`.
  index_t first_exceeding(const Head& head, index_t first, index_t end) const {
    const Reference top = column_max(head, first, end - first);
    const auto exceeds = [&](const float* key, std::size_t step) {
      bool any = false;
      for (std::size_t c = 0; c < static_cast<std::size_t>(p_.head_dim); ++c) any |= key[c * step] > head.reference[c] + margin;
      return any;
    };
    if (!exceeds(top.data(), 1)) return end;
    const auto k = head.a.k[head.b][p_.kv_head(head.h)];
    while (first < end && !exceeds(k.row(first), o_.form == Form::conv ? 0 : 1)) ++first;
    return first;
  }

  // Makes keys of row t that exceed their references by more than `margin` references; of each channel, twice over, e^(before - now).
  void follow(Head& head, index_t t, float* factor) const {
    const auto d = static_cast<std::size_t>(p_.head_dim);
    const Reference top = column_max(head, t, 1);
    for (std::size_t c = 0; c < d; ++c) {
      const bool exceeds = top[c] > head.reference[c] + margin;
      factor[c] = factor[d + c] = exceeds ? std::exp(std::exchange(head.reference[c], top[c]) - top[c]) : 1.0f;
    }
  }

  void scale_sums(const Sums& sums, const float* factor) const {
    kernels::scale_columns(2, width(), {sums.before, width()}, factor, {sums.before, width()});  // and the rest
  }

  // A panel of terms at a time, in `own`: nothing of the length of the sequence is written but the output.
  void run_simple(Head& head, const Sums& sums) const {
    const index_t d = p_.head_dim;
    if (p_.causal) {
      return each_panel([&](index_t panel_first, index_t panel_rows) {
        advance(
            head, panel_first, panel_rows, [&](const float* factor) { scale_sums(sums, factor); },
            [&](index_t first, index_t rows) {
              make_terms(head, first, rows, sums.own);
              sum_along(rows, sums.own, sums, sums.own);
              finish(head, first, rows, sums.own);
            });
      });
    }
    each_panel([&](index_t first, index_t rows) {
      make_terms(head, first, rows, sums.own);
      add_rows(rows, sums.own, sums);
    });
    kernels::divide(1, d, {sums.before, d}, {sums.before + d, d}, std::numeric_limits<float>::min(), {sums.before, d});
    const auto q = head.a.q[head.b][head.h];
    const auto o = head.a.out[head.b][head.h];
    each_panel([&](index_t first, index_t rows) {
      const kernels::Into to{o.row(first), o.stride(0)};
      kernels::sigmoid(rows, d, {q.row(first), q.stride(0)}, 1, 0, to);
      kernels::scale_columns(rows, d, to, sums.before, to);
    });
  }

  void run_causal_band(Head& head, const Band& band, kernels::Into terms, const Sums& sums) const {
    each_panel([&](index_t panel_first, index_t panel_rows) {
      index_t done = panel_first;
      advance(
          head, panel_first, panel_rows,
          [&](const float* factor) {
            scale_sums(sums, factor);
            const index_t near = std::min(done, o_.window);  // terms that are still to be read
            const kernels::Into rows{terms.data + (done - near) * terms.stride, terms.stride};
            kernels::scale_columns(near, width(), rows, factor, rows);
          },
          [&](index_t first, index_t rows) {
            make_terms(head, first, rows, {terms.data + first * terms.stride, terms.stride});
            sum_before_window(first, rows, terms, sums);
            kernels::band(rows, width(), {band.weights.data + first * band.weights.stride, band.weights.stride}, o_.window, first,
                          o_.window - 1, {terms, p_.q_len}, true, sums.own);
            finish(head, first, rows, sums.own, band.heaviest[first / panel * band.step]);
            done = first + rows;
          });
    });
  }

  void run_band(const Head& head, const Band& band, kernels::Into terms, const Sums& sums, kernels::Into after) const {
    each_panel([&](index_t first, index_t rows) {
      make_terms(head, first, rows, {terms.data + first * terms.stride, terms.stride});
    });
    // Row p of `after`: the sum of what the window of the last token of panel p has not reached.
    for (index_t p = panels() - 1; p >= 0; --p) {
      const index_t next = std::min((p + 1) * panel + o_.window, p_.q_len);
      const index_t end = p + 1 < panels() ? std::min(next + panel, p_.q_len) : p_.q_len;
      add_rows(end - next, {terms.data + next * terms.stride, terms.stride}, sums);
      kernels::copy(1, width(), {sums.before, width()}, {after.data + p * width(), width()});
    }
    std::fill_n(sums.before, 2 * width(), 0.0f);
    each_panel([&](index_t first, index_t rows) {
      sum_before_window(first, rows, terms, sums);
      // From the last row back.
      const index_t count = std::clamp<index_t>(p_.q_len - o_.window - first, 0, rows);
      if (count > 0) {
        kernels::running_sums(count, width(), {terms.data + (first + count - 1 + o_.window) * terms.stride, -terms.stride},
                              after.data + first / panel * width(), true, {sums.own.data + (count - 1) * width(), -width()},
                              sums.total);
      }
      kernels::band(rows, width(), {band.weights.data + first * band.weights.stride, band.weights.stride}, taps(), first,
                    o_.window - 1, {terms, p_.q_len}, true, sums.own);
      finish(head, first, rows, sums.own, band.heaviest[first / panel * band.step]);
    });
  }

  void run_full(const FloatArrays& a, View<const float, 2> w, Workspace& workspace) const {
    const View<float, 4> values(workspace.shared(values_).data(), {p_.batch, p_.heads, p_.q_len, width()});
    const View<float, 4> mixed(workspace.shared(mixed_).data(), {p_.batch, p_.heads, p_.q_len, width()});
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int) {
      Head head{a, nullptr, task / p_.heads, task % p_.heads, {}};
      head.reference = column_max(head, 0, p_.q_len);
      if (p_.causal) {
        // Later keys have a say, in the rounding of earlier rows, only where they exceed the first one by so much.
        constexpr float far = 30;
        const Reference first = column_max(head, 0, 1);
        for (std::size_t c = 0; c < first.size(); ++c) head.reference[c] = std::max(first[c], head.reference[c] - far);
      }
      each_panel([&](index_t first, index_t rows) { make_terms(head, first, rows, {values[head.b][head.h].row(first), width()}); });
    });
    sums_.run(values, mixed, workspace, [&](const kernels::WeightBlock& block) -> kernels::Rows {
      const kernels::Rows biases{w.row(block.first), w.stride(0)};
      std::array<float, kernels::WeightedSum::max_rows> minus_top;
      for (index_t i = 0; i < block.rows; ++i) {
        float top;
        kernels::row_max(1, p_.causal ? block.position + i + 1 : block.keys, {biases.data + i * biases.stride, biases.stride},
                         &top);
        minus_top[static_cast<std::size_t>(i)] = -top;
      }
      kernels::exp(block.rows, block.keys, biases, minus_top.data(), block.to);
      return block.to;
    });
    parallel_tasks(p_.batch * p_.heads * panels(), [&](index_t task, int) {
      const index_t head = task / panels(), first = task % panels() * panel, b = head / p_.heads, h = head % p_.heads;
      finish({a, w.data_handle(), b, h, {}}, first, std::min(panel, p_.q_len - first), {mixed[b][h].row(first), width()});
    });
  }

  // Of some rows' keys, for each channel.
  Reference column_max(const Head& head, index_t first, index_t rows) const {
    const auto k = head.a.k[head.b][p_.kv_head(head.h)];
    const index_t channels = o_.form == Form::conv ? 1 : p_.head_dim;
    Reference top;
    std::copy_n(k.row(first), channels, top.data());
    kernels::raise_column_max(rows - 1, channels, {k.row(first) + k.stride(0), k.stride(0)}, top.data());
    if (o_.form == Form::conv) std::fill_n(top.data(), p_.head_dim, top[0]);
    return top;
  }

  // Row r: e^k_j v_j, then e^k_j, of token j = first + r.
  void make_terms(const Head& head, index_t first, index_t rows, kernels::Into to) const {
    const index_t d = p_.head_dim;
    const index_t kv_head = p_.kv_head(head.h);
    const auto k = head.a.k[head.b][kv_head], v = head.a.v[head.b][kv_head];
    const kernels::Into weights{to.data + d, to.stride};
    kernels::Rows keys{k.row(first), k.stride(0)};
    if (o_.form == Form::conv) {
      for (index_t r = 0; r < rows; ++r) std::fill_n(weights.data + r * weights.stride, d, k(first + r, 0));
      keys = weights;
    }
    kernels::exp_minus(rows, d, keys, head.reference.data(), weights);
    kernels::multiply(rows, d, weights, {v.row(first), v.stride(0)}, to);
  }

  // Row i of `to`: the sum of the terms so far, with rows 0..i of `terms`.
  void sum_along(index_t rows, kernels::Rows terms, const Sums& sums, kernels::Into to) const {
    kernels::running_sums(rows, width(), terms, sums.before, false, to, sums.total);
    kernels::add_exactly(width(), sums.total, sums.before, sums.rest);
  }
  void add_rows(index_t rows, kernels::Rows terms, const Sums& sums) const {
    std::fill_n(sums.total, width(), 0.0f);
    kernels::add_column_sums(rows, width(), terms, sums.total);
    kernels::add_exactly(width(), sums.total, sums.before, sums.rest);
  }
  // Into `own`: of each token the sum of the terms before its window.
  void sum_before_window(index_t first, index_t rows, kernels::Rows terms, const Sums& sums) const {
    const index_t none = std::clamp<index_t>(o_.window - first, 0, rows);
    std::fill_n(sums.own.data, none * width(), 0.0f);
    if (none < rows) {
      sum_along(rows - none, {terms.data + (first + none - o_.window) * terms.stride, terms.stride}, sums,
                {sums.own.data + none * width(), width()});
    }
  }

  // `heaviest`: of the weights by which terms of 1 and less came into the sums; floats have lost terms below 2^-126 of it.
  void finish(const Head& head, index_t first, index_t rows, kernels::Rows sums, float heaviest = 1) const {
    const auto q = head.a.q[head.b][head.h];
    const auto o = head.a.out[head.b][head.h];
    const auto quotient = [&](index_t row, index_t count) {
      const float* own = sums.data + (row - first) * sums.stride;
      return kernels::gated_quotient(count, p_.head_dim, {own, sums.stride}, {own + p_.head_dim, sums.stride},
                                     {q.row(row), q.stride(0)}, std::min(least * heaviest, most), most, {o.row(row), o.stride(0)});
    };
    if (quotient(first, rows)) return;
    for (index_t row = first; row < first + rows; ++row) {
      if (!quotient(row, 1)) by_pairs(head, row);
    }
  }

  // A row of the output from exponents of k + w, in their own time.
  void by_pairs(const Head& head, index_t t) const {
    const index_t kv_head = p_.kv_head(head.h);
    const auto q = head.a.q[head.b][head.h], k = head.a.k[head.b][kv_head], v = head.a.v[head.b][kv_head];
    mean_by_pairs(t, head.w, head.h, {k.row(0), k.stride(0)}, {v.row(0), v.stride(0)}, q.row(t), head.a.out[head.b][head.h].row(t));
  }
  void mean_by_pairs(index_t t, const float* w, index_t h, kernels::Rows k, kernels::Rows v, const float* q, float* to) const {
    const index_t d = p_.head_dim;
    kernels::BiasedKeys keys{k, o_.form == Form::conv, nullptr, 0, 0};
    switch (o_.form) {
      case Form::full: keys.bias = w + t * learned(), keys.biases = p_.kv_len; break;
      case Form::simple: break;
      case Form::local: keys.bias = w + t * taps(), keys.first = t - o_.window + 1, keys.biases = taps(); break;
      case Form::conv: keys.bias = w + h * taps(), keys.first = t - o_.window + 1, keys.biases = taps(); break;
    }
    kernels::mean_by_exp(p_.causal ? t + 1 : p_.kv_len, d, keys, v, to);
    kernels::sigmoid_gate(1, d, {to, d}, {q, d}, {to, d});
  }

  template <class T>
  static double spread(const Tensor<T>& x) {
    const auto [low, high] = std::minmax_element(x.values().begin(), x.values().end());
    return static_cast<double>(*high) - static_cast<double>(*low);
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

  static Problem doubled(Problem p) { return p.value_dim *= 2, p.kv_heads = p.heads, p; }
  // Tokens that a bias may come to, up to a query's own; form=full: all.
  static index_t near(const Options& o) { return o.form == Form::local || o.form == Form::conv ? o.window : 0; }
  bool full() const { return o_.form == Form::full; }
  index_t taps() const { return 2 * o_.window - 1; }
  index_t learned() const { return o_.max_len == 0 ? p_.kv_len : o_.max_len; }
  index_t width() const { return 2 * p_.head_dim; }
  index_t panels() const { return (p_.q_len + panel - 1) / panel; }
  index_t pairs_size() const { return p_.batch * p_.heads * p_.q_len * width(); }

  Problem p_;
  Options o_;
  Booking<float> values_, mixed_, after_, band_, heaviest_;
  kernels::WeightedSum sums_;
  kernels::ExpMean steps_;
};
ATTN_VARIANT(aft, Aft)

}  // namespace attn
