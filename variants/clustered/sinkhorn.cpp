#include <array>
#include <cmath>
#include <numeric>

#include "attn/kernels/choose/block_sums.hpp"
#include "attn/kernels/dense/gemm.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/machine/flush_denormals.hpp"
#include "attn/kernels/softmax/row_attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// sinkhorn: a learned (soft) permutation of the blocks of K and V; a query sees its own block and the one sorted to its place.
//   out_i = softmax over [K'_u; K_u] / sqrt(D), values [V'_u; V_u],  u = floor(i / block),  K'_u = sum_w S_uw K_w, V'_u likewise
//   S = exp of L = (R + noise) / temperature after `iterations` times: rows of L minus their logsumexp, then columns
//   sort_net=mlp: R_u = relu(x_u W1 + b1) W2 + b2, x_u the sum of the keys of block u;
//   sort_net=attention (lucidrains): R_uw = relu(mean of q in u . mean of k in w / sqrt(D)), nothing learned
//   causal: S is the softmax of L's row over the blocks w < u, since normalised columns would show later rows; x_u is the sum, and
//   the mean of q that over all tokens up to the first of u; block 0 has no sorted part
//   pick=top1 (lucidrains): of each row of S its largest entry alone, so K'_u is one block times that entry, for N D work
//   cut=n (SortCut, section 3.4): every query sees the first n sorted blocks, not the one of its place; paper's with sees=sorted
//   Tay et al. 2020, arXiv:2002.11296, sections 3.1 to 3.4; one softmax over both parts, as lucidrains
//   useful flops 2 pairs (D + Dv) + 2 (N^2 / block) (D + Dv), pairs = 2 N block; the second term, of time N^2 at a fixed length of
//   blocks, is 2 n N (D + Dv) with cut=n and not there with pick=top1; workspace N (D + Dv) and (N / block)^2 for each
//   of as many heads as threads
// The tokens that a shorter last block lacks count as zeros in the sums over w.
struct Sinkhorn {
  enum class SortNet { mlp, attention };
  enum class Sees { both, sorted };
  enum class Pick { mixture, top1 };
  struct Options {
    index_t block = 64, iterations = 5, max_blocks = 0, cut = 0;
    double temperature = 0.75;
    SortNet sort_net = SortNet::mlp;
    Sees sees = Sees::both;
    Pick pick = Pick::mixture;
    bool noise = false;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("block", &Options::block, 1, 1 << 20, "length of a block; the last one may be shorter")
        .budget()
        .integer("iterations", &Options::iterations, 1, 1000, "normalisations of rows and columns; one of rows when causal")
        .integer("max_blocks", &Options::max_blocks, 0, 65536,
                 "outputs of the sorting network, of which the first are used; 0: N / block")
        .number("temperature", &Options::temperature, 1e-3, 1000, "divides the sorting logits")
        .choice("sort_net", &Options::sort_net, {{"mlp", SortNet::mlp}, {"attention", SortNet::attention}},
                "mlp: learned, from the keys of a block; attention: from the mean query and key of two blocks")
        .choice("sees", &Options::sees, {{"both", Sees::both}, {"sorted", Sees::sorted}},
                "both: the own block and the sorted one; sorted: the sorted one alone")
        .choice("pick", &Options::pick, {{"mixture", Pick::mixture}, {"top1", Pick::top1}},
                "mixture: all entries of S; top1: the largest of each row, the first of equals")
        .integer("cut", &Options::cut, 0, 65536,
                 "sorted blocks that every query sees, as far as there are; 0: the one of its place")
        .flag("noise", &Options::noise, "Gumbel noise on the sorting logits, as in training");
  }

  static VariantInfo info() {
    return {.title = "Sparse Sinkhorn attention",
            .formula = "softmax over the own block and a learned mixture S of all blocks, S doubly stochastic",
            .paper = "Tay et al. 2020, arXiv:2002.11296, section 3",
            .cost_in_n = "N block D + N^2/block D",
            .fine_print =
                "sort_net=mlp sees of a block u the sum x_u of its keys. When causal x_u is the sum of all keys "
                "up to the first of block u, S the softmax of the logits over the blocks before u, and block 0 "
                "sees itself alone. Tokens that a shorter last block lacks count as zeros in the mixtures.",
            .exactness = Exactness::approximation,
            .cross = false,
            .grouped_heads = true,
            .row_wise = false,
            .randomised = true,
            .time_exponent = 2};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    const index_t d = p.head_dim, nb = blocks(p, o), outputs = o.max_blocks > 0 ? o.max_blocks : nb;
    Parameters list;
    if (o.sort_net == SortNet::mlp) {
      list = {
          {.name = "W1",
           .shape = {p.heads, d, d},
           .init = init::xavier_uniform(d, d),
           .axes = "heads, head_dim, head_dim",
           .doc = "x_u W1: rows meet x"},
          {.name = "b1", .shape = {p.heads, 1, d}, .init = init::zeros(), .axes = "heads, 1, head_dim", .doc = "added to x_u W1"},
          {.name = "W2",
           .shape = {p.heads, d, outputs},
           .init = init::xavier_uniform(d, outputs),
           .axes = "heads, head_dim, outputs",
           .doc = "relu(.) W2: column w scores block w; outputs: max_blocks, or 0: blocks"},
          {.name = "b2",
           .shape = {p.heads, 1, outputs},
           .init = init::zeros(),
           .axes = "heads, 1, outputs",
           .doc = "added to the scores"}};
    }
    const auto gumbel = [](std::span<float> values, const Shape&, const Rng& rng) {
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = static_cast<float>(-std::log(-std::log((rng.uniform(static_cast<index_t>(i)) + 1e-12) / (1 + 2e-12))));
    };
    if (o.noise)
      list.push_back({.name = "gumbel",
                      .shape = {p.heads, nb, nb},
                      .init = gumbel,
                      .trainable = false,
                      .axes = "heads, blocks, blocks",
                      .doc = "added to R[u, w]"});
    return list;
  }

  static Status supports(const Problem& p, const Options& o) {
    if (o.cut > 0 && p.causal) return refuse("cut=" + std::to_string(o.cut) + " shows all queries the same blocks: no causal form");
    if (o.sort_net != SortNet::mlp || o.max_blocks == 0 || blocks(p, o) <= o.max_blocks) return {};
    return refuse("N=" + std::to_string(p.kv_len) + " makes " + std::to_string(blocks(p, o)) +
                  " blocks, the sorting network orders max_blocks=" + std::to_string(o.max_blocks));
  }

  static Cost cost(const Problem& p, const Options& o) {
    if (p.pass == Pass::decode) return step_cost(p, o);
    const index_t b = block(p, o), nb = blocks(p, o);
    double pairs = 0;
    for (index_t u = 0; u < nb; ++u) {
      const auto rows = static_cast<double>(own_keys(p, o, u));
      if (o.sees == Sees::both) pairs += p.causal ? rows * (rows + 1) / 2 : rows * rows;
      if (sees_sorted(p, u)) pairs += rows * static_cast<double>(sorted_in_sight(p, o) * b);
    }
    Cost cost = softmax_cost(p, pairs);
    const auto heads = static_cast<double>(p.batch * p.heads), n = static_cast<double>(nb), d = static_cast<double>(p.head_dim);
    const double entries = p.causal ? n * (n - 1) / 2 : n * n;  // of S
    const double mixed = p.causal ? entries : n * static_cast<double>(sorted_blocks(p, o));
    if (o.pick == Pick::mixture) cost.flops += heads * 2 * mixed * static_cast<double>(b * (p.head_dim + p.value_dim));
    cost.flops += heads * 2 * n * d * (n + (o.sort_net == SortNet::mlp ? d : 0));
    cost.exps += heads * entries * (p.causal ? 1 : 2 * static_cast<double>(o.iterations) + 1);
    return cost;
  }

  // Of answers. The first token of a block sorts besides, once in as many steps as it is long.
  static Cost step_cost(const Problem& p, const Options& o) {
    const index_t b = block(p, o);
    const double pairs = count_pairs(p, [&](index_t i) { return (i >= b ? b : 0) + (o.sees == Sees::both ? i % b + 1 : 0); });
    Cost cost = softmax_cost(p, pairs);
    cost.bytes += sizeof(float) * static_cast<double>(p.batch * (p.head_dim + p.value_dim)) *
                  (static_cast<double>(p.heads) * pairs - static_cast<double>(p.kv_heads * p.kv_len));
    return cost;
  }

  // All keys and values, and those that were sorted to the place of the last block; queries where the network sees them.
  static StateSpec state(const Problem& p, const Options& o) {
    StateSpec spec = kept_keys(p, p.kv_len);
    spec.tensors.push_back({.name = "sorted_k", .extents = {p.heads, block(p, o), p.head_dim}});
    spec.tensors.push_back({.name = "sorted_v", .extents = {p.heads, block(p, o), p.value_dim}});
    if (o.sort_net == SortNet::attention) spec.tensors.push_back({.name = "q", .extents = {p.heads, p.kv_len, p.head_dim}});
    return spec;
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const index_t b = block(p, o), nb = blocks(p, o), padding = nb * b - p.q_len, shown = sorted_in_sight(p, o) * b;
    Tensor<T> s = sorting_matrix(p, o, in, parameters);
    if (o.pick == Pick::top1) s = s * one_hot<T>(largest_entries(p, o, in, parameters), nb);
    const auto in_blocks = [&](const Tensor<T>& x) {
      return reshape(pad(x, 2, 0, padding), {p.batch, p.heads, nb, b, x.extent(-1)});
    };
    const auto sorted = [&](const Tensor<T>& x) {
      Tensor<T> all = reshape(matmul(s, reshape(x, {p.batch, p.heads, nb, b * x.extent(-1)})), x.shape());
      if (o.cut == 0) return all;
      const Tensor<T> first = slice(all, 2, 0, sorted_blocks(p, o));
      return broadcast_to(reshape(first, {p.batch, p.heads, 1, shown, x.extent(-1)}), {p.batch, p.heads, nb, shown, x.extent(-1)});
    };
    const Tensor<T> k = in_blocks(per_query_head(p, in.k)), v = in_blocks(per_query_head(p, in.v));
    const Tensor<T> keys = concat<T>({sorted(k), k}, 3), values = concat<T>({sorted(v), v}, 3);
    const Mask allowed = mask({nb, b, shown + b}, [&](index_t u, index_t i, index_t slot) {
      if (slot < shown) return sees_sorted(p, u);
      return o.sees == Sees::both && slot - shown < own_keys(p, o, u) && (!p.causal || slot - shown <= i);
    });
    const Tensor<T> logits = matmul_transposed(in_blocks(in.q), keys) * static_cast<T>(p.scale());
    const Tensor<T> out = matmul(softmax(logits, allowed), values);
    return slice(reshape(out, {p.batch, p.heads, nb * b, p.value_dim}), 2, 0, p.q_len);
  }

  Sinkhorn(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        b_(block(p, o)),
        nb_(blocks(p, o)),
        sorted_(sorted_blocks(p, o)),
        attention_(p.head_dim, p.value_dim, p.scale(), workspace),
        at_once_(std::min<index_t>(workspace.threads(), p.batch * p.heads)),
        s_(workspace.shared<float>(at_once_ * nb_ * nb_)),
        keys_(workspace.shared<float>(p.pass == Pass::decode ? 0 : at_once_ * sorted_ * b_ * p.head_dim)),
        values_(workspace.shared<float>(p.pass == Pass::decode ? 0 : at_once_ * sorted_ * b_ * p.value_dim)),
        net_(workspace.per_worker<float>(Net::scratch_floats(p, o))),
        slab_(workspace.per_worker<float>(slots * nb_ * std::max(p.head_dim, p.value_dim))),
        wide_(workspace.per_worker<double>(Net::wide_doubles(p, o))),
        slot_(workspace.table<std::int32_t>(b_, [](std::span<std::int32_t> to) { std::iota(to.begin(), to.end(), 0); })) {}

  // As many heads at once as there are threads, while they are near.
  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const index_t stretch = std::max<index_t>(1, 512 / b_), stretches = (nb_ + stretch - 1) / stretch;
    for (index_t first = 0; first < p_.batch * p_.heads; first += at_once_) {
      const index_t heads = std::min(at_once_, p_.batch * p_.heads - first);
      parallel_tasks(heads, [&](index_t at, int worker) {
        const index_t head = first + at;
        const auto q = a.q[head / p_.heads][head % p_.heads], k = of_kv_head(a.k, head);
        const Net net{p_, o_, Weights(o_, parameters, head % p_.heads), workspace.of(worker, net_).data(),
                      workspace.of(worker, wide_).data()};
        net.sort({q.row(0), q.stride(0)}, {k.row(0), k.stride(0)}, 0, matrix(workspace, head));
      });
      if (o_.pick == Pick::mixture)
        mix_blocks(a, workspace, first, heads);
      else
        pick_blocks(a, workspace, first, heads);
      parallel_tasks(heads * stretches, [&](index_t task, int worker) {
        const index_t from = task % stretches * stretch;
        for (index_t u = from; u < std::min(nb_, from + stretch); ++u)
          attend_block(a, workspace, first + task / stretches, u, worker);
      });
    }
  }

  void absorb(const FloatArrays& tokens, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    const index_t first = state.end(), u = (first + tokens.k.extent(2) - 1) / b_;
    keep_rows(tokens.k, state, "k");
    keep_rows(tokens.v, state, "v");
    if (state.find("q") != nullptr) keep_rows(tokens.q, state, "q");
    if (u == 0 || u * b_ < first) return;  // else the last block begins among these tokens
    parallel_tasks(p_.batch * p_.heads,
                   [&](index_t head, int worker) { sort_place(state, parameters, head, u, workspace, worker); });
  }
  void answer(const FloatArrays& queries, const ParameterSet<float>&, const State& state, Workspace& workspace) const {
    const index_t last = state.end() - 1, u = last / b_, d = p_.head_dim, dv = p_.value_dim;
    const auto sorted_k = state["sorted_k"].f32(), sorted_v = state["sorted_v"].f32(), k = state["k"].f32(), v = state["v"].f32();
    parallel_tasks(p_.batch * p_.heads, [&](index_t head, int worker) {
      const index_t b = head / p_.heads, h = head % p_.heads;
      std::array<kernels::RowKeys, 2> seen;
      std::size_t size = 0;
      if (u > 0) seen[size++] = {{sorted_k[b][h].row(0), d}, {sorted_v[b][h].row(0), dv}, b_, {}};
      if (o_.sees == Sees::both)
        seen[size++] = {{of_kv_head(k, head).row(u * b_), d}, {of_kv_head(v, head).row(u * b_), dv}, last - u * b_ + 1, {}};
      attention_({.q = {queries.q[b][h].row(0), d}, .out = {queries.out[b][h].row(0), dv}, .count = 1, .keys = {seen.data(), size}},
                 workspace, worker);
    });
  }

 private:
  // Of a state whose last block, u, has begun: what all blocks before make of the place of this one.
  void sort_place(const State& state, const ParameterSet<float>& parameters, index_t head, index_t u, const Workspace& workspace,
                  int worker) const {
    Problem before = p_;  // up to the first token of the block
    before.q_len = before.kv_len = u * b_ + 1;
    float* const scratch = workspace.of(worker, net_).data();
    float* const s = scratch + (u + 1) * p_.head_dim;
    const Net net{before, o_, Weights(o_, parameters, head % p_.heads), scratch, workspace.of(worker, wide_).data()};
    const auto own = [&](const char* name) { return state[name].f32_out()[head / p_.heads][head % p_.heads].row(0); };
    const auto k = of_kv_head(state["k"].f32(), head), v = of_kv_head(state["v"].f32(), head);
    net.sort({state.find("q") != nullptr ? own("q") : nullptr, p_.head_dim}, {k.row(0), p_.head_dim}, u, s);
    const float* const row = s + u * (u + 1);
    const auto make = [&](const View<const float, 2>& x, const char* name) {
      const index_t size = b_ * x.extent(1), w = kernels::largest_entry(row, u);
      if (o_.pick == Pick::top1) return kernels::scale_rows(1, size, {x.row(w * b_), size}, row + w, {own(name), size});
      kernels::gemm(1, size, u, {row, u}, {x.row(0), size}, {own(name), size});
    };
    make(k, "sorted_k");
    make(v, "sorted_v");
  }
  View<const float, 2> of_kv_head(const View<const float, 4>& x, index_t head) const {
    return x[head / p_.heads][p_.kv_head(head % p_.heads)];
  }

  static index_t block(const Problem& p, const Options& o) { return std::min(o.block, p.kv_len); }
  static index_t blocks(const Problem& p, const Options& o) { return (p.kv_len + block(p, o) - 1) / block(p, o); }
  static index_t own_keys(const Problem& p, const Options& o, index_t u) {
    return std::min(block(p, o), p.kv_len - u * block(p, o));
  }
  static bool sees_sorted(const Problem& p, index_t u) { return !p.causal || u > 0; }
  static index_t sorted_blocks(const Problem& p, const Options& o) {  // that anybody sees
    return o.cut > 0 ? std::min(o.cut, blocks(p, o)) : blocks(p, o);
  }
  static index_t sorted_in_sight(const Problem& p, const Options& o) { return o.cut > 0 ? sorted_blocks(p, o) : 1; }

  template <class T>
  static Tensor<T> sorting_matrix(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const index_t b = block(p, o), nb = blocks(p, o);
    const auto own = [&](index_t u, index_t i) { return i / b == u; };
    const auto seen = [&](index_t u, index_t i) { return p.causal ? i <= u * b : i / b == u; };
    const auto pooled = [&](auto member, const Tensor<T>& x, bool mean) {
      const Tensor<T> pool = tabulate<T>({nb, p.q_len}, member);
      return mean ? matmul(pool, x) / sum(pool, -1, Keep::yes) : matmul(pool, x);
    };
    Tensor<T> l;
    if (o.sort_net == SortNet::mlp) {
      const Tensor<T> hidden = relu(matmul(pooled(seen, per_query_head(p, in.k), false), parameters["W1"]) + parameters["b1"]);
      l = slice(matmul(hidden, parameters["W2"]) + parameters["b2"], -1, 0, nb);
    } else {
      l = relu(matmul_transposed(pooled(seen, in.q, true), pooled(own, per_query_head(p, in.k), true)) * static_cast<T>(p.scale()));
    }
    if (o.noise) l = l + parameters["gumbel"];
    l = l * static_cast<T>(1 / o.temperature);
    if (p.causal) return softmax(l, mask({nb, nb}, [](index_t u, index_t w) { return w < u; }));
    for (index_t i = 0; i < o.iterations; ++i) {
      l = l - logsumexp(l, -1, Keep::yes);
      l = l - logsumexp(l, -2, Keep::yes);
    }
    return exp(l);
  }

  // The sorting network of one head.
  struct Weights {
    const float *w1 = nullptr, *b1 = nullptr, *w2 = nullptr, *b2 = nullptr, *gumbel = nullptr;
    index_t outputs = 0, blocks = 0;  // columns of w2, of gumbel

    Weights(const Options& o, const ParameterSet<float>& parameters, index_t head) {
      const auto at = [&](const char* name) { return parameters.view<3>(name)[head].row(0); };
      if (o.sort_net == SortNet::mlp)
        w1 = at("W1"), b1 = at("b1"), w2 = at("W2"), b2 = at("b2"), outputs = parameters.view<3>("W2").stride(1);
      if (o.noise) gumbel = at("gumbel"), blocks = parameters.view<3>("gumbel").stride(1);
    }
  };

  // S in floats: what the fast path mixes by, and what decides the largest entries for the definition, too. Its logits are in
  // double: causal ones come from sums of up to N keys, and a rounding of logits of hundreds would show in the output.
  struct Net {
    const Problem& p;
    const Options& o;
    Weights weights;
    float* scratch;
    double* wide;

    static index_t scratch_floats(const Problem& p, const Options& o) {
      const index_t nb = blocks(p, o);
      return nb * p.head_dim + nb * nb + 2 * nb;
    }
    static index_t wide_doubles(const Problem& p, const Options& o) {
      const index_t nb = blocks(p, o);
      return 2 * nb * p.head_dim + nb * nb;
    }

    // Rows `first` and later.
    void sort(kernels::Rows q, kernels::Rows k, index_t first, float* s) const {
      const kernels::DenormalsAreZero fast;
      const index_t nb = blocks(p, o), b = block(p, o), d = p.head_dim, rows = nb - first;
      double* pooled = wide;
      double* other = pooled + nb * d;
      double* logits = other + nb * d;
      if (o.sort_net == SortNet::mlp) {
        kernels::pool_blocks(p.kv_len, d, k, b, p.causal, false, pooled);
        for (index_t u = 0; u < rows; ++u) std::copy_n(weights.b1, d, other + u * d);
        kernels::add_product(rows, d, d, pooled + first * d, {weights.w1, d}, other);
        for (index_t e = 0; e < rows * d; ++e) other[e] = std::max(other[e], 0.0);
        for (index_t u = 0; u < rows; ++u) std::copy_n(weights.b2, nb, logits + u * nb);
        kernels::add_product(rows, nb, d, other, {weights.w2, weights.outputs}, logits);
      } else {
        float* turned = scratch;
        kernels::pool_blocks(p.kv_len, d, q, b, p.causal, true, pooled);
        kernels::pool_blocks(p.kv_len, d, k, b, false, true, other);
        for (index_t w = 0; w < nb; ++w) {
          for (index_t e = 0; e < d; ++e) turned[e * nb + w] = static_cast<float>(other[w * d + e]);
        }
        std::fill_n(logits, rows * nb, 0.0);
        kernels::add_product(rows, nb, d, pooled + first * d, {turned, nb}, logits);
        for (index_t e = 0; e < rows * nb; ++e) logits[e] = std::max(logits[e] * p.scale(), 0.0);
      }
      for (index_t u = first; u < nb; ++u) {  // a row's largest becomes 0, which no normalisation of rows sees
        const index_t entries = p.causal ? u : nb;
        double* const row = logits + (u - first) * nb;
        const float* const noise = weights.gumbel != nullptr ? weights.gumbel + u * weights.blocks : nullptr;
        for (index_t w = 0; noise != nullptr && w < nb; ++w) row[w] += static_cast<double>(noise[w]);
        const double most = entries > 0 ? *std::max_element(row, row + entries) : 0;
        for (index_t w = 0; w < entries; ++w) s[u * nb + w] = static_cast<float>((row[w] - most) / o.temperature);
        if (p.causal && u > 0) kernels::softmax(1, u, {s + u * nb, nb}, 1, {s + u * nb, nb});
        std::fill_n(s + u * nb + entries, nb - entries, 0.0f);
      }
      if (!p.causal) kernels::sinkhorn(nb, o.iterations, s, scratch);
    }
  };

  template <class T>
  static Indices largest_entries(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const index_t nb = blocks(p, o), rows = p.q_len * p.head_dim;
    const Tensor<float> q = cast<float>(in.q), k = cast<float>(per_query_head(p, in.k));
    ParameterSet<float> narrow;
    for (const auto& [name, tensor] : parameters.all()) narrow.set(name, cast<float>(tensor));
    std::vector<float> scratch(static_cast<std::size_t>(Net::scratch_floats(p, o))), s(static_cast<std::size_t>(nb * nb));
    Indices largest({p.batch, p.heads, nb});
    std::vector<double> wide(static_cast<std::size_t>(Net::wide_doubles(p, o)));
    for (index_t head = 0; head < p.batch * p.heads; ++head) {
      const Net net{p, o, Weights(o, narrow, head % p.heads), scratch.data(), wide.data()};
      net.sort({q.data() + head * rows, p.head_dim}, {k.data() + head * rows, p.head_dim}, 0, s.data());
      for (index_t u = 0; u < nb; ++u) largest.writable()[head * nb + u] = kernels::largest_entry(s.data() + u * nb, nb);
    }
    return largest;
  }

  static constexpr index_t slots = 4;  // 1 KB of each block at D = 64

  // K' and V': a matrix product for each place in a block.
  void mix_blocks(const FloatArrays& a, const Workspace& workspace, index_t first, index_t heads) const {
    const index_t groups = (b_ + slots - 1) / slots;
    parallel_tasks(heads * groups, [&](index_t task, int worker) {
      const kernels::DenormalsAreZero fast;  // S has many
      const index_t head = first + task / groups, slot = task % groups * slots;
      float* slab = workspace.of(worker, slab_).data();
      const float* s = matrix(workspace, head);
      mix(of_kv_head(a.k, head), s, slot, slab, sorted_keys(workspace, head));
      mix(of_kv_head(a.v, head), s, slot, slab, sorted_values(workspace, head));
    });
  }

  // Rows slot, slot + 1, ... of every block, mixed by S. Blocks stand a power of two apart as a rule, where their rows would throw
  // each other out of the caches: they are copied together first.
  void mix(View<const float, 2> x, const float* s, index_t slot, float* slab, float* to) const {
    const index_t width = x.extent(1), count = std::min(slots, b_ - slot);
    for (index_t u = 0; u < nb_; ++u) {
      const index_t first = u * b_ + slot, rows = std::clamp<index_t>(p_.q_len - first, 0, count);
      for (index_t i = 0; i < rows; ++i) std::copy_n(x.row(first + i), width, slab + (i * nb_ + u) * width);
      for (index_t i = rows; i < count; ++i) std::fill_n(slab + (i * nb_ + u) * width, width, 0.0f);
    }
    for (index_t i = 0; i < count; ++i) {
      kernels::gemm(sorted_, width, nb_, {s, nb_}, {slab + i * nb_ * width, width}, {to + (slot + i) * width, b_ * width},
                    {.lower = p_.causal ? kernels::Lower::left : kernels::Lower::none, .diagonal = -1});
    }
  }

  // The block of the largest entry, times this entry.
  void pick_blocks(const FloatArrays& a, const Workspace& workspace, index_t first, index_t heads) const {
    parallel_tasks(heads * sorted_, [&](index_t task, int) {
      const index_t head = first + task / sorted_, u = task % sorted_;
      if (!sees_sorted(p_, u)) return;
      const float* row = matrix(workspace, head) + u * nb_;
      const index_t w = kernels::largest_entry(row, nb_), rows = own_keys(p_, o_, w);
      const auto scaled = [&](View<const float, 2> x, float* to) {
        const index_t width = x.extent(1);
        for (index_t i = 0; i < rows; ++i) {
          const float* from = x.row(w * b_ + i);
          for (index_t e = 0; e < width; ++e) to[i * width + e] = row[w] * from[e];
        }
        std::fill_n(to + rows * width, (b_ - rows) * width, 0.0f);
      };
      scaled(of_kv_head(a.k, head), sorted_keys(workspace, head) + u * b_ * p_.head_dim);
      scaled(of_kv_head(a.v, head), sorted_values(workspace, head) + u * b_ * p_.value_dim);
    });
  }

  void attend_block(const FloatArrays& a, const Workspace& workspace, index_t head, index_t u, int worker) const {
    const index_t d = p_.head_dim, dv = p_.value_dim, shown = sorted_in_sight(p_, o_) * b_;
    const auto q = a.q[head / p_.heads][head % p_.heads], k = of_kv_head(a.k, head), v = of_kv_head(a.v, head);
    const auto to = a.out[head / p_.heads][head % p_.heads];
    const std::int32_t* const slot = workspace.shared(slot_).data();
    const kernels::SightRule causal{slot, slot, kernels::SightRule::lowest, 0};
    const auto rows = [&](auto x, index_t w) { return kernels::ListedRows{x.row(w * b_), x.stride(0)}; };
    const auto sorted_k = [&](index_t w) {
      return kernels::ListedRows{sorted_keys(workspace, head) + (o_.cut > 0 ? 0 : w * b_ * d), d};
    };
    const auto sorted_v = [&](index_t w) {
      return kernels::ListedRows{sorted_values(workspace, head) + (o_.cut > 0 ? 0 : w * b_ * dv), dv};
    };
    std::array<kernels::RowKeys, 2> seen;
    std::size_t size = 0;
    if (sees_sorted(p_, u)) seen[size++] = {sorted_k(u), sorted_v(u), shown, {}};
    if (o_.sees == Sees::both)
      seen[size++] = {rows(k, u), rows(v, u), own_keys(p_, o_, u), {&causal, static_cast<std::size_t>(p_.causal ? 1 : 0)}};

    std::array<kernels::FetchRows, 3> soon_k = {}, soon_v = {};
    if (u + 1 < nb_) {
      const index_t count = own_keys(p_, o_, u + 1), own = o_.sees == Sees::both ? count : 0, sorted = o_.cut > 0 ? 0 : b_;
      soon_k = {kernels::FetchRows{rows(q, u + 1), count}, {sorted_k(u + 1), sorted}, {rows(k, u + 1), own}};
      soon_v = {kernels::FetchRows{rows(to, u + 1), count}, {sorted_v(u + 1), sorted}, {rows(v, u + 1), own}};
    }
    attention_({.q = rows(q, u),
                .out = {to.row(u * b_), to.stride(0)},
                .count = own_keys(p_, o_, u),
                .keys = {seen.data(), size},
                .soon_k = soon_k,
                .soon_v = soon_v},
               workspace, worker);
  }

  float* matrix(const Workspace& workspace, index_t head) const {  // S
    return workspace.shared(s_).data() + head % at_once_ * nb_ * nb_;
  }
  float* sorted_keys(const Workspace& workspace, index_t head) const {
    return workspace.shared(keys_).data() + head % at_once_ * sorted_ * b_ * p_.head_dim;
  }
  float* sorted_values(const Workspace& workspace, index_t head) const {
    return workspace.shared(values_).data() + head % at_once_ * sorted_ * b_ * p_.value_dim;
  }

  Problem p_;
  Options o_;
  index_t b_, nb_, sorted_;
  kernels::RowAttention attention_;
  index_t at_once_;  // heads
  Booking<float> s_, keys_, values_, net_, slab_;
  Booking<double> wide_;
  Booking<std::int32_t> slot_;  // 0, 1, ..., b - 1
};
ATTN_VARIANT(sinkhorn, Sinkhorn)

}  // namespace attn
