#include "attn/kernels/choose/query_clusters.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/softmax/engine.hpp"
#include "attn/variant/backward_cost.hpp"
#include "attn/variant/query_clusters.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// clustered: similar queries share one answer, that of their mean.
//   out_i = softmax(Qc K^T / sqrt(D)) V,  Qc = mean of the queries in the cluster of q_i
//   clusters by k-means in Hamming space over the signs of `bits` random projections with thresholds, planes and thresholds N(0, 1)
//   Vyas et al. 2020, arXiv:2007.04825, section 3.2; an empty cluster starts again from a random query
//   useful flops 2 clusters M (D + Dv) + 2 N D bits, and iterations N clusters Hamming distances, which are no flops;
//   workspace 24 N bytes and clusters (D + Dv)
// More clusters than queries are as many as queries. A cluster mixes all queries: no causal form.
struct Clustered {
  struct Options {
    index_t clusters = 128, bits = 63, iterations = 10;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("clusters", &Options::clusters, 1, 1 << 20, "clusters of queries in each head")
        .budget()
        .integer("bits", &Options::bits, 1, 64, "sign bits of a query")
        .integer("iterations", &Options::iterations, 1, 1000, "assignments of k-means");
  }

  static VariantInfo info() {
    return {.title = "Clustered attention",
            .formula = "out_i = softmax(q.K / sqrt(D)) V with q the mean of the cluster of q_i",
            .paper = "Vyas et al. 2020, arXiv:2007.04825, section 3.2",
            .cost_in_n = "N clusters D",
            .exactness = Exactness::approximation,
            .causality = Causality::never,
            .grouped_heads = true,
            .row_wise = false,
            .randomised = true,
            .membership_sees_future = true,
            .time_exponent = 1,
            .acausal = "queries of a cluster, early and late ones, share one row of weights"};
  }

  static Parameters parameters(const Problem& p, const Options& o) { return query_cluster_tables(p, shape(p, o)); }

  static Status supports(const Problem& p, const Options&) {
    if (p.q_len > index_t{1} << 24) return refuse("numbers queries in float tables: q_len is above 2^24");
    return {};
  }

  static Cost cost(const Problem& p, const Options& o) {
    Cost cost = softmax_cost(p, static_cast<double>(shape(p, o).clusters * p.kv_len));
    cost.flops += 2 * static_cast<double>(p.batch * p.heads * p.q_len * p.head_dim * o.bits);
    return cost;
  }

  static Cost backward_cost(const Problem& p, const Options& o) { return chosen_keys_backward_cost(p, cost(p, o)); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<float> q = cast<float>(in.q), planes = cast<float>(parameters["planes"]),
                        starts = cast<float>(parameters["starts"]);
    const index_t clusters = shape(p, o).clusters;
    Indices group({p.batch, p.heads, p.q_len});
    for (index_t head = 0; head < p.batch * p.heads; ++head) {
      const auto table = kernels::cluster_rows(p.q_len, p.head_dim, q.data() + head * p.q_len * p.head_dim, shape(p, o),
                                               planes.data(), starts.data());
      std::copy(table.group.begin(), table.group.end(), group.writable() + head * p.q_len);
    }
    const Tensor<T> members = transpose(one_hot<T>(group, clusters));
    const Tensor<T> means = matmul(members, in.q) / maximum(sum(members, -1, Keep::yes), 1);
    const Tensor<T> logits = matmul_transposed(means, per_query_head(p, in.k)) * static_cast<T>(p.scale());
    return gather_rows(matmul(softmax(logits), per_query_head(p, in.v)), group);
  }

  Clustered(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        shape_(shape(p, o)),
        clusters_(p, shape_, workspace),
        engine_(of_means(p, o), {}, workspace),
        answers_(workspace.shared<float>(p.batch * p.heads * shape_.clusters * p.value_dim)) {
    if (!workspace.training()) return;
    d_answers_ = workspace.shared<float>(answers_.count);
    d_means_ = workspace.shared<float>(p.batch * p.heads * shape_.clusters * p.head_dim);
  }

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    clusters_.run(a.q, parameters.view<2>("planes"), parameters.view<2>("starts"), workspace);
    const View<float, 4> answers(workspace.shared(answers_).data(), {p_.batch, p_.heads, shape_.clusters, p_.value_dim});
    engine_.run({clusters_.means(workspace), a.k, a.v, answers}, workspace, kernels::all_keys);
    const index_t blocks = (p_.q_len + block - 1) / block;
    parallel_tasks(p_.batch * p_.heads * blocks, [&](index_t task, int) {
      const index_t b = task / blocks / p_.heads, h = task / blocks % p_.heads;
      const auto group = clusters_.table(workspace, b, h).group;
      const auto from = answers[b][h];
      const auto to = a.out[b][h];
      for (index_t i = task % blocks * block; i < std::min(p_.q_len, (task % blocks + 1) * block); ++i)
        std::copy_n(from.row(group[static_cast<std::size_t>(i)]), p_.value_dim, to.row(i));
    });
  }

  // Clusters are held fixed: an answer has the sum of its members' gradients, a member its share of its mean's.
  void backward(const FloatArrays& a, const ParameterSet<float>&, const FloatGradients& g, Workspace& workspace) const {
    const index_t d = p_.head_dim, dv = p_.value_dim;
    const auto of_clusters = [&](const Booking<float>& booking, index_t width) {
      return View<float, 4>(workspace.shared(booking).data(), {p_.batch, p_.heads, shape_.clusters, width});
    };
    const View<float, 4> answers = of_clusters(answers_, dv), d_answers = of_clusters(d_answers_, dv),
                         d_means = of_clusters(d_means_, d);
    const auto for_each_cluster = [&](auto f) {
      parallel_tasks(p_.batch * p_.heads, [&](index_t head, int) {
        const auto table = clusters_.table(workspace, head / p_.heads, head % p_.heads);
        for (std::size_t c = 0; c + 1 < table.begin.size(); ++c) {
          const auto first = static_cast<std::size_t>(table.begin[c]), end = static_cast<std::size_t>(table.begin[c + 1]);
          f(head / p_.heads, head % p_.heads, static_cast<index_t>(c), table.order.subspan(first, end - first));
        }
      });
    };
    for_each_cluster([&](index_t batch, index_t h, index_t cluster, std::span<const std::int32_t> members) {
      float* to = d_answers[batch][h].row(cluster);
      std::fill_n(to, dv, 0.0f);
      for (const std::int32_t i : members) kernels::add(1, dv, {g.d_out[batch][h].row(i), dv}, {to, dv});
    });
    engine_.backward({clusters_.means(workspace), a.k, a.v}, {answers, d_answers, d_means, g.d_k, g.d_v}, workspace,
                     kernels::all_keys);
    for_each_cluster([&](index_t batch, index_t h, index_t cluster, std::span<const std::int32_t> members) {
      const float share = 1 / static_cast<float>(members.size());
      for (const std::int32_t i : members)
        kernels::scale_rows(1, d, {d_means[batch][h].row(cluster), d}, &share, {g.d_q[batch][h].row(i), d});
    });
  }

 private:
  static constexpr index_t block = 512;  // rows that a task copies

  static kernels::ClusterShape shape(const Problem& p, const Options& o) {
    return {std::min(o.clusters, p.q_len), o.bits, o.iterations};
  }
  static Problem of_means(Problem p, const Options& o) { return p.q_len = shape(p, o).clusters, p; }

  Problem p_;
  kernels::ClusterShape shape_;
  kernels::QueryClusters clusters_;
  kernels::SoftmaxEngine engine_;
  Booking<float> answers_, d_answers_, d_means_;
};
ATTN_VARIANT(clustered, Clustered)

}  // namespace attn
