#include <array>
#include <cmath>

#include "attn/exec/choice_time.hpp"
#include "attn/kernels/choose/query_clusters.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/softmax/row_attention.hpp"
#include "attn/kernels/softmax/row_attention_backward.hpp"
#include "attn/variant/backward_cost.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// routing: each of C learned centroids takes the w queries and the w keys that fit it best; they attend to each other.
//   out_i = mean over the centroids c that took query i of y_ci; zeros where none did
//   y_ci = softmax over j in S^k_c of scale q'_i.k'_j, values v_j;  q' = LN(q), k' = LN(k), S_c the top w of LN(.).mu_c
//   causal: j <= i, and keys are queries (k' = q', S^k = S^q), as the authors' decoder
//   Roy et al. 2021, arXiv:2003.05997, section 4 and the authors' code; scale 1/sqrt(D) as in attention (their code has 1)
//   useful flops 2 C w^2 (D + Dv), about half when causal, + 2 N C D for each of queries and keys: O(N^1.5) at C = sqrt(N),
//   w = N / C; workspace N Dv and the lists of as many heads as threads
// A mean of softmaxes, not one softmax over the union. Membership depends on every token, later ones too, even when causal.
// Centroids are not trained by gradient but by kernels::update_centroids.
struct Routing {
  enum class Sharing { automatic, yes, no };
  struct Options {
    index_t clusters = 0, window = 0;
    Sharing sharing = Sharing::automatic;
    double logit_scale = 0;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("clusters", &Options::clusters, 0, 65536, "centroids of each head; 0: sqrt(N)")
        .integer("window", &Options::window, 0, 1 << 20,
                 "queries and keys that a centroid takes, at most N; 0: N / clusters, rounded up")
        .budget()
        .choice("sharing", &Options::sharing, {{"auto", Sharing::automatic}, {"yes", Sharing::yes}, {"no", Sharing::no}},
                "yes: keys are the queries; auto: when causal")
        .number("logit_scale", &Options::logit_scale, 0, 1000, "factor on q'.k'; 0: 1/sqrt(D)");
  }

  static VariantInfo info() {
    return {.title = "Routing Transformer",
            .formula = "mean over the clusters of q_i of softmax over the cluster's keys, q and k layer-normalised",
            .paper = "Roy et al. 2021, arXiv:2003.05997, section 4",
            .cost_in_n = "N clusters D + clusters window^2 D",
            .fine_print =
                "The norm is (x - mean) / sqrt(variance + 1e-6), without gain and bias. A query that no "
                "centroid took gives zeros. When causal keys are the queries.",
            .exactness = Exactness::approximation,
            .cross = false,
            .grouped_heads = true,
            .row_wise = false,
            .randomised = true,
            .membership_sees_future = true,
            .time_exponent = 1.5};
  }

  // LN(N(0, 1)), as the authors begin.
  static Parameters parameters(const Problem& p, const Options& o) {
    const auto draw = [](std::span<float> values, const Shape& shape, const Rng& rng) {
      init::normal(1)(values, shape, rng);
      const index_t d = shape.back(), rows = static_cast<index_t>(values.size()) / d;
      kernels::layer_norm(rows, d, {values.data(), d}, {values.data(), d});
    };
    return {{.name = "centroids",
             .shape = {p.heads, clusters(p, o), p.head_dim},
             .init = draw,
             .trainable = false,
             .axes = "heads, clusters, head_dim",
             .doc = "mu_c: tokens are taken by LN(x).mu_c"}};
  }

  static Status supports(const Problem& p, const Options& o) {
    if (p.causal && o.sharing == Sharing::no)
      return refuse("causal routing takes the queries as keys: give sharing=auto or sharing=yes");
    return {};
  }

  static Status supports_backward(const Problem& p, const Options&) { return ungrouped(p); }

  static Cost cost(const Problem& p, const Options& o) {
    const auto c = static_cast<double>(clusters(p, o)), w = static_cast<double>(window(p, o));
    Cost cost = softmax_cost(p, c * (p.causal ? w * (w + 1) / 2 : w * w));
    cost.flops += 2 * c * static_cast<double>(p.batch * p.heads * p.q_len * p.head_dim * (shared(p, o) ? 1 : 2));
    return cost;
  }

  static Cost backward_cost(const Problem& p, const Options& o) { return chosen_keys_backward_cost(p, cost(p, o)); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const index_t c = clusters(p, o), w = window(p, o);
    const Tensor<float> centroids = cast<float>(parameters["centroids"]);
    const auto taken = [&](const Tensor<T>& x) {
      const Tensor<float> rows = cast<float>(x);
      Indices list({p.batch, p.heads, c, w});
      for (index_t head = 0; head < p.batch * p.heads; ++head) {
        const auto top =
            kernels::top_rows(p.q_len, p.head_dim, rows.data() + head * p.q_len * p.head_dim, c,
                              centroids.data() + head % p.heads * c * p.head_dim, w, kernels::TopRows::Of::normalised_rows);
        std::copy(top.begin(), top.end(), list.writable() + head * c * w);
      }
      return list;
    };
    const Tensor<T> key_source = shared(p, o) ? in.q : per_query_head(p, in.k), values = per_query_head(p, in.v);
    const Indices queries = taken(in.q), keys = shared(p, o) ? queries : taken(key_source);
    const auto gathered = [](const Tensor<T>& x, const Indices& rows) { return gather_rows(unsqueeze(x, 2), rows); };
    const Tensor<T> logits =
        matmul_transposed(gathered(layer_norm(in.q, 1e-6), queries), gathered(layer_norm(key_source, 1e-6), keys));
    const Mask allowed = mask({p.batch, p.heads, c, w, w}, [&](index_t b, index_t h, index_t u, index_t i, index_t j) {
      return !p.causal || keys(b, h, u, j) <= queries(b, h, u, i);
    });
    const Tensor<T> y = matmul(softmax(logits * static_cast<T>(scale(p, o)), allowed), gathered(values, keys));
    const Indices slots = queries.reshaped({p.batch, p.heads, c * w});
    const Tensor<T> visits = scatter_add_rows(ones<T>({p.batch, p.heads, c * w, 1}), slots, p.q_len);
    return scatter_add_rows(reshape(y, {p.batch, p.heads, c * w, p.value_dim}), slots, p.q_len) / maximum(visits, 1);
  }

  Routing(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        c_(clusters(p, o)),
        w_(window(p, o)),
        sides_(shared(p, o) ? 1 : 2),
        at_once_(workspace.training() ? p.batch * p.heads : std::min<index_t>(workspace.threads(), p.batch * p.heads)),
        top_(p.q_len, c_, p.head_dim, w_, kernels::TopRows::Of::normalised_rows, workspace),
        attention_(p.head_dim, p.value_dim, scale(p, o), workspace),
        gradient_(p.head_dim, p.value_dim, scale(p, o), workspace),
        normal_(workspace.per_worker<float>(sides_ * w_ * p.head_dim)),
        list_(workspace.shared<std::int32_t>(sides_ * at_once_ * c_ * w_)),
        answers_(workspace.shared<float>(at_once_ * c_ * w_ * p.value_dim)),
        slot_(workspace.shared<std::int32_t>(at_once_ * c_ * w_)),
        begin_(workspace.shared<std::int32_t>(at_once_ * (p.q_len + 1))) {
    if (!workspace.training()) return;
    lse_ = workspace.shared<float>(at_once_ * c_ * w_);
    d_answers_ = workspace.per_worker<float>(w_ * p.value_dim);
  }

  // Choose, attend cluster by cluster, and average for each token; as many heads at once as there are threads, while they are near.
  // Rows are normalised where they are used, twice: to write them and read them again takes longer.
  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    for (index_t first = 0; first < p_.batch * p_.heads; first += at_once_) {
      const index_t heads = std::min(at_once_, p_.batch * p_.heads - first);
      choose(a, parameters, workspace, first, heads);
      parallel_tasks(heads * c_,
                     [&](index_t task, int worker) { attend_cluster(a, workspace, first, task / c_, task % c_, worker); });
      average(a.out, workspace, first, heads);
    }
  }

  // What the centroids took is held fixed. A query's gradient goes in equal parts to its answers; those of normalised queries and
  // keys are summed over the clusters, which one thread takes, and then go through the norm.
  void backward(const FloatArrays& a, const ParameterSet<float>&, const FloatGradients& g, Workspace& workspace) const {
    parallel_tasks(p_.batch * p_.heads, [&](index_t head, int worker) {
      const index_t batch = head / p_.heads, h = head % p_.heads, d = p_.head_dim, dv = p_.value_dim, n = p_.q_len;
      const auto d_q = g.d_q[batch][h], d_k = g.d_k[batch][h], d_v = g.d_v[batch][h];
      const auto d_out = g.d_out[batch][h];
      for (const auto& rows : {d_q, d_k, d_v}) {
        for (index_t i = 0; i < n; ++i) std::fill_n(rows.row(i), rows.extent(1), 0.0f);
      }
      const auto& d_normal_k = sides_ > 1 ? d_k : d_q;
      const auto first_slot = begin(workspace, head);
      const kernels::Into d_answers{workspace.of(worker, d_answers_).data(), dv};
      for (index_t cluster = 0; cluster < c_; ++cluster) {
        const std::int32_t *queries = list(workspace, 0, head, cluster), *keys = list(workspace, sides_ - 1, head, cluster);
        for (index_t i = 0; i < w_; ++i) {
          const auto query = static_cast<std::size_t>(queries[i]);
          const float share = 1 / static_cast<float>(first_slot[query + 1] - first_slot[query]);
          kernels::scale_rows(1, dv, {d_out.row(queries[i]), dv}, &share, {d_answers.data + i * dv, dv});
        }
        const kernels::RowGroupGradients::Keys to{{d_normal_k.row(0), d_normal_k.stride(0), keys},
                                                  {d_v.row(0), d_v.stride(0), keys}};
        with_cluster(a, workspace, head, head, cluster, worker, [&](const kernels::RowGroup& group) {
          gradient_(group,
                    {.out = {answers(workspace, head, cluster), dv},
                     .d_out = {d_answers.data, dv},
                     .d_q = {d_q.row(0), d_q.stride(0), queries},
                     .keys = {&to, 1}},
                    workspace, worker);
        });
      }
      const auto q = a.q[batch][h], k = a.k[batch][h];
      kernels::layer_norm_gradient(n, d, {q.row(0), q.stride(0)}, {d_q.row(0), d_q.stride(0)});
      if (sides_ > 1) kernels::layer_norm_gradient(n, d, {k.row(0), k.stride(0)}, {d_k.row(0), d_k.stride(0)});
    });
  }

 private:
  static constexpr index_t block = 256;  // rows that a task averages

  static index_t clusters(const Problem& p, const Options& o) {
    return o.clusters > 0 ? o.clusters : std::max<index_t>(1, std::lround(std::sqrt(static_cast<double>(p.q_len))));
  }
  static index_t window(const Problem& p, const Options& o) {
    return std::min(p.q_len, o.window > 0 ? o.window : (p.q_len + clusters(p, o) - 1) / clusters(p, o));
  }
  static bool shared(const Problem& p, const Options& o) {
    return o.sharing == Sharing::yes || (o.sharing == Sharing::automatic && p.causal);
  }
  static double scale(const Problem& p, const Options& o) { return o.logit_scale > 0 ? o.logit_scale : p.scale(); }

  // What the cluster's centroid took of head first + h.
  std::int32_t* list(const Workspace& workspace, index_t side, index_t h, index_t cluster) const {
    return workspace.shared(list_).data() + ((side * at_once_ + h) * c_ + cluster) * w_;
  }
  float* answers(const Workspace& workspace, index_t h, index_t cluster) const {
    return workspace.shared(answers_).data() + (h * c_ + cluster) * w_ * p_.value_dim;
  }
  // The slots of each query, in the order of the clusters.
  std::span<std::int32_t> slots(const Workspace& workspace, index_t h) const {
    return workspace.shared(slot_).subspan(static_cast<std::size_t>(h * c_ * w_), static_cast<std::size_t>(c_ * w_));
  }
  std::span<std::int32_t> begin(const Workspace& workspace, index_t h) const {
    return workspace.shared(begin_).subspan(static_cast<std::size_t>(h * (p_.q_len + 1)), static_cast<std::size_t>(p_.q_len + 1));
  }

  void choose(const FloatArrays& a, const ParameterSet<float>& parameters, const Workspace& workspace, index_t first,
              index_t heads) const {
    const ChoiceTime choosing;
    const auto centroids = parameters.view<3>("centroids");
    parallel_tasks(sides_ * heads, [&](index_t task, int worker) {
      const index_t side = task / heads, h = task % heads, head = first + h;
      const auto x = side == 0 ? a.q[head / p_.heads][head % p_.heads] : a.k[head / p_.heads][p_.kv_head(head % p_.heads)];
      std::int32_t* own = list(workspace, side, h, 0);
      top_({x.row(0), x.stride(0)}, {centroids[head % p_.heads].row(0), p_.head_dim}, workspace, worker, own);
      if (side == 0) kernels::sort_by_group({own, static_cast<std::size_t>(c_ * w_)}, slots(workspace, h), begin(workspace, h));
    });
  }

  // Calls use(group): what the cluster's centroid took of `head`, whose tables are the h-th.
  template <class F>
  void with_cluster(const FloatArrays& a, const Workspace& workspace, index_t head, index_t h, index_t cluster, int worker,
                    F use) const {
    const index_t d = p_.head_dim, b = head / p_.heads, own_head = head % p_.heads;
    const auto q = a.q[b][own_head], k = a.k[b][p_.kv_head(own_head)], v = a.v[b][p_.kv_head(own_head)];
    const std::int32_t *queries = list(workspace, 0, h, cluster), *keys = list(workspace, sides_ - 1, h, cluster);
    float* normal_q = workspace.of(worker, normal_).data();
    float* normal_k = normal_q + (sides_ - 1) * w_ * d;
    kernels::layer_norm(w_, d, {q.row(0), q.stride(0)}, {normal_q, d}, queries);
    if (sides_ > 1) kernels::layer_norm(w_, d, {k.row(0), k.stride(0)}, {normal_k, d}, keys);
    const kernels::SightRule causal{queries, keys, kernels::SightRule::lowest, 0};
    const kernels::RowKeys seen{
        {normal_k, d}, {v.row(0), v.stride(0), keys}, w_, {&causal, static_cast<std::size_t>(p_.causal ? 1 : 0)}};
    float* lse = lse_.count > 0 ? workspace.shared(lse_).data() + (h * c_ + cluster) * w_ : nullptr;
    use(kernels::RowGroup{.q = {normal_q, d}, .out = {}, .count = w_, .keys = {&seen, 1}, .lse = {lse, 1}});
  }

  void attend_cluster(const FloatArrays& a, const Workspace& workspace, index_t first, index_t h, index_t cluster,
                      int worker) const {
    const index_t b = (first + h) / p_.heads, own_head = (first + h) % p_.heads, next = std::min(cluster + 1, c_ - 1);
    const auto q = a.q[b][own_head], k = a.k[b][p_.kv_head(own_head)], v = a.v[b][p_.kv_head(own_head)];
    const std::int32_t *queries = list(workspace, 0, h, next), *keys = list(workspace, sides_ - 1, h, next);
    const std::array soon_k{kernels::FetchRows{{q.row(0), q.stride(0), queries}, w_},
                            kernels::FetchRows{{k.row(0), k.stride(0), keys}, sides_ > 1 ? w_ : 0}};
    const std::array soon_v{kernels::FetchRows{{v.row(0), v.stride(0), keys}, w_}};
    with_cluster(a, workspace, first + h, h, cluster, worker, [&](kernels::RowGroup group) {
      group.out = {answers(workspace, h, cluster), p_.value_dim};
      group.soon_k = soon_k;
      group.soon_v = soon_v;
      attention_(group, workspace, worker);
    });
  }

  void average(const View<float, 4>& out, const Workspace& workspace, index_t first, index_t heads) const {
    const index_t n = p_.q_len, blocks = (n + block - 1) / block;
    parallel_tasks(heads * blocks, [&](index_t task, int) {
      const index_t h = task / blocks, row = task % blocks * block, count = std::min(n - row, block);
      const auto to = out[(first + h) / p_.heads][(first + h) % p_.heads];
      kernels::means_of_groups(slots(workspace, h),
                               begin(workspace, h).subspan(static_cast<std::size_t>(row), static_cast<std::size_t>(count + 1)),
                               p_.value_dim, {answers(workspace, h, 0), p_.value_dim}, {to.row(row), to.stride(0)});
    });
  }

  Problem p_;
  index_t c_, w_, sides_;
  index_t at_once_;  // heads
  kernels::TopRows top_;
  kernels::RowAttention attention_;
  kernels::RowAttentionBackward gradient_;
  Booking<float> normal_, lse_, d_answers_;
  Booking<std::int32_t> list_;
  Booking<float> answers_;
  Booking<std::int32_t> slot_, begin_;
};
ATTN_VARIANT(routing, Routing)

}  // namespace attn
