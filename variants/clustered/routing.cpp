#include <array>
#include <cmath>

#include "attn/kernels/query_clusters.hpp"
#include "attn/kernels/row_attention.hpp"
#include "attn/kernels/rows.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// routing: each of C learned centroids takes the w queries and the w keys that fit it best; they attend to each other.
//   out_i = mean over the centroids c that took query i of y_ci; zeros where none did
//   y_ci = softmax over j in S^k_c of scale q'_i.k'_j, values v_j;  q' = LN(q), k' = LN(k), S_c the top w of LN(.).mu_c
//   causal: j <= i, and keys are queries (k' = q', S^k = S^q), as the authors' decoder
//   Roy et al. 2021, arXiv:2003.05997, section 4 and the authors' code; scale 1/sqrt(D) as in attention (their code has 1)
//   useful flops 2 C w^2 (D + Dv), about half when causal, + 2 N C D for each of queries and keys: O(N^1.5) at C = sqrt(N), w =
//   N/C; workspace N Dv and the lists
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
        .choice("sharing", &Options::sharing, {{"auto", Sharing::automatic}, {"yes", Sharing::yes}, {"no", Sharing::no}},
                "yes: keys are the queries; auto: when causal")
        .number("logit_scale", &Options::logit_scale, 0, 1000, "factor on q'.k'; 0: 1/sqrt(D)");
  }

  static VariantInfo info() {
    return {.title = "Routing Transformer",
            .formula = "mean over the clusters of q_i of softmax over the cluster's keys, q and k layer-normalised",
            .paper = "Roy et al. 2021, arXiv:2003.05997, section 4",
            .cost_in_n = "N clusters D + clusters window^2 D",
            .exactness = Exactness::approximation,
            .cross = false,
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
    return {{"centroids", {p.heads, clusters(p, o), p.head_dim}, draw, false}};
  }

  static Status supports(const Problem& p, const Options& o) {
    if (p.causal && o.sharing == Sharing::no)
      return refuse("causal routing takes the queries as keys: give sharing=auto or sharing=yes");
    return {};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const auto c = static_cast<double>(clusters(p, o)), w = static_cast<double>(window(p, o));
    Cost cost = softmax_cost(p, c * (p.causal ? w * (w + 1) / 2 : w * w));
    cost.flops += 2 * c * static_cast<double>(p.batch * p.heads * p.q_len * p.head_dim * (shared(p, o) ? 1 : 2));
    return cost;
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Inputs<T>& in, const ParameterSet<T>& parameters) {
    const index_t c = clusters(p, o), w = window(p, o);
    const Tensor<float> centroids = cast<float>(parameters["centroids"]);
    const auto taken = [&](const Tensor<T>& x) {
      const Tensor<float> rows = cast<float>(x);
      Indices list({p.batch, p.heads, c, w});
      for (index_t head = 0; head < p.batch * p.heads; ++head) {
        const auto top = kernels::top_rows(p.q_len, p.head_dim, rows.data() + head * p.q_len * p.head_dim, c,
                                           centroids.data() + head % p.heads * c * p.head_dim, w,
                                           kernels::TopRows::Of::normalised_rows);
        std::copy(top.begin(), top.end(), list.writable() + head * c * w);
      }
      return list;
    };
    const Tensor<T>& key_source = shared(p, o) ? in.q : in.k;
    const Indices queries = taken(in.q), keys = shared(p, o) ? queries : taken(in.k);
    const auto gathered = [](const Tensor<T>& x, const Indices& rows) { return gather_rows(unsqueeze(x, 2), rows); };
    const Tensor<T> logits =
        matmul_transposed(gathered(layer_norm(in.q, 1e-6), queries), gathered(layer_norm(key_source, 1e-6), keys));
    const Mask allowed = mask({p.batch, p.heads, c, w, w}, [&](index_t b, index_t h, index_t u, index_t i, index_t j) {
      return !p.causal || keys(b, h, u, j) <= queries(b, h, u, i);
    });
    const Tensor<T> y = matmul(softmax(logits * static_cast<T>(scale(p, o)), allowed), gathered(in.v, keys));
    const Indices slots = queries.reshaped({p.batch, p.heads, c * w});
    const Tensor<T> visits = scatter_add_rows(ones<T>({p.batch, p.heads, c * w, 1}), slots, p.q_len);
    return scatter_add_rows(reshape(y, {p.batch, p.heads, c * w, p.value_dim}), slots, p.q_len) / maximum(visits, 1);
  }

  Routing(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        c_(clusters(p, o)),
        w_(window(p, o)),
        sides_(shared(p, o) ? 1 : 2),
        top_(p.q_len, c_, p.head_dim, w_, kernels::TopRows::Of::normalised_rows, workspace),
        attention_(p.head_dim, p.value_dim, scale(p, o), workspace),
        normal_(workspace.per_worker<float>(sides_ * w_ * p.head_dim)),
        list_(workspace.shared<std::int32_t>(sides_ * p.batch * p.heads * c_ * w_)),
        answers_(workspace.shared<float>(p.batch * p.heads * c_ * w_ * p.value_dim)),
        slot_(workspace.shared<std::int32_t>(p.batch * p.heads * c_ * w_)),
        begin_(workspace.shared<std::int32_t>(p.batch * p.heads * (p.q_len + 1))) {}

  // Choose, attend cluster by cluster, and average for each token. Rows are normalised where they are used, twice: to write them
  // and read them again takes longer.
  void run(const FloatInputs& in, const ParameterSet<float>& parameters, Output out, Workspace& workspace) const {
    choose(in, parameters, workspace);
    const index_t heads = p_.batch * p_.heads, d = p_.head_dim, dv = p_.value_dim;
    const std::int32_t* list = workspace.shared(list_).data();
    float* answers = workspace.shared(answers_).data();
    parallel_tasks(heads * c_, [&](index_t task, int worker) {
      const index_t b = task / c_ / p_.heads, h = task / c_ % p_.heads;
      const auto q = in.q[b][h], k = sides_ > 1 ? in.k[b][h] : q, v = in.v[b][h];
      const auto queries = [&](index_t t) { return list + t * w_; };
      const auto keys = [&](index_t t) { return list + ((sides_ - 1) * heads * c_ + t) * w_; };
      float* own_q = workspace.of(worker, normal_).data();
      float* own_k = own_q + (sides_ - 1) * w_ * d;
      kernels::layer_norm(w_, d, {q.row(0), q.stride(0)}, {own_q, d}, queries(task));
      if (sides_ > 1) kernels::layer_norm(w_, d, {k.row(0), k.stride(0)}, {own_k, d}, keys(task));

      const kernels::SightRule causal{queries(task), keys(task), kernels::SightRule::lowest, 0};
      const auto rules = static_cast<std::size_t>(p_.causal ? 1 : 0);
      const kernels::RowKeys seen{{own_k, d}, {v.row(0), v.stride(0), keys(task)}, w_, {&causal, rules}};
      const index_t next = task % c_ + 1 < c_ ? task + 1 : task;
      const std::array soon_k{kernels::FetchRows{{q.row(0), q.stride(0), queries(next)}, w_},
                              kernels::FetchRows{{k.row(0), k.stride(0), keys(next)}, sides_ > 1 ? w_ : 0}};
      const std::array soon_v{kernels::FetchRows{{v.row(0), v.stride(0), keys(next)}, w_},
                              kernels::FetchRows{{answers + next * w_ * dv, dv}, w_}};
      attention_({.q = {own_q, d},
                  .out = {answers + task * w_ * dv, dv},
                  .count = w_,
                  .keys = {&seen, 1},
                  .soon_k = soon_k,
                  .soon_v = soon_v},
                 workspace, worker);
    });
    average({answers, {p_.batch, p_.heads, c_ * w_, dv}}, out, workspace);
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

  void choose(const FloatInputs& in, const ParameterSet<float>& parameters, const Workspace& workspace) const {
    const index_t heads = p_.batch * p_.heads, d = p_.head_dim, n = p_.q_len;
    const auto centroids = parameters.view<3>("centroids");
    parallel_tasks(sides_ * heads, [&](index_t head, int worker) {
      const auto x = (head < heads ? in.q : in.k)[head % heads / p_.heads][head % p_.heads];
      const auto list =
          workspace.shared(list_).subspan(static_cast<std::size_t>(head * c_ * w_), static_cast<std::size_t>(c_ * w_));
      top_({x.row(0), x.stride(0)}, {centroids[head % p_.heads].row(0), d}, workspace, worker, list.data());
      if (head >= heads) return;
      // The slots of each query, in the order of the clusters.
      kernels::sort_by_group(
          list, workspace.shared(slot_).subspan(static_cast<std::size_t>(head * c_ * w_), list.size()),
          workspace.shared(begin_).subspan(static_cast<std::size_t>(head * (n + 1)), static_cast<std::size_t>(n + 1)));
    });
  }

  void average(Output answers, Output out, const Workspace& workspace) const {
    const index_t n = p_.q_len, blocks = (n + block - 1) / block;
    parallel_tasks(p_.batch * p_.heads * blocks, [&](index_t task, int) {
      const index_t head = task / blocks, first = task % blocks * block, count = std::min(n - first, block);
      const auto from = answers[head / p_.heads][head % p_.heads];
      const auto to = out[head / p_.heads][head % p_.heads];
      const auto slots = workspace.shared(slot_).subspan(static_cast<std::size_t>(head * c_ * w_), static_cast<std::size_t>(c_ * w_));
      const auto begin = workspace.shared(begin_).subspan(static_cast<std::size_t>(head * (n + 1) + first));
      kernels::means_of_groups(slots, begin.first(static_cast<std::size_t>(count + 1)), p_.value_dim, {from.row(0), from.stride(0)},
                               {to.row(first), to.stride(0)});
    });
  }

  Problem p_;
  index_t c_, w_, sides_;
  kernels::TopRows top_;
  kernels::RowAttention attention_;
  Booking<float> normal_;
  Booking<std::int32_t> list_;
  Booking<float> answers_;
  Booking<std::int32_t> slot_, begin_;
};
ATTN_VARIANT(routing, Routing)

}  // namespace attn
