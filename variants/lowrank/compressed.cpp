#include <algorithm>
#include <vector>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/softmax/attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// compressed: softmax attention to keys and values that a strided convolution, or a mean, has made of r tokens each.
//   out = softmax(Q K'^T / sqrt(D)) V',  k'_b = sum_t k_(rb+t) W_t,  v' likewise, b < ceil(M / r)
//   conv: W [r, D, D] for each head, zeros beyond the end;  mean: k'_b is the mean of the tokens that there are
//   causal: query i sees block b if its last token is at most i, and besides one learned null key and value, since the first
//   r - 1 queries see no block (mesh-tensorflow's rule with a null key)
//   Liu et al. 2018, arXiv:1801.10198, section 4.2.3
//   useful flops 2 N M (D + Dv) / r, half when causal, and 2 M (D^2 + Dv^2); workspace M (D + Dv) / r a head
//   r = 1 with W = I is full attention.
struct Compressed {
  enum class By { conv, mean };
  struct Options {
    index_t r = 4;
    By by = By::conv;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("r", &Options::r, 1, 4096, "tokens of a block")
        .choice("by", &Options::by, {{"conv", By::conv}, {"mean", By::mean}}, "what makes one key and value of a block");
  }

  static VariantInfo info() {
    return {.title = "Memory-compressed attention",
            .formula = "out = softmax(Q K'^T / sqrt(D)) V', K' and V' strided convolutions of K and V",
            .paper = "Liu et al. 2018, arXiv:1801.10198, section 4.2.3",
            .cost_in_n = "N^2 D / r",
            .fine_print =
                "Tokens beyond the end count as zeros for by=conv, not for by=mean. When causal a query sees "
                "the blocks that end with it or before, and a learned null key besides.",
            .exactness = Exactness::fitted,
            .grouped_heads = true};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    Parameters list;
    const auto weights = [&](const char* name, index_t d, const std::string& dim) {
      list.push_back({.name = name,
                      .shape = {p.kv_heads, o.r * d, d},
                      .init = init::xavier_uniform(o.r * d, o.r * d),
                      .axes = "kv_heads, r " + dim + ", " + dim,
                      .doc = "the tokens of a block side by side, the first one first, times it"});
    };
    if (o.by == By::conv) weights("W_k", p.head_dim, "head_dim"), weights("W_v", p.value_dim, "value_dim");
    if (p.causal) {
      list.push_back({.name = "null_k",
                      .shape = {p.kv_heads, 1, p.head_dim},
                      .init = init::zeros(),
                      .axes = "kv_heads, 1, head_dim",
                      .doc = "a key that every query sees"});
      list.push_back({.name = "null_v",
                      .shape = {p.kv_heads, 1, p.value_dim},
                      .init = init::zeros(),
                      .axes = "kv_heads, 1, value_dim",
                      .doc = "its value"});
    }
    return list;
  }

  static Cost cost(const Problem& p, const Options& o) {
    const bool steps = p.pass == Pass::decode;
    const auto heads = static_cast<double>(p.batch * p.heads), kv_heads = static_cast<double>(p.batch * p.kv_heads);
    const auto d = static_cast<double>(p.head_dim), dv = static_cast<double>(p.value_dim);
    const auto tokens = static_cast<double>(steps ? p.q_len : p.kv_len);  // that are folded into blocks
    double pairs = 0;
    for (index_t i = 0; i < p.q_len; ++i) pairs += static_cast<double>(visible(p, o, i));
    const double conv = o.by == By::conv ? 2 * (d * d + dv * dv) : d + dv;
    Cost cost{.flops = 2 * heads * pairs * (d + dv) + kv_heads * tokens * conv, .bytes = tensor_bytes(p), .exps = heads * pairs};
    if (steps)
      cost.bytes -=
          kv_heads * (static_cast<double>(p.kv_len) - tokens - static_cast<double>(blocks(p, o) + 1)) * (d + dv) * sizeof(float);
    return cost;
  }

  // The null key and one for every r, and their values.
  static StateSpec state(const Problem& p, const Options& o) {
    const index_t keys = blocks(p, o) + 1;
    return {.tensors = {{.name = "k", .extents = {p.kv_heads, keys, p.head_dim}},
                        {.name = "v", .extents = {p.kv_heads, keys, p.value_dim}}},
            .updated = false};
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const auto compress = [&](const Tensor<T>& x, const char* weights, const char* null) {
      const index_t d = x.extent(3);
      const Tensor<T> tokens = windows(x, o.r, o.r, 0, blocks(p, o));  // [B,Hk,blocks,r,D]
      Tensor<T> made;
      if (o.by == By::conv) {
        made = matmul(reshape(tokens, {p.batch, p.kv_heads, -1, o.r * d}), parameters[weights]);
      } else {
        made =
            sum(tokens, 3) / tabulate<T>({blocks(p, o), 1}, [&](index_t b, index_t) { return std::min(o.r, p.kv_len - b * o.r); });
      }
      if (p.causal) made = concat<T>({broadcast_to(parameters[null], {p.batch, p.kv_heads, 1, d}), made}, 2);
      return per_query_head(p, made);
    };
    const Tensor<T> k = compress(in.k, "W_k", "null_k"), v = compress(in.v, "W_v", "null_v");
    const Mask seen = mask({static_cast<index_t>(in.position.size()), k.extent(2)}, [&](index_t row, index_t key) {
      return key < visible_at(p, o, in.position[static_cast<std::size_t>(row)]);
    });
    return matmul(softmax(matmul_transposed(in.q, k) * static_cast<T>(p.scale()), seen), v);
  }

  Compressed(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        keys_(blocks(p, o) + p.causal),
        k_(workspace.shared<float>(made(p) * keys_ * p.head_dim)),
        v_(workspace.shared<float>(made(p) * keys_ * p.value_dim)),
        visible_(workspace.shared<index_t>(p.batch)),
        engine_(compressed(p, keys_), {}, workspace) {}

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const auto view = [&](const Booking<float>& made, index_t d) {
      return View<float, 4>(workspace.shared(made).data(), {p_.batch, p_.kv_heads, keys_, d});
    };
    const auto k = view(k_, p_.head_dim), v = view(v_, p_.value_dim);
    const index_t tasks = (blocks(p_, o_) + block_rows - 1) / block_rows;
    parallel_tasks(p_.batch * p_.kv_heads * tasks, [&](index_t task, int) {
      const index_t head = task / tasks % p_.kv_heads, batch = task / tasks / p_.kv_heads, first = task % tasks * block_rows;
      compress(a.k[batch][head], parameters, "W_k", "null_k", head, first, k[batch][head]);
      compress(a.v[batch][head], parameters, "W_v", "null_v", head, first, v[batch][head]);
    });
    const auto within = [this](index_t row, index_t key) { return key < visible(p_, o_, row); };
    engine_.run({a.q, k, v, a.out}, workspace, [&](const kernels::QueryBlock& q, kernels::KeyList& keys) {
      // All queries of the block see what its first one sees; up to what its last one sees, it depends.
      const index_t all = visible(p_, o_, q.row(0)), some = visible(p_, o_, q.row(q.count - 1));
      keys.range(0, all);
      if (some > all) keys.range(all, some - all).where(within);
    });
  }

  void absorb(const FloatArrays& tokens, const ParameterSet<float>& parameters, const State& state, Workspace&) const {
    const auto k = state["k"].f32_out(), v = state["v"].f32_out();
    parallel_tasks(p_.batch * p_.kv_heads, [&](index_t task, int) {
      const index_t batch = task / p_.kv_heads, head = task % p_.kv_heads;
      fold(tokens.k[batch][head], parameters, "W_k", "null_k", head, state.end(), k[batch][head]);
      fold(tokens.v[batch][head], parameters, "W_v", "null_v", head, state.end(), v[batch][head]);
    });
  }
  void answer(const FloatArrays& queries, const ParameterSet<float>&, const State& state, Workspace& workspace) const {
    const std::span<index_t> seen = workspace.shared(visible_);
    std::ranges::fill(seen, visible_at(p_, o_, state.end() - 1));
    kernels::EngineArrays arrays(queries.q, state["k"].f32(), state["v"].f32(), queries.out);
    arrays.lengths = seen;
    engine_.run(arrays, workspace, kernels::all_keys);
  }

 private:
  static constexpr index_t block_rows = 64;  // blocks that one task makes

  // Heads whose keys a run makes; a step finds them in its state.
  static index_t made(const Problem& p) { return p.pass == Pass::decode ? 0 : p.batch * p.kv_heads; }
  static index_t blocks(const Problem& p, const Options& o) { return (p.kv_len + o.r - 1) / o.r; }

  // Keys, the null key included, that the query at `position` sees: always the first ones.
  static index_t visible_at(const Problem& p, const Options& o, index_t position) {
    if (!p.causal) return blocks(p, o);
    return 1 + (position + 1 >= p.kv_len ? blocks(p, o) : std::max<index_t>(0, position + 1) / o.r);
  }
  static index_t visible(const Problem& p, const Options& o, index_t row) { return visible_at(p, o, p.query_position(row)); }

  static Problem compressed(Problem p, index_t keys) {
    p.kv_len = keys;
    p.causal = false;
    return p;
  }

  // Blocks from `first` on into `to`, after the null row.
  void compress(const View<const float, 2>& x, const ParameterSet<float>& parameters, const char* weights, const char* null,
                index_t head, index_t first, const View<float, 2>& to) const {
    const index_t d = x.extent(1), count = std::min(block_rows, blocks(p_, o_) - first);
    if (p_.causal && first == 0) std::copy_n(parameters[null].data() + head * d, d, to.row(0));
    const kernels::Into rows{to.row(first + p_.causal), to.stride(0)};
    for (index_t t = 0; t < o_.r; ++t) {
      // Blocks that have a token t: the last one may end before.
      const index_t whole = std::min(count, (p_.kv_len - t + o_.r - 1) / o_.r - first);
      const float* tokens = x.row(first * o_.r + t);
      if (o_.by == By::conv) {
        const float* w = parameters[weights].data() + (head * o_.r + t) * d * d;
        kernels::gemm(whole, d, d, {tokens, o_.r * x.stride(0)}, {w, d}, rows, {.add = t > 0});
      } else {
        if (t == 0) kernels::copy(count, d, {tokens, o_.r * x.stride(0)}, rows);
        if (t > 0) kernels::add(whole, d, {tokens, o_.r * x.stride(0)}, rows);
      }
    }
    for (index_t b = 0; b < count && o_.by == By::mean; ++b) {
      const float share = 1 / static_cast<float>(std::min(o_.r, p_.kv_len - (first + b) * o_.r));
      const kernels::Into row{rows.data + b * rows.stride, d};
      kernels::scale_rows(1, d, row, &share, row);
    }
  }

  // Tokens from `position` on into the rows of their blocks, of which one may have begun: a sum, or the mean so far.
  void fold(const View<const float, 2>& x, const ParameterSet<float>& parameters, const char* weights, const char* null,
            index_t head, index_t position, const View<float, 2>& to) const {
    const index_t d = x.extent(1);
    std::copy_n(parameters[null].data() + head * d, d, to.row(0));
    for (index_t i = 0; i < x.extent(0); ++i, ++position) {
      const index_t t = position % o_.r;
      float *const row = to.row(1 + position / o_.r), share = 1 / static_cast<float>(t + 1);
      if (o_.by == By::conv) {
        kernels::gemm(1, d, d, {x.row(i), d}, {parameters[weights].data() + (head * o_.r + t) * d * d, d}, {row, d},
                      {.add = t > 0});
      } else {
        for (index_t c = 0; c < d; ++c) row[c] = t > 0 ? row[c] + (x(i, c) - row[c]) * share : x(i, c);
      }
    }
  }

  Problem p_;
  Options o_;
  index_t keys_;
  Booking<float> k_, v_;
  Booking<index_t> visible_;
  kernels::Attention engine_;
};
ATTN_VARIANT(compressed, Compressed)

}  // namespace attn
