#include <cmath>
#include <vector>

#include "attn/kernels/softmax/scored.hpp"
#include "attn/variant/variant.hpp"
#include "attn/variant/windowed.hpp"

namespace attn {

// alibi: softmax attention whose logits fall with the distance, over all keys or, with `window`, the nearest.
//   out_i = sum_j softmax_j(q_i.k_j / sqrt(D) - m_h |i - j|) v_j,  m_h = 2^(-8(h+1)/H) for head h;  |i - j| < window;  j <= i when causal
//   Press et al. 2021, arXiv:2108.12409, section 3; there H is a power of two, and other numbers of heads borrow slopes of the next one
//   useful flops 2 pairs (D + Dv); the softmax engine's workspace, N + M doubles a head, and where keys lie on both sides a number a row
struct Alibi {
  using Engine = kernels::ScoredAttention;
  struct Options {
    index_t window = 0;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>().integer("window", &Options::window, 0, unlimited, window_doc).budget();
  }

  static VariantInfo info() {
    return {.title = "Attention with linear biases",
            .formula = "out_i = sum_j softmax_j(q_i.k_j / sqrt(D) - m_h |i - j|) v_j, m_h = 2^(-8(h+1)/H)",
            .paper = "Press et al. 2021, arXiv:2108.12409, section 3",
            .cost_in_n = "N^2 D",
            .exactness = Exactness::different,
            .grouped_heads = true};
  }

  static Cost cost(const Problem& p, const Options& o) { return windowed_cost(p, o.window); }
  static StateSpec state(const Problem& p, const Options& o) { return windowed_state(p, o.window); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    const Tensor<T> bias = tabulate<T>({p.heads, std::ssize(in.position), p.kv_len}, [&](index_t h, index_t row, index_t j) {
      return -slope(p, h) * static_cast<double>(std::abs(in.position[static_cast<std::size_t>(row)] - j));
    });
    const Tensor<T> logits = matmul_transposed(in.q, per_query_head(p, in.k)) * static_cast<T>(p.scale()) + bias;
    const Mask seen = allowed_pairs(p, in, [&](index_t i, index_t j) { return within_window(o.window, i, j); });
    return matmul(softmax(logits, seen), per_query_head(p, in.v));
  }

  Alibi(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        reach_(reach_of(o.window)),
        engine_(p, {.keys_per_query = o.window > 0 ? 2 * reach_ + 1 : kernels::anywhere, .biased = true}, workspace),
        lse_(workspace.shared<float>(p.causal ? 0 : p.batch * p.heads * p.q_len)),
        falling_(potential(p, -1)),
        rising_(p.causal ? std::vector<double>{} : potential(p, 1)) {}

  // Keys up to the query, then those after it: to each side the bias is a number of the query less one of the key.
  void run(const Arrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    const auto side = [&](const std::vector<double>& potential, bool resume, index_t left, index_t right) {
      kernels::EngineArrays arrays(a, lse(workspace), resume);
      arrays.potential = {potential.data(), {p_.batch, p_.heads, p_.q_len + p_.kv_len}, {0, p_.q_len + p_.kv_len, 1}};
      engine_.run(arrays, workspace, [=](const kernels::QueryBlock&, kernels::KeyList& keys) { keys.all().band(left, right); });
    };
    side(falling_, false, reach_, 0);
    if (!p_.causal) side(rising_, true, -1, reach_);
  }

 private:
  static double slope(const Problem& p, index_t head) {
    return std::exp2(-8.0 * static_cast<double>(head + 1) / static_cast<double>(p.heads));
  }
  // sign m_h x for each head and the positions x from -q_len on: no query stands before that.
  static std::vector<double> potential(const Problem& p, double sign) {
    std::vector<double> all;
    for (index_t h = 0; h < p.heads; ++h) {
      for (index_t x = -p.q_len; x < p.kv_len; ++x) all.push_back(sign * slope(p, h) * static_cast<double>(x));
    }
    return all;
  }
  View<float, 3> lse(const Workspace& workspace) const {
    if (p_.causal) return {};
    return {workspace.shared(lse_).data(), {p_.batch, p_.heads, p_.q_len}};
  }

  Problem p_;
  index_t reach_;
  Engine engine_;
  Booking<float> lse_;
  std::vector<double> falling_, rising_;
};
ATTN_VARIANT(alibi, Alibi)

}  // namespace attn
