#include <algorithm>
#include <span>

#include "attn/variant/variant.hpp"

namespace attn {

// uniform_window: the mean of the values within `left` and `right` of the query, a window whose logits are all equal.
//   out_i = mean_j v_j,  i-left <= j <= i+right; zeros where no key is there
//   useful flops 2 M Dv: the sum slides, each value enters and leaves it once; workspace Dv doubles a worker
struct UniformWindow {
  struct Options {
    index_t left = 64, right = 64;
  };

  static OptionTable<Options> options() {
    OptionTable<Options> table;
    table.integer("left", &Options::left, 0, unlimited, "keys before the query");
    table.integer("right", &Options::right, 0, unlimited, "keys after the query");
    return table;
  }

  static VariantInfo info() {
    return {.title = "Uniform window",
            .formula = "out_i = mean of v_j, i-left <= j <= i+right",
            .paper = "baseline",
            .cost_in_n = "N D",
            .exactness = Exactness::different,
            .time_exponent = 1};
  }

  static Cost cost(const Problem& p, const Options&) {
    const auto values = static_cast<double>(p.batch * p.heads * p.kv_len * p.value_dim);
    const auto outputs = static_cast<double>(p.batch * p.heads * p.q_len * p.value_dim);
    return {.flops = 2 * values, .bytes = sizeof(float) * (values + outputs), .exps = 0};
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    const Mask window = allowed_pairs(p, in, [&](index_t i, index_t j) { return i - j <= o.left && j - i <= o.right; });
    return matmul(softmax(zeros<T>(window.shape()), window), in.v);
  }

  UniformWindow(const Problem& p, const Options& o, WorkspacePlan& plan)
      : p_(p), o_(o), sums_(plan.per_worker<double>(p.value_dim)) {}

  void run(const FloatArrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int worker) {
      const index_t b = task / p_.heads;
      const index_t h = task % p_.heads;
      slide(a.v[b][h], a.out[b][h], workspace.of(worker, sums_));
    });
  }

 private:
  void slide(const View<const float, 2>& v, const View<float, 2>& out, std::span<double> sum) const {
    std::fill(sum.begin(), sum.end(), 0.0);
    index_t begin = 0;  // the sum holds keys begin..end-1
    index_t end = 0;
    for (index_t row = 0; row < p_.q_len; ++row) {
      const index_t i = p_.query_position(row);
      const index_t last = std::min(p_.kv_len - 1, p_.causal ? i : i + o_.right);
      const index_t first = i - o_.left;
      while (end <= last) add(v.row(end++), 1.0, sum);
      while (begin < std::min(first, end)) add(v.row(begin++), -1.0, sum);
      const index_t keys = end - begin;
      float* to = out.row(row);
      for (std::size_t d = 0; d < sum.size(); ++d)
        to[d] = keys == 0 ? 0.0f : static_cast<float>(sum[d] / static_cast<double>(keys));
    }
  }

  static void add(const float* values, double sign, std::span<double> sum) {
    for (std::size_t d = 0; d < sum.size(); ++d) sum[d] += sign * static_cast<double>(values[d]);
  }

  Problem p_;
  Options o_;
  Booking<double> sums_;
};

ATTN_VARIANT(uniform_window, UniformWindow)

}  // namespace attn
