#include <cmath>

#include "attn/kernels/engine.hpp"
#include "attn/kernels/gemm.hpp"
#include "attn/kernels/rows.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// sinkhorn: a learned (soft) permutation of the blocks of K and V; a query sees its own block and the one sorted to its place.
//   out_i = softmax over [K'_u; K_u] / sqrt(D), values [V'_u; V_u],  u = floor(i / block),  K'_u = sum_w S_uw K_w, V'_u likewise
//   S = exp of L = (R + noise) / temperature after `iterations` times: rows of L minus their logsumexp, then columns
//   sort_net=mlp: R_u = relu(x_u W1 + b1) W2 + b2, x_u the sum of the keys of block u;
//   sort_net=attention (lucidrains): R_uw = relu(mean of q in u . mean of k in w / sqrt(D)), nothing learned
//   causal: S is the softmax of L's row over the blocks w < u, since normalised columns would show later rows; x_u is the sum, and
//   the mean of q that over all tokens up to the first of u; block 0 has no sorted part
//   Tay et al. 2020, arXiv:2002.11296, sections 3.1 to 3.3; one softmax over both parts, as lucidrains
//   useful flops 2 pairs (D + Dv) + 2 (N^2 / block) (D + Dv), pairs = 2 N block; workspace 2 N (D + Dv) and (N / block)^2
// The tokens that a shorter last block lacks count as zeros in the sums over w.
struct Sinkhorn {
  enum class SortNet { mlp, attention };
  enum class Sees { both, sorted };
  struct Options {
    index_t block = 64, iterations = 5, max_blocks = 0;
    double temperature = 0.75;
    SortNet sort_net = SortNet::mlp;
    Sees sees = Sees::both;
    bool noise = false;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("block", &Options::block, 1, 1 << 20, "length of a block; the last one may be shorter")
        .integer("iterations", &Options::iterations, 1, 1000, "normalisations of rows and columns; one of rows when causal")
        .integer("max_blocks", &Options::max_blocks, 0, 65536,
                 "outputs of the sorting network, of which the first are used; 0: N / block")
        .number("temperature", &Options::temperature, 1e-3, 1000, "divides the sorting logits")
        .choice("sort_net", &Options::sort_net, {{"mlp", SortNet::mlp}, {"attention", SortNet::attention}},
                "mlp: learned, from the keys of a block; attention: from the mean query and key of two blocks")
        .choice("sees", &Options::sees, {{"both", Sees::both}, {"sorted", Sees::sorted}},
                "both: the own block and the sorted one; sorted: the sorted one alone")
        .flag("noise", &Options::noise, "Gumbel noise on the sorting logits, as in training");
  }

  static VariantInfo info() {
    return {.title = "Sparse Sinkhorn attention",
            .formula = "softmax over the own block and a learned mixture S of all blocks, S doubly stochastic",
            .paper = "Tay et al. 2020, arXiv:2002.11296, section 3",
            .cost_in_n = "N block D + N^2/block D",
            .exactness = Exactness::approximation,
            .cross = false,
            .row_wise = false,
            .randomised = true,
            .time_exponent = 2};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    const index_t d = p.head_dim, nb = blocks(p, o), outputs = o.max_blocks > 0 ? o.max_blocks : nb;
    Parameters list;
    if (o.sort_net == SortNet::mlp) {
      list = {{"W1", {p.heads, d, d}, init::xavier_uniform(d, d)},
              {"b1", {p.heads, 1, d}, init::zeros()},
              {"W2", {p.heads, d, outputs}, init::xavier_uniform(d, outputs)},
              {"b2", {p.heads, 1, outputs}, init::zeros()}};
    }
    const auto gumbel = [](std::span<float> values, const Shape&, const Rng& rng) {
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = static_cast<float>(-std::log(-std::log((rng.uniform(static_cast<index_t>(i)) + 1e-12) / (1 + 2e-12))));
    };
    if (o.noise) list.push_back({"gumbel", {p.heads, nb, nb}, gumbel, false});
    return list;
  }

  static Status supports(const Problem& p, const Options& o) {
    if (o.sort_net != SortNet::mlp || o.max_blocks == 0 || blocks(p, o) <= o.max_blocks) return {};
    return refuse("N=" + std::to_string(p.q_len) + " makes " + std::to_string(blocks(p, o)) +
                  " blocks, the sorting network orders max_blocks=" + std::to_string(o.max_blocks));
  }

  static Cost cost(const Problem& p, const Options& o) {
    const index_t b = block(p, o), nb = blocks(p, o);
    double pairs = 0;
    for (index_t u = 0; u < nb; ++u) {
      const auto rows = static_cast<double>(own_keys(p, o, u));
      if (o.sees == Sees::both) pairs += p.causal ? rows * (rows + 1) / 2 : rows * rows;
      if (sees_sorted(p, u)) pairs += rows * static_cast<double>(b);
    }
    Cost cost = softmax_cost(p, pairs);
    const auto heads = static_cast<double>(p.batch * p.heads), n = static_cast<double>(nb), d = static_cast<double>(p.head_dim);
    const double mixed = p.causal ? n * (n - 1) / 2 : n * n;  // entries of S
    cost.flops += heads * 2 * mixed * static_cast<double>(b * (p.head_dim + p.value_dim));
    cost.flops += heads * 2 * n * d * (n + (o.sort_net == SortNet::mlp ? d : 0));
    cost.exps += heads * mixed * (p.causal ? 1 : 2 * static_cast<double>(o.iterations) + 1);
    return cost;
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Inputs<T>& in, const ParameterSet<T>& parameters) {
    const index_t b = block(p, o), nb = blocks(p, o), padding = nb * b - p.q_len;
    const Tensor<T> s = sorting_matrix(p, o, in, parameters);
    const auto in_blocks = [&](const Tensor<T>& x) {
      return reshape(pad(x, 2, 0, padding), {p.batch, p.heads, nb, b, x.extent(-1)});
    };
    const auto sorted = [&](const Tensor<T>& x) {
      return reshape(matmul(s, reshape(x, {p.batch, p.heads, nb, b * x.extent(-1)})), x.shape());
    };
    const Tensor<T> k = in_blocks(in.k), v = in_blocks(in.v);
    const Tensor<T> keys = concat<T>({sorted(k), k}, 3), values = concat<T>({sorted(v), v}, 3);
    const Mask allowed = mask({nb, b, 2 * b}, [&](index_t u, index_t i, index_t slot) {
      if (slot < b) return sees_sorted(p, u);
      return o.sees == Sees::both && slot - b < own_keys(p, o, u) && (!p.causal || slot - b <= i);
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
        engine_(of_pairs(p, o), {.queries = kernels::QueryBlocks::aligned(b_), .keys_per_query = 2 * b_}, workspace),
        s_(workspace.shared<float>(p.batch * p.heads * nb_ * nb_)),
        keys_(workspace.shared<float>(p.batch * p.heads * nb_ * 2 * b_ * p.head_dim)),
        values_(workspace.shared<float>(p.batch * p.heads * nb_ * 2 * b_ * p.value_dim)),
        sums_(workspace.per_worker<double>(std::max(p.head_dim, p.value_dim))),
        net_(workspace.per_worker<float>(3 * nb_ * p.head_dim + nb_ * nb_ + 2 * nb_)),
        slab_(workspace.per_worker<float>(slots * nb_ * std::max(p.head_dim, p.value_dim))) {}

  // Sorted and own blocks are laid side by side, so that one pass of the engine sees both. The copy of the own block costs less
  // than a second pass.
  void run(const FloatInputs& in, const ParameterSet<float>& parameters, Output out, Workspace& workspace) const {
    parallel_tasks(p_.batch * p_.heads, [&](index_t head, int worker) { sort_blocks(in, parameters, workspace, head, worker); });
    const auto k = workspace.shared(keys_), v = workspace.shared(values_);
    const index_t groups = (b_ + slots - 1) / slots;
    parallel_tasks(p_.batch * p_.heads * groups, [&](index_t task, int worker) {
      const index_t head = task / groups, slot = task % groups * slots;
      float* slab = workspace.of(worker, slab_).data();
      const float* s = workspace.shared(s_).data() + head * nb_ * nb_;
      mix(in.k[head / p_.heads][head % p_.heads], s, slot, slab, k.data() + head * nb_ * 2 * b_ * p_.head_dim);
      mix(in.v[head / p_.heads][head % p_.heads], s, slot, slab, v.data() + head * nb_ * 2 * b_ * p_.value_dim);
    });
    const View<const float, 4> keys(k.data(), {p_.batch, p_.heads, nb_ * 2 * b_, p_.head_dim});
    const View<const float, 4> values(v.data(), {p_.batch, p_.heads, nb_ * 2 * b_, p_.value_dim});
    engine_.run({in.q, keys, values, out}, workspace, [&](const kernels::QueryBlock& queries, kernels::KeyList& list) {
      const index_t u = queries.row(0) / b_, own = u * 2 * b_ + b_;
      if (sees_sorted(p_, u)) list.range(own - b_, b_);
      if (o_.sees == Sees::sorted) return;
      auto& run = list.range(own, own_keys(p_, o_, u));
      if (p_.causal) run.band(kernels::anywhere, own - u * b_ - queries.shift);
    });
  }

 private:
  static index_t block(const Problem& p, const Options& o) { return std::min(o.block, p.q_len); }
  static index_t blocks(const Problem& p, const Options& o) { return (p.q_len + block(p, o) - 1) / block(p, o); }
  static index_t own_keys(const Problem& p, const Options& o, index_t u) {
    return std::min(block(p, o), p.q_len - u * block(p, o));
  }
  static bool sees_sorted(const Problem& p, index_t u) { return !p.causal || u > 0; }
  static Problem of_pairs(Problem p, const Options& o) {
    p.kv_len = blocks(p, o) * 2 * block(p, o);
    p.causal = false;  // the positions of these keys are not those of the tokens: the schedule cuts
    return p;
  }

  template <class T>
  static Tensor<T> sorting_matrix(const Problem& p, const Options& o, const Inputs<T>& in, const ParameterSet<T>& parameters) {
    const index_t b = block(p, o), nb = blocks(p, o);
    const auto own = [&](index_t u, index_t i) { return i / b == u; };
    const auto seen = [&](index_t u, index_t i) { return p.causal ? i <= u * b : i / b == u; };
    const auto pooled = [&](auto member, const Tensor<T>& x, bool mean) {
      const Tensor<T> pool = tabulate<T>({nb, p.q_len}, member);
      return mean ? matmul(pool, x) / sum(pool, -1, Keep::yes) : matmul(pool, x);
    };
    Tensor<T> l;
    if (o.sort_net == SortNet::mlp) {
      const Tensor<T> hidden = relu(matmul(pooled(seen, in.k, false), parameters["W1"]) + parameters["b1"]);
      l = slice(matmul(hidden, parameters["W2"]) + parameters["b2"], -1, 0, nb);
    } else {
      l = relu(matmul_transposed(pooled(seen, in.q, true), pooled(own, in.k, true)) * static_cast<T>(p.scale()));
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

  // S of one head.
  void sort_blocks(const FloatInputs& in, const ParameterSet<float>& parameters, const Workspace& workspace, index_t head,
                   int worker) const {
    const index_t d = p_.head_dim, h = head % p_.heads;
    float* pooled = workspace.of(worker, net_).data();
    float* other = pooled + nb_ * d;
    float* turned = other + nb_ * d;
    float* s = workspace.shared(s_).data() + head * nb_ * nb_;
    const auto q = in.q[head / p_.heads][h], k = in.k[head / p_.heads][h];
    const auto sums = workspace.of(worker, sums_);
    const auto factor = static_cast<float>(1 / o_.temperature);
    if (o_.sort_net == SortNet::mlp) {
      const auto w2 = parameters.view<3>("W2")[h];
      pool(k, p_.causal, false, sums, pooled);
      kernels::gemm(nb_, d, d, {pooled, d}, {parameters.view<3>("W1")[h].row(0), d}, {other, d});
      add_row(parameters.view<3>("b1")[h].row(0), d, other);
      kernels::relu_plus(nb_, d, {other, d}, 0, {other, d});
      kernels::gemm(nb_, nb_, d, {other, d}, {w2.row(0), w2.stride(0)}, {s, nb_});
      add_row(parameters.view<3>("b2")[h].row(0), nb_, s);
    } else {
      pool(q, p_.causal, true, sums, pooled);
      pool(k, false, true, sums, other);
      kernels::transpose(nb_, d, {other, d}, {turned, nb_});
      kernels::gemm(nb_, nb_, d, {pooled, d}, {turned, nb_}, {s, nb_});
      const auto scale = static_cast<float>(p_.scale());
      for (index_t e = 0; e < nb_ * nb_; ++e) s[e] = std::max(s[e] * scale, 0.0f);
    }
    if (o_.noise) kernels::add(nb_, nb_, {parameters.view<3>("gumbel")[h].row(0), nb_}, {s, nb_});
    if (p_.causal) {
      for (index_t u = 0; u < nb_; ++u) {
        if (u > 0) kernels::softmax(1, u, {s + u * nb_, nb_}, factor, {s + u * nb_, nb_});
        std::fill_n(s + u * nb_ + u, nb_ - u, 0.0f);
      }
      return;
    }
    for (index_t e = 0; e < nb_ * nb_; ++e) s[e] *= factor;
    normalise(s, turned + nb_ * d);
  }

  // Sums or means of the rows of each block or, `up_to_first`, of all rows up to its first. In double: the latter grow with N.
  void pool(View<const float, 2> x, bool up_to_first, bool mean, std::span<double> sums, float* to) const {
    const index_t d = p_.head_dim;
    std::fill(sums.begin(), sums.end(), 0.0);
    for (index_t u = 0, next = 0; u < nb_; ++u) {
      const index_t end = up_to_first ? u * b_ + 1 : std::min(p_.q_len, (u + 1) * b_);
      const index_t count = up_to_first ? end : end - next;
      if (!up_to_first) std::fill(sums.begin(), sums.end(), 0.0);
      for (; next < end; ++next) {
        const float* row = x.row(next);
        for (index_t e = 0; e < d; ++e) sums[static_cast<std::size_t>(e)] += static_cast<double>(row[e]);
      }
      const double divisor = mean ? static_cast<double>(count) : 1;
      for (index_t e = 0; e < d; ++e) to[u * d + e] = static_cast<float>(sums[static_cast<std::size_t>(e)] / divisor);
    }
  }

  void add_row(const float* row, index_t n, float* to) const {
    for (index_t u = 0; u < nb_; ++u) kernels::add(1, n, {row, n}, {to + u * n, n});
  }

  // scratch: nb * nb + 2 nb.
  void normalise(float* l, float* scratch) const {
    float* e = scratch;
    float* most = scratch + nb_ * nb_;
    float* total = most + nb_;
    const kernels::Into logits{l, nb_}, exps{e, nb_};
    const auto logsumexp = [&](index_t i) { return most[i] + std::log(total[i]); };
    for (index_t iteration = 0; iteration < o_.iterations; ++iteration) {
      kernels::row_max(nb_, nb_, logits, most);
      kernels::exp_features(nb_, nb_, logits, most, 1, 0, exps);
      std::fill_n(total, nb_, 0.0f);
      kernels::add_row_sums(nb_, nb_, exps, total);
      for (index_t u = 0; u < nb_; ++u) {
        const float shift = logsumexp(u);
        for (index_t w = 0; w < nb_; ++w) l[u * nb_ + w] -= shift;
      }
      std::copy_n(l, nb_, most);
      kernels::raise_column_max(nb_, nb_, logits, most);
      kernels::exp_minus(nb_, nb_, logits, most, exps);
      std::fill_n(total, nb_, 0.0f);
      kernels::add_column_sums(nb_, nb_, exps, total);
      for (index_t w = 0; w < nb_; ++w) total[w] = logsumexp(w);
      for (index_t u = 0; u < nb_; ++u) {
        for (index_t w = 0; w < nb_; ++w) l[u * nb_ + w] -= total[w];
      }
    }
    std::fill_n(most, nb_, 0.0f);
    kernels::exp_minus(nb_, nb_, logits, most, logits);
  }

  static constexpr index_t slots = 4;  // 1 KB of each block at D = 64

  // Rows slot, slot + 1, ... of every block, mixed by S and as they are. Blocks stand a power of two apart as a rule, where their
  // rows would throw each other out of the caches: they are copied together first.
  void mix(View<const float, 2> x, const float* s, index_t slot, float* slab, float* to) const {
    const index_t width = x.extent(1), stride = 2 * b_ * width, count = std::min(slots, b_ - slot), columns = count * width;
    for (index_t u = 0; u < nb_; ++u) {
      const index_t first = u * b_ + slot, rows = std::clamp<index_t>(p_.q_len - first, 0, count);
      float* from = slab + u * columns;
      for (index_t i = 0; i < rows; ++i) std::copy_n(x.row(first + i), width, from + i * width);
      std::fill_n(from + rows * width, (count - rows) * width, 0.0f);
      std::copy_n(from, columns, to + (b_ + slot) * width + u * stride);
    }
    kernels::gemm(nb_, columns, nb_, {s, nb_}, {slab, columns}, {to + slot * width, stride},
                  {.lower = p_.causal ? kernels::Lower::left : kernels::Lower::none, .diagonal = -1});
  }

  Problem p_;
  Options o_;
  index_t b_, nb_;
  kernels::SoftmaxEngine engine_;
  Booking<float> s_, keys_, values_;
  Booking<double> sums_;
  Booking<float> net_, slab_;
};
ATTN_VARIANT(sinkhorn, Sinkhorn)

}  // namespace attn
