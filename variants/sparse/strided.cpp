#include "attn/kernels/softmax/attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// strided: the last `stride` keys, and every stride-th key.
//   out_i = softmax attention over A(i) = {|i-j| < stride} u {(i-j) mod stride = 0};  j <= i when causal, which is the paper's form
//   heads=split: even heads see the first set only, odd heads the second
//   Child et al. 2019, arXiv:1904.10509, section 4.2 ("strided attention")
//   useful flops 2 pairs (D + Dv), causal pairs ~ N stride + N^2 / (2 stride), O(N^1.5) at stride = sqrt(N); workspace a number a row
struct Strided {
  using Engine = kernels::Attention;
  static constexpr bool takes_mask = true;
  enum class Heads { both, split };
  struct Options {
    index_t stride = 128;
    Heads heads = Heads::both;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("stride", &Options::stride, 1, unlimited, "length of the window and distance between the columns")
        .choice("heads", &Options::heads, {{"both", Heads::both}, {"split", Heads::split}},
                "both sets in each head, or one set a head");
  }

  static VariantInfo info() {
    return {.title = "Sparse Transformer, strided",
            .formula = "softmax over |i-j| < stride and over (i-j) mod stride = 0",
            .paper = "Child et al. 2019, arXiv:1904.10509, section 4.2",
            .cost_in_n = "N stride D + N^2/stride D",
            .exactness = Exactness::pattern,
            .grouped_heads = true,
            .time_exponent = 2};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const double window = count_pairs(p, [&](index_t i) { return visible_keys(p, i, i - o.stride + 1, i + o.stride - 1); });
    const double columns = count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1, o.stride); });
    const double both = count_pairs(p, [&](index_t i) { return visible_keys(p, i, i, i); });
    const auto heads = static_cast<double>(p.heads);
    const index_t half = p.heads / 2;
    const auto odd = static_cast<double>(half);
    const auto see = [&](index_t head, index_t i, SeenKeys& seen) {
      if (sees_window(o, head)) seen.add(i, i - o.stride + 1, i + o.stride - 1);
      if (sees_columns(o, head)) seen.add(i, 0, p.kv_len - 1, o.stride);
    };
    if (o.heads == Heads::both) return softmax_cost(p, window + columns - both, see);
    return softmax_cost(p, (window * (heads - odd) + columns * odd) / heads, see);
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    return softmax_attention(p, in, [&](index_t head, index_t i, index_t j) {
      return (sees_window(o, head) && std::abs(i - j) < o.stride) || (sees_columns(o, head) && (i - j) % o.stride == 0);
    });
  }

  Strided(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_{std::min(o.stride, std::max(p.q_len, p.kv_len)), o.heads},
        window_(p, {.keys_per_query = p.causal ? o.stride : 2 * o.stride - 1, .heads_apart = heads_apart()}, workspace),
        columns_(p, {.queries = kernels::QueryBlocks::classes(o_.stride), .heads_apart = heads_apart()}, workspace),
        lse_(workspace.shared<float>(p.batch * p.heads * p.q_len)) {}

  // Two passes, because contiguous queries share a window and queries a stride apart share columns. Columns first: what they write
  // lies far apart, and a second pass has to read it again.
  auto window_keys() const {
    return [this](const kernels::QueryBlock& queries, kernels::KeyList& keys) {
      if (sees_window(o_, queries.head)) keys.all().band(o_.stride - 1, o_.stride - 1);
    };
  }
  auto column_keys() const {
    return [this](const kernels::QueryBlock& queries, kernels::KeyList& keys) {
      if (!sees_columns(o_, queries.head)) return;
      kernels::KeyRun& run = keys.strided(floor_mod(queries.position(0), o_.stride), o_.stride, keys.kv_len());
      if (!sees_window(o_, queries.head)) return;
      if (p_.causal)
        run.band(kernels::anywhere, -o_.stride);
      else
        run.outside(o_.stride - 1, o_.stride - 1);
    };
  }
  void run(const Arrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    const View<float, 3> lse(workspace.shared(lse_).data(), {p_.batch, p_.heads, p_.q_len});
    columns_.run({a, lse}, workspace, column_keys());
    window_.run({a, lse, true}, workspace, window_keys());
  }
  void backward(const Arrays& a, const ParameterSet<float>&, const Gradients& g, Workspace& workspace) const {
    const View<float, 3> lse(workspace.shared(lse_).data(), {p_.batch, p_.heads, p_.q_len});
    kernels::EngineGradients gradients{a, g};
    window_.backward({a, lse}, gradients, workspace, window_keys());
    gradients.add = true;
    columns_.backward({a, lse}, gradients, workspace, column_keys());
  }

 private:
  static bool sees_window(const Options& o, index_t head) { return o.heads == Heads::both || head % 2 == 0; }
  static bool sees_columns(const Options& o, index_t head) { return o.heads == Heads::both || head % 2 == 1; }

  bool heads_apart() const { return o_.heads == Heads::split; }

  Problem p_;
  Options o_;
  Engine window_, columns_;
  Booking<float> lse_;
};
ATTN_VARIANT(strided, Strided)

}  // namespace attn
