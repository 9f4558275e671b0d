#include <cmath>
#include <limits>
#include <utility>

#include "attn/exec/choice_time.hpp"
#include "attn/kernels/choose/query_clusters.hpp"
#include "attn/kernels/dense/repeat.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/softmax/engine.hpp"
#include "attn/variant/backward_cost.hpp"
#include "attn/variant/query_clusters.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// clustered_improved: clustered attention, where each query attends by itself to the keys that its cluster's mean likes best.
//   out_i = m_c sum_{j in T_c} softmax_{T_c}(q_i.k_j / sqrt(D)) v_j + sum_{j not in T_c} A_cj v_j,  c the cluster of q_i
//   A = softmax(Qc K^T / sqrt(D)), T_c the topk keys of Qc K^T, m_c = sum_{j in T_c} A_cj; Qc and clusters as in `clustered`
//   causal: the first term alone, without m_c, over j <= i in T_c; zeros where there is none. Clusters and T_c still depend on
//   later tokens (the authors' causal class does the same)
//   Vyas et al. 2020, arXiv:2007.04825, section 3.3
//   useful flops 2 clusters M (D + Dv) + 2 N topk (D + Dv) + 2 N D bits; workspace that of `clustered`, clusters topk and, unless
//   causal, clusters M bits
//   topk = M is full attention, whatever the clusters
struct ClusteredImproved {
  struct Options {
    index_t clusters = 128, topk = 32, bits = 63, iterations = 10;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("clusters", &Options::clusters, 1, 1 << 20, "clusters of queries in each head")
        .integer("topk", &Options::topk, 1, 1 << 20, "keys that the queries of a cluster attend to by themselves")
        .budget()
        .integer("bits", &Options::bits, 1, 64, "sign bits of a query")
        .integer("iterations", &Options::iterations, 1, 1000, "assignments of k-means");
  }

  static VariantInfo info() {
    return {.title = "Improved clustered attention",
            .formula = "the topk keys of the cluster's mean by q_i itself, with their mass; the other keys by the mean",
            .paper = "Vyas et al. 2020, arXiv:2007.04825, section 3.3",
            .cost_in_n = "N (clusters+topk) D",
            .exactness = Exactness::approximation,
            .grouped_heads = true,
            .row_wise = false,
            .randomised = true,
            .membership_sees_future = true,
            .time_exponent = 1};
  }

  static Parameters parameters(const Problem& p, const Options& o) { return query_cluster_tables(p, shape(p, o)); }

  static Status supports(const Problem& p, const Options&) {
    if (p.q_len > index_t{1} << 24) return refuse("numbers queries in float tables: q_len is above 2^24");
    return {};
  }

  static Status supports_backward(const Problem& p, const Options&) {
    if (!p.causal) return refuse("has a backward pass when causal: otherwise two softmaxes share the mass of T_c");
    return {};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const auto topk = static_cast<double>(std::min(o.topk, p.kv_len)), m = static_cast<double>(p.kv_len);
    const double direct = static_cast<double>(p.q_len) * topk * (p.causal ? 0.5 : 1);  // as if T_c were spread evenly
    const double clusters = static_cast<double>(shape(p, o).clusters);
    Cost cost = softmax_cost(p, direct + (p.causal ? 0 : clusters * m));
    const auto dim = static_cast<double>(p.batch * p.heads * p.head_dim);
    cost.flops += 2 * dim * static_cast<double>(p.q_len * o.bits) + (p.causal ? 2 * dim * clusters * m : 0);
    return cost;
  }

  static Cost backward_cost(const Problem& p, const Options& o) { return chosen_keys_backward_cost(p, cost(p, o)); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<float> q = cast<float>(in.q), k = cast<float>(in.k);
    const Tensor<float> planes = cast<float>(parameters["planes"]), starts = cast<float>(parameters["starts"]);
    const index_t clusters = shape(p, o).clusters, topk = std::min(o.topk, p.kv_len), d = p.head_dim;
    Indices group({p.batch, p.heads, p.q_len});
    Elements<T> chosen({p.batch, p.heads, clusters, p.kv_len});  // 1 for the keys of T_c
    std::fill_n(chosen.writable(), chosen.size(), T{0});
    for (index_t head = 0; head < p.batch * p.heads; ++head) {
      const auto table =
          kernels::cluster_rows(p.q_len, d, q.data() + head * p.q_len * d, shape(p, o), planes.data(), starts.data());
      std::copy(table.group.begin(), table.group.end(), group.writable() + head * p.q_len);
      const index_t kv_head = head / p.heads * p.kv_heads + p.kv_head(head % p.heads);
      const auto top = kernels::top_rows(p.kv_len, d, k.data() + kv_head * p.kv_len * d, clusters, table.mean.data(), topk);
      for (index_t t = 0; t < clusters * topk; ++t) {
        chosen.writable()[(head * clusters + t / topk) * p.kv_len + top[static_cast<std::size_t>(t)]] = T{1};
      }
    }
    const auto scale = static_cast<T>(p.scale());
    const Tensor<T> keys = per_query_head(p, in.k), values = per_query_head(p, in.v);
    const Tensor<T> mine = gather_rows(Tensor<T>(chosen), group);
    const Mask allowed = (mine > Tensor<T>(0)) & broadcast_to(allowed_pairs(p, in, every_key), mine.shape());
    const Tensor<T> direct = softmax(matmul_transposed(in.q, keys) * scale, allowed);
    if (p.causal) return matmul(direct, values);
    const Tensor<T> members = transpose(one_hot<T>(group, clusters));
    const Tensor<T> means = matmul(members, in.q) / maximum(sum(members, -1, Keep::yes), 1);
    const Tensor<T> shared = gather_rows(softmax(matmul_transposed(means, keys) * scale), group);
    return matmul(sum(shared * mine, -1, Keep::yes) * direct + shared * (Tensor<T>(1) - mine), values);
  }

  ClusteredImproved(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        shape_(shape(p, o)),
        topk_(std::min(o.topk, p.kv_len)),
        pieces_(shape_.clusters + p.q_len / piece_rows),
        clusters_(p, shape_, workspace),
        top_(p.kv_len, shape_.clusters, p.head_dim, topk_, kernels::TopRows::Of::rows, workspace),
        mean_engine_(of_means(p, o), {}, workspace),
        engine_(p, {.queries = kernels::QueryBlocks::listed(pieces_, piece_rows)}, workspace),
        chosen_(workspace.shared<std::int32_t>(p.batch * p.heads * shape_.clusters * topk_)),
        piece_(workspace.shared<Piece>(p.batch * p.heads * pieces_)),
        listed_(workspace.shared<std::uint64_t>(p.causal ? 0 : p.batch * p.heads * p.kv_len * words())),
        rest_(workspace.shared<float>(p.batch * p.heads * shape_.clusters * p.value_dim)),
        lse_(workspace.shared<float>(p.batch * p.heads * shape_.clusters)) {}

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    clusters_.run(a.q, parameters.view<2>("planes"), parameters.view<2>("starts"), workspace);
    choose_keys(a.k, workspace);
    // Each query by itself, to the keys of its cluster.
    with_schedules(workspace, [&](auto rows, auto keys) { engine_.run({a.q, a.k, a.v, a.out}, workspace, rows, keys); });
    if (p_.causal) return;

    // The mean of each cluster, to the keys outside T_c. Taking T_c's share out of the answer to all keys would leave the difference
    // of two roundings where T_c has nearly all of it.
    const View<float, 4> rest(workspace.shared(rest_).data(), {p_.batch, p_.heads, shape_.clusters, p_.value_dim});
    const View<float, 3> lse(workspace.shared(lse_).data(), {p_.batch, p_.heads, shape_.clusters});
    const std::uint64_t* listed = workspace.shared(listed_).data();
    mean_engine_.run({clusters_.means(workspace), a.k, a.v, rest, lse}, workspace,
                     [&](const kernels::QueryBlock& queries, kernels::KeyList& keys) {
                       keys.all().except(listed + (queries.batch * p_.heads + queries.head) * p_.kv_len * words(), words());
                     });
    const std::int32_t* const chosen = workspace.shared(chosen_).data();
    parallel_tasks(p_.batch * p_.heads * shape_.clusters, [&](index_t task, int) {
      const index_t head = task / shape_.clusters, cluster = task % shape_.clusters, b = head / p_.heads, h = head % p_.heads;
      const auto table = clusters_.table(workspace, b, h);
      const double top = lse_of(a.k[b][p_.kv_head(h)], table.mean.data + cluster * table.mean.stride, chosen + task * topk_);
      const double ahead = top - static_cast<double>(lse(b, h, cluster));
      const auto mass = static_cast<float>(1 / (1 + std::exp(-ahead))), other = static_cast<float>(1 / (1 + std::exp(ahead)));
      const float* others = rest[b][h].row(cluster);
      for (auto i = table.begin[static_cast<std::size_t>(cluster)]; i < table.begin[static_cast<std::size_t>(cluster + 1)]; ++i) {
        kernels::mix_row(p_.value_dim, mass, other, others, a.out[b][h].row(table.order[static_cast<std::size_t>(i)]));
      }
    });
  }

  // Causal: of the queries by themselves, T_c held fixed.
  void backward(const FloatArrays& a, const ParameterSet<float>&, const FloatGradients& g, Workspace& workspace) const {
    with_schedules(workspace, [&](auto rows, auto keys) {
      engine_.backward({a.q, a.k, a.v}, {a.out, g.d_out, g.d_q, g.d_k, g.d_v}, workspace, rows, keys);
    });
  }

 private:
  struct Piece {
    std::int32_t first, count, cluster;  // queries order[first] .. order[first + count - 1]
  };

  // T_c of each cluster, and its queries in pieces.
  void choose_keys(const View<const float, 4>& keys, const Workspace& workspace) const {
    const ChoiceTime choosing;
    std::int32_t* chosen = workspace.shared(chosen_).data();
    Piece* piece = workspace.shared(piece_).data();
    parallel_tasks(p_.batch * p_.heads, [&](index_t head, int worker) {
      const auto table = clusters_.table(workspace, head / p_.heads, head % p_.heads);
      const auto k = keys[head / p_.heads][p_.kv_head(head % p_.heads)];
      top_({k.row(0), k.stride(0)}, table.mean, workspace, worker, chosen + head * shape_.clusters * topk_);
      if (!p_.causal)
        mark_listed(chosen + head * shape_.clusters * topk_, workspace.shared(listed_).data() + head * p_.kv_len * words());
      cut_into_pieces(table, piece + head * pieces_);
    });
  }

  // Calls use(rows, keys): the pieces' queries, and the keys of their cluster.
  template <class F>
  void with_schedules(const Workspace& workspace, F use) const {
    const std::int32_t* chosen = workspace.shared(chosen_).data();
    const Piece* piece = workspace.shared(piece_).data();
    const auto rows = [&](index_t b, index_t h, index_t i) {
      const Piece& own = piece[(b * p_.heads + h) * pieces_ + i];
      return clusters_.table(workspace, b, h)
          .order.subspan(static_cast<std::size_t>(own.first), static_cast<std::size_t>(own.count));
    };
    const auto keys = [&](const kernels::QueryBlock& queries, kernels::KeyList& list) {
      const index_t head = queries.batch * p_.heads + queries.head, cluster = piece[head * pieces_ + queries.block].cluster;
      list.listed(chosen + (head * shape_.clusters + cluster) * topk_, topk_);
    };
    use(kernels::RowSchedule(rows), kernels::KeySchedule(keys));
  }
  static constexpr index_t piece_rows = 96;  // of a cluster, at most: two wide tiles

  static kernels::ClusterShape shape(const Problem& p, const Options& o) {
    return {std::min(o.clusters, p.q_len), o.bits, o.iterations};
  }
  static Problem of_means(Problem p, const Options& o) { return p.q_len = shape(p, o).clusters, p.causal = false, p; }

  void cut_into_pieces(const kernels::ClusterTable& table, Piece* piece) const {
    const Piece* end = piece + pieces_;
    for (std::int32_t c = 0; c < shape_.clusters; ++c) {
      const std::int32_t last = table.begin[static_cast<std::size_t>(c) + 1];
      for (std::int32_t i = table.begin[static_cast<std::size_t>(c)]; i < last; i += piece_rows)
        *piece++ = {i, std::min(static_cast<std::int32_t>(piece_rows), last - i), c};
    }
    while (piece < end) *piece++ = {0, 0, 0};
  }

  // Bit c % 64 of word key * words() + c / 64: the key is in T_c.
  void mark_listed(const std::int32_t* chosen, std::uint64_t* listed) const {
    std::fill_n(listed, p_.kv_len * words(), 0);
    for (index_t t = 0; t < shape_.clusters * topk_; ++t) {
      const index_t cluster = t / topk_;
      listed[chosen[t] * words() + cluster / 64] |= std::uint64_t{1} << (cluster % 64);
    }
  }
  index_t words() const { return (shape_.clusters + 63) / 64; }

  // ln of the sum of a mean's weights on the listed keys.
  double lse_of(View<const float, 2> k, const float* mean, const std::int32_t* listed) const {
    double top = std::numeric_limits<double>::lowest(), sum = 0;
    for (index_t t = 0; t < topk_; ++t) {
      float dot;
      kernels::row_dots(1, p_.head_dim, {k.row(listed[t]), k.stride(0)}, mean, &dot);
      const double logit = p_.scale() * static_cast<double>(dot);
      if (logit > top) sum *= std::exp(std::exchange(top, logit) - logit);
      sum += std::exp(logit - top);
    }
    return top + std::log(sum);
  }

  Problem p_;
  kernels::ClusterShape shape_;
  index_t topk_, pieces_;
  kernels::QueryClusters clusters_;
  kernels::TopRows top_;
  kernels::SoftmaxEngine mean_engine_, engine_;
  Booking<std::int32_t> chosen_;
  Booking<Piece> piece_;
  Booking<std::uint64_t> listed_;
  Booking<float> rest_, lse_;
};
ATTN_VARIANT(clustered_improved, ClusteredImproved)

}  // namespace attn
