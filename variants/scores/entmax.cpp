#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "attn/kernels/dense/thresholds.hpp"
#include "attn/kernels/dense/weighted_sum.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// entmax: softmax's sparse relatives: a row's weights are what its logits exceed a threshold by, so that most are exactly zero.
//   out_i = sum_j p_ij v_j,  z_ij = q_i.k_j / sqrt(D);  j <= i when causal
//   alpha=1.5: p_ij = max(z_ij / 2 - t_i, 0)^2;  alpha=2 (sparsemax): p_ij = max(z_ij - t_i, 0);  t_i is such that sum_j p_ij = 1
//   deep-spin/entmax (Peters et al. 2019; sparsemax: Martins and Astudillo 2016)
//   useful flops 2 N M (D + Dv), half when causal, no exps; workspace M D a kv head and some rows of M a worker
struct Entmax {
  enum class Alpha { one_and_half, two };
  struct Options {
    Alpha alpha = Alpha::one_and_half;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>().choice("alpha", &Options::alpha, {{"1.5", Alpha::one_and_half}, {"2", Alpha::two}},
                                         "1.5: squares of what exceeds the threshold; 2: that itself, sparsemax");
  }

  static VariantInfo info() {
    return {.title = "Entmax, sparse weights",
            .formula = "out_i = sum_j max(z_ij / 2 - t_i, 0)^2 v_j, z = q.k / sqrt(D), t_i such that the weights add up to 1",
            .paper = "Peters et al. 2019, deep-spin/entmax",
            .cost_in_n = "N^2 D",
            .exactness = Exactness::different,
            .grouped_heads = true};
  }

  static Cost cost(const Problem& p, const Options&) {
    Cost c = softmax_cost(p, count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1); }));
    c.exps = 0;
    return c;
  }

  // Which logits exceed the threshold is found by sorting; from those it follows, and has a gradient.
  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    const bool squares = o.alpha == Alpha::one_and_half;
    const Tensor<T> z = matmul_transposed(in.q, per_query_head(p, in.k)) * static_cast<T>(squares ? p.scale() / 2 : p.scale());
    const Mask seen = broadcast_to(allowed_pairs(p, in, every_key), z.shape());
    const Mask above = exceeding(z, seen, squares);
    const Tensor<T> count = maximum(sum(where(above, ones<T>(z.shape()), T{0}), -1, Keep::yes), T{1});
    const Tensor<T> mean = sum(where(above, z, T{0}), -1, Keep::yes) / count;
    Tensor<T> weights;
    if (squares) {
      const Tensor<T> spread = sum(where(above, square(z - mean), T{0}), -1, Keep::yes);
      weights = where(above, square(z - mean + sqrt((Tensor<T>(1) - spread) / count)), T{0});
    } else {
      weights = where(above, z - mean + Tensor<T>(1) / count, T{0});
    }
    return matmul(weights, per_query_head(p, in.v));
  }

  Entmax(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        keys_(workspace.shared<float>(p.batch * p.kv_heads * p.head_dim * p.kv_len)),
        engine_(p, kernels::WeightedSum::Kind::weights, kernels::WeightedSum::Sharing::none, workspace) {}

  void run(const FloatArrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    const auto scale = static_cast<float>(p_.scale());
    const auto weigh = o_.alpha == Alpha::two ? kernels::sparsemax : kernels::entmax15;
    const View<float, 4> keys(workspace.shared(keys_).data(), {p_.batch, p_.kv_heads, p_.head_dim, p_.kv_len});
    kernels::transpose_heads(a.k, keys);
    engine_.run(a.v, a.out, workspace, [&](const kernels::WeightBlock& block) -> kernels::Rows {
      const auto q = a.q[block.batch][block.head];
      kernels::gemm(block.rows, block.keys, p_.head_dim, {q.row(block.first), q.stride(0)},
                    {keys[block.batch][p_.kv_head(block.head)].data_handle(), p_.kv_len}, block.to);
      for (index_t i = 0; i < block.rows; ++i) {
        const index_t sees = p_.causal ? std::clamp<index_t>(block.position + i + 1, 0, block.keys) : block.keys;
        const kernels::Into row{block.to.data + i * block.to.stride, block.to.stride};
        if (sees > 0) weigh(1, sees, row, scale, row);
      }
      return block.to;
    });
  }

 private:
  // Of each row's seen numbers those with a positive weight: the k largest, where the threshold of the k largest alone lies below the k-th for
  // the last time.
  template <class T>
  static Mask exceeding(const Tensor<T>& z, const Mask& seen, bool squares) {
    const index_t n = z.extent(-1), rows = z.size() / n;
    Mask above(z.shape());
    std::vector<double> sorted;
    for (index_t row = 0; row < rows; ++row) {
      const T* const x = z.data() + row * n;
      const bool* const sees = seen.data() + row * n;
      sorted.clear();
      for (index_t j = 0; j < n; ++j) {
        if (sees[j] && !std::isnan(x[j])) sorted.push_back(static_cast<double>(x[j]));
      }
      std::sort(sorted.begin(), sorted.end(), std::greater<>());
      const double top = sorted.empty() ? 0 : sorted.front();
      double least = top, sum = 0, square = 0, count = 0;
      for (const double value : sorted) {
        const double own = value - top;
        sum += own, square += own * own, ++count;
        const double mean = sum / count, spread = square - mean * sum;
        if (squares && spread >= 1) break;
        const double threshold = squares ? mean - std::sqrt((1 - spread) / count) : mean - 1 / count;
        if (threshold >= own) break;
        least = value;
      }
      for (index_t j = 0; j < n; ++j) above.writable()[row * n + j] = sees[j] && static_cast<double>(x[j]) >= least;
    }
    return above;
  }

  Problem p_;
  Options o_;
  Booking<float> keys_;
  kernels::WeightedSum engine_;
};
ATTN_VARIANT(entmax, Entmax)

}  // namespace attn
