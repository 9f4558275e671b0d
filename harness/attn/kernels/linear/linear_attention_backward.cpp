#include "attn/kernels/linear/linear_attention_backward.hpp"

#include <algorithm>

#include "attn/core/round.hpp"
#include "attn/kernels/dense/gemm.hpp"
#include "attn/kernels/dense/rows.hpp"

namespace attn::kernels {

namespace {

// A causal panel has seven triangles of so many tokens a side beside five passes over the state, which favours short ones as in
// the forward pass.
constexpr index_t causal_panel = 16;

}  // namespace

struct LinearAttentionBackward::Scratch {
  float *phi_q, *phi_k;          // [panel][features]
  float *u, *y;                  // [panel][columns]
  float *phi_k_t, *y_t;          // and transposed
  float *weights, *d_weights;    // [panel][panel]   phi_q.phi_k and u.y
  float *gradient, *gradient_t;  // [panel][features] and transposed
  float* scale;                  // [panel]
  float *sum, *sum_t;            // [features][columns] and transposed
  index_t floats = 0;

  Scratch(float* at, index_t panel, index_t feature_stride, index_t column_stride) {
    const auto take = [&](index_t count) {
      float* const from = at == nullptr ? nullptr : at + floats;
      floats += round_up(count, 16);
      return from;
    };
    phi_q = take(panel * feature_stride);
    phi_k = take(panel * feature_stride);
    u = take(panel * column_stride);
    y = take(panel * column_stride);
    phi_k_t = take(feature_stride * panel);
    y_t = take(column_stride * panel);
    weights = take(panel * panel);
    d_weights = take(panel * panel);
    gradient = take(panel * feature_stride);
    gradient_t = take(feature_stride * panel);
    scale = take(panel);
    sum = take(feature_stride * column_stride);
    sum_t = take(feature_stride * column_stride);
  }
};

LinearAttentionBackward::LinearAttentionBackward(const Problem& p, index_t features, Denominators denominators,
                                                 WorkspacePlan& workspace)
    : p_(p),
      panel_(p.causal ? causal_panel : LinearAttention::max_panel),
      features_(features),
      feature_stride_(round_up(features, 16)),
      columns_(p.value_dim + 1),
      column_stride_(round_up(columns_, 16)),
      denominators_(denominators) {
  if (!workspace.training()) return;
  scratch_ = workspace.per_worker<float>(Scratch(nullptr, panel_, feature_stride_, column_stride_).floats);
  of_queries_ = workspace.shared<OfQuery>(p.batch * p.heads * p.q_len);
}

class LinearAttentionBackward::Run {
 public:
  Run(const LinearAttentionBackward& plan, const Views& x, const Workspace& workspace, FeatureMap query, FeatureMap key,
      FeaturePull query_pull, FeaturePull key_pull)
      : plan_(plan),
        p_(plan.p_),
        panel_(plan.panel_),
        x_(x),
        workspace_(workspace),
        query_(query),
        key_(key),
        query_pull_(query_pull),
        key_pull_(key_pull) {}

  void causal() const {
    parallel_tasks(p_.batch * p_.heads,
                   [&](index_t head, int worker) { queries_causal(head / p_.heads, head % p_.heads, worker); });
    parallel_tasks(p_.batch * p_.kv_heads,
                   [&](index_t head, int worker) { keys_causal(head / p_.kv_heads, head % p_.kv_heads, worker); });
  }

  void bidirectional() const {
    const index_t f = plan_.features_, c = plan_.columns_;
    parallel_tasks(p_.batch * p_.kv_heads, [&](index_t head, int worker) {
      const index_t b = head / p_.kv_heads, kv_head = head % p_.kv_heads;
      const Scratch s = scratch(worker);
      clear(s.sum_t, c, plan_.feature_stride_);
      for (index_t t = 0; t < p_.kv_len; t += panel_) {
        const index_t count = std::min(panel_, p_.kv_len - t);
        keys(b, kv_head, t, count, worker, s);
        gemm(c, f, count, y_columns(s), features(s.phi_k), sum_t(s), {.add = true});
      }
      clear(s.sum, f, plan_.column_stride_);
      for (index_t h = kv_head * group(); h < (kv_head + 1) * group(); ++h) {
        for (index_t i = 0; i < p_.q_len; i += panel_) {
          const index_t count = std::min(panel_, p_.q_len - i);
          queries(b, h, i, count, worker, s);
          row_dots(count, f, features(s.phi_q), total(s), s.scale);
          upstream(b, h, i, count, s);
          gemm(count, f, c, u_rows(s), sum_t(s), features(s.gradient));
          pull_queries(b, h, i, count, worker, s);
          gemm(f, c, count, {s.phi_q, 1, plan_.feature_stride_}, {s.u, plan_.column_stride_}, sum(s), {.add = true});
        }
      }
      transpose(f, c, sum(s), sum_t(s));
      for (index_t t = 0; t < p_.kv_len; t += panel_) {
        const index_t count = std::min(panel_, p_.kv_len - t);
        keys(b, kv_head, t, count, worker, s);
        gemm(count, f, c, {s.y, plan_.column_stride_}, sum_t(s), features(s.gradient));
        gemm(count, p_.value_dim, f, {s.phi_k, plan_.feature_stride_}, sum(s), rows_of(x_.d_v, b, kv_head, t));
        pull_keys(b, kv_head, t, count, worker, s);
      }
    });
  }

 private:
  // Rows of the queries that stand among keys t .. t + count - 1: the first stands at key t + skip.
  struct Among {
    index_t skip, row, rows;
  };
  Among among(index_t t, index_t count) const {
    const index_t offset = p_.query_position(0), skip = std::clamp<index_t>(offset - t, 0, count), row = t + skip - offset;
    return {skip, row, std::clamp<index_t>(p_.q_len - row, 0, count - skip)};
  }

  // The first sweep: d_q, and of_queries_ for the second.
  void queries_causal(index_t b, index_t h, int worker) const {
    const index_t f = plan_.features_, c = plan_.columns_, kv_head = p_.kv_head(h);
    const Scratch s = scratch(worker);
    clear(s.sum_t, c, plan_.feature_stride_);
    for (index_t i = 0; i < std::min(-p_.query_position(0), p_.q_len); ++i) {  // sees no key
      std::fill_n(rows_of(x_.d_q, b, h, i).data, p_.head_dim, 0.0f);
    }
    for (index_t t = 0; t < p_.kv_len; t += panel_) {
      const index_t count = std::min(panel_, p_.kv_len - t);
      const Among a = among(t, count);
      keys(b, kv_head, t, count, worker, s);
      if (a.rows > 0) {
        transpose_keys(count, s);
        queries(b, h, a.row, a.rows, worker, s);
        row_dots(a.rows, f, features(s.phi_q), total(s), s.scale);
        weigh(a, count, s);
        add_row_sums(a.rows, count, panel_rows(s.weights), s.scale);
        upstream(b, h, a.row, a.rows, s);
        weigh_upstream(a, count, s);
        const index_t next = a.row + a.rows;
        gemm(a.rows, f, c, u_rows(s), sum_t(s), features(s.gradient),
             {.fetch = {panel_at(x_.q, b, h, next), panel_at(x_.out, b, h, next), panel_at(x_.d_out, b, h, next)}});
        gemm(a.rows, f, count, {s.d_weights, panel_}, features(s.phi_k), features(s.gradient),
             {.add = true, .lower = Lower::left, .diagonal = a.skip});
        pull_queries(b, h, a.row, a.rows, worker, s);
      }
      gemm(c, f, count, y_columns(s), features(s.phi_k), sum_t(s),
           {.add = true, .fetch = {panel_at(x_.k, b, kv_head, t + count), panel_at(x_.v, b, kv_head, t + count)}});
    }
  }

  // The second, from the end: d_k and d_v.
  void keys_causal(index_t b, index_t kv_head, int worker) const {
    const index_t f = plan_.features_, c = plan_.columns_;
    const Scratch s = scratch(worker);
    clear(s.sum, f, plan_.column_stride_);
    for (index_t t = (p_.kv_len - 1) / panel_ * panel_; t >= 0; t -= panel_) {
      const index_t count = std::min(panel_, p_.kv_len - t);
      const Among a = among(t, count);
      const Into d_v = rows_of(x_.d_v, b, kv_head, t);
      keys(b, kv_head, t, count, worker, s);
      transpose_keys(count, s);
      // The other way round, so that the sum need not be transposed for each panel.
      gemm(f, count, c, {s.sum, plan_.column_stride_}, panel_rows(s.y_t), panel_rows(s.gradient_t));
      transpose(f, count, panel_rows(s.gradient_t), features(s.gradient));
      gemm(count, p_.value_dim, f, {s.phi_k, plan_.feature_stride_}, sum(s), d_v,
           {.fetch = {panel_at(x_.k, b, kv_head, t - panel_), panel_at(x_.v, b, kv_head, t - panel_)}});
      for (index_t h = kv_head * group(); h < (kv_head + 1) * group() && a.rows > 0; ++h) {
        const index_t next = a.row - panel_;
        queries(b, h, a.row, a.rows, worker, s);
        upstream_again(b, h, a.row, a.rows, s);
        weigh(a, count, s);
        weigh_upstream(a, count, s);
        gemm(count, f, a.rows, {s.d_weights, 1, panel_}, features(s.phi_q), features(s.gradient), {.add = true});
        gemm(count, p_.value_dim, a.rows, {s.weights, 1, panel_}, {s.u, plan_.column_stride_}, d_v, {.add = true});
        // What stands before this panel sees these queries by their sums.
        gemm(f, c, a.rows, {s.phi_q, 1, plan_.feature_stride_}, {s.u, plan_.column_stride_}, sum(s),
             {.add = true, .fetch = {panel_at(x_.q, b, h, next), panel_at(x_.out, b, h, next), panel_at(x_.d_out, b, h, next)}});
      }
      pull_keys(b, kv_head, t, count, worker, s);
    }
  }

  void keys(index_t b, index_t kv_head, index_t t, index_t count, int worker, const Scratch& s) const {
    key_({b, kv_head, t, count, rows_of(x_.k, b, kv_head, t), features(s.phi_k), s.scale, nullptr, worker});
    copy(count, p_.value_dim, rows_of(x_.v, b, kv_head, t), {s.y, plan_.column_stride_});
    for (index_t j = 0; j < count; ++j) s.y[j * plan_.column_stride_ + p_.value_dim] = 1;
  }
  void queries(index_t b, index_t h, index_t i, index_t count, int worker, const Scratch& s) const {
    query_({b, h, p_.query_position(i), count, rows_of(x_.q, b, h, i), features(s.phi_q), s.scale, nullptr, worker});
  }

  void transpose_keys(index_t count, const Scratch& s) const {
    transpose(count, plan_.features_, features(s.phi_k), panel_rows(s.phi_k_t));
    transpose(count, plan_.columns_, {s.y, plan_.column_stride_}, panel_rows(s.y_t));
  }

  // s.weights (i, j) = phi_q(q_i).phi_k(k_j) and s.d_weights = u_i.y_j for j <= i, zeros elsewhere.
  void weigh(const Among& a, index_t count, const Scratch& s) const {
    gemm(a.rows, count, plan_.features_, {s.phi_q, plan_.feature_stride_}, panel_rows(s.phi_k_t), panel_rows(s.weights),
         {.lower = Lower::result, .diagonal = a.skip});
  }
  void weigh_upstream(const Among& a, index_t count, const Scratch& s) const {
    gemm(a.rows, count, plan_.columns_, u_rows(s), panel_rows(s.y_t), panel_rows(s.d_weights),
         {.lower = Lower::result, .diagonal = a.skip});
  }

  // u, from the sums in s.scale; keeps of each row what another pass over d_out and out would tell.
  void upstream(index_t b, index_t h, index_t i, index_t count, const Scratch& s) const {
    const auto out = rows_of(x_.out, b, h, i);
    plan_.denominators_(count, s.scale);
    scale_rows(count, p_.value_dim, rows_of(x_.d_out, b, h, i), s.scale, {s.u, plan_.column_stride_});
    for (index_t r = 0; r < count; ++r) {
      float* const u = s.u + r * plan_.column_stride_;
      float dot = 0;
      row_dots(1, p_.value_dim, {u, 0}, out.data + r * out.stride, &dot);
      u[p_.value_dim] = -dot;
      kept(b, h, i + r) = {s.scale[r], -dot};
    }
  }
  void upstream_again(index_t b, index_t h, index_t i, index_t count, const Scratch& s) const {
    for (index_t r = 0; r < count; ++r) {
      const OfQuery& query = kept(b, h, i + r);
      s.scale[r] = query.scale;
      s.u[r * plan_.column_stride_ + p_.value_dim] = query.minus_dot;
    }
    scale_rows(count, p_.value_dim, rows_of(x_.d_out, b, h, i), s.scale, {s.u, plan_.column_stride_});
  }

  void pull_queries(index_t b, index_t h, index_t i, index_t count, int worker, const Scratch& s) const {
    query_pull_({{b, h, p_.query_position(i), count, rows_of(x_.q, b, h, i), features(s.phi_q), s.scale, nullptr, worker},
                 features(s.gradient),
                 rows_of(x_.d_q, b, h, i)});
  }
  void pull_keys(index_t b, index_t kv_head, index_t t, index_t count, int worker, const Scratch& s) const {
    key_pull_({{b, kv_head, t, count, rows_of(x_.k, b, kv_head, t), features(s.phi_k), s.scale, nullptr, worker},
               features(s.gradient),
               rows_of(x_.d_k, b, kv_head, t)});
  }

  static void clear(float* rows, index_t m, index_t stride) { std::fill_n(rows, m * stride, 0.0f); }
  static Rows rows_of(const View<const float, 4>& x, index_t b, index_t h, index_t i) { return {x[b][h].row(i), x.stride(2)}; }
  static Into rows_of(const View<float, 4>& x, index_t b, index_t h, index_t i) { return {x[b][h].row(i), x.stride(2)}; }
  // What comes next, to be fetched meanwhile.
  Fetch panel_at(const View<const float, 4>& x, index_t b, index_t h, index_t first) const {
    if (first < 0 || first >= x.extent(2)) return {};
    return {x[b][h].row(first), x.stride(2), std::min(panel_, x.extent(2) - first), x.extent(3)};
  }
  Into panel_rows(float* at) const { return {at, panel_}; }
  Into features(float* at) const { return {at, plan_.feature_stride_}; }
  Left u_rows(const Scratch& s) const { return {s.u, plan_.column_stride_}; }
  Left y_columns(const Scratch& s) const { return {s.y, 1, plan_.column_stride_}; }
  Into sum(const Scratch& s) const { return {s.sum, plan_.column_stride_}; }
  Into sum_t(const Scratch& s) const { return {s.sum_t, plan_.feature_stride_}; }
  const float* total(const Scratch& s) const { return s.sum_t + p_.value_dim * plan_.feature_stride_; }
  OfQuery& kept(index_t b, index_t h, index_t i) const {
    return workspace_.shared(plan_.of_queries_)[static_cast<std::size_t>((b * p_.heads + h) * p_.q_len + i)];
  }
  index_t group() const { return p_.heads / p_.kv_heads; }
  Scratch scratch(int worker) const {
    return {workspace_.of(worker, plan_.scratch_).data(), panel_, plan_.feature_stride_, plan_.column_stride_};
  }

  const LinearAttentionBackward& plan_;
  const Problem& p_;
  const index_t panel_;
  const Views& x_;
  const Workspace& workspace_;
  FeatureMap query_, key_;
  FeaturePull query_pull_, key_pull_;
};

void LinearAttentionBackward::run(const Views& x, const Workspace& workspace, FeatureMap query, FeatureMap key,
                                  FeaturePull query_pull, FeaturePull key_pull) const {
  const Run run(*this, x, workspace, query, key, query_pull, key_pull);
  p_.causal ? run.causal() : run.bidirectional();
}

}  // namespace attn::kernels
