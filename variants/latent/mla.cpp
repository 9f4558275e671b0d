#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/rows/rows_engine.hpp"
#include "attn/kernels/softmax/engine.hpp"
#include "attn/kernels/softmax/latent_rows.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// mla: multi-head latent attention: a token is kept as one short vector, from which each head makes a key and a value of its own.
//   out_h,i = sum_j softmax_j([q_n; q_r].[U_h c_j; r_j] / sqrt(D)) V_h c_j,  U_h [D - rope, r], V_h [Dv, r];  j <= i when causal
//   q = [q_n; q_r], of which `rope` numbers meet the part r_j of the key that carries the position and that all heads share
//   k_j = [c_j's first D - rope numbers; r_j] and v_j = c_j's last Dv: the cached row (c_j, r_j) of r + rope = D + Dv numbers, r = D - rope + Dv,
//   comes in as k and v. Heads that share a kv head share its latent: one for all heads with kv_heads=1, as DeepSeek has it.
//   DeepSeek-AI 2024, deepseek-ai/DeepSeek-V3, inference/model.py. Norms and rotations lie before the mixer.
//   form=expand: keys and values of all heads are made first, 2 M r (D - rope + Dv) flops a head, then 2 pairs (D + Dv); workspace M (D + Dv) a head
//   form=absorb: U_h^T q_n meets the latents and V_h what was summed of them, 2 pairs (D + Dv + r) flops and 2 N r (D - rope + Dv); the latent is
//   read once for all heads
//   exact where U_h and V_h pick their part of c_j: then it is full attention
struct Mla {
  enum class Form { automatic, expand, absorb };
  struct Options {
    index_t rope = 0;
    Form form = Form::automatic;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("rope", &Options::rope, 0, 255,
                 "last numbers of q and k that carry the position, shared by the heads; 0: a quarter of head_dim")
        .choice("form", &Options::form, {{"auto", Form::automatic}, {"expand", Form::expand}, {"absorb", Form::absorb}},
                "expand: make keys and values; absorb: let queries meet the latents; auto: what has fewer flops");
  }

  static VariantInfo info() {
    return {.title = "Multi-head latent attention",
            .formula = "out_h,i = sum_j softmax_j([q_n; q_r].[U_h c_j; r_j] / sqrt(D)) V_h c_j",
            .paper = "DeepSeek-AI 2024, deepseek-ai/DeepSeek-V3",
            .cost_in_n = "N^2 D + N r D",
            .fine_print =
                "The latent c_j is the first head_dim - rope numbers of k_j and all of v_j, the shared part r_j the last `rope` "
                "numbers of k_j. "
                "Each kv head has a latent of its own.",
            .exactness = Exactness::different,
            .grouped_heads = true};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    const index_t r = latent(p, o);
    const Init init = init::normal(1 / std::sqrt(static_cast<double>(r)));
    return {{.name = "U",
             .shape = {p.heads, p.head_dim - rope(p, o), r},
             .init = init,
             .axes = "heads, head_dim - rope, head_dim - rope + value_dim",
             .doc = "makes a head's keys of latents"},
            {.name = "V",
             .shape = {p.heads, p.value_dim, r},
             .init = init,
             .axes = "heads, value_dim, head_dim - rope + value_dim",
             .doc = "makes its values"}};
  }

  static Status supports(const Problem& p, const Options& o) {
    if (rope(p, o) >= p.head_dim)
      return refuse("makes the first head_dim - rope numbers of a key: needs rope=" + std::to_string(o.rope) +
                    " to be below head_dim");
    return {};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const auto maps = static_cast<double>(p.heads * latent(p, o) * (p.head_dim - rope(p, o) + p.value_dim));
    Cost cost = softmax_cost(p, pairs(p));
    cost.flops = absorbed(p, o) ? absorbed_flops(p, o) : expanded_flops(p, o);
    cost.bytes += sizeof(float) * maps;
    return cost;
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const index_t own = p.head_dim - rope(p, o);
    const Tensor<T> c = per_query_head(p, concat<T>({slice(in.k, -1, 0, own), in.v}, -1));
    Tensor<T> keys = matmul_transposed(c, parameters["U"]);
    if (own < p.head_dim) keys = concat<T>({keys, per_query_head(p, slice_from(in.k, -1, own))}, -1);
    const Tensor<T> values = matmul_transposed(c, parameters["V"]);
    const Tensor<T> logits = matmul_transposed(in.q, keys) * static_cast<T>(p.scale());
    return matmul(softmax(logits, allowed_pairs(p, in, every_key)), values);
  }

  Mla(const Problem& p, const Options& o, WorkspacePlan& workspace) : p_(p), rope_(rope(p, o)), latent_(latent(p, o)) {
    if (absorbed(p, o)) {
      if (lanes_along_latents(p))
        few_.emplace(p, kernels::RowsOptions{.latent = own()}, workspace);
      else
        many_.emplace(p, rope_, workspace);
      queries_ = workspace.shared<float>(p.batch * p.heads * p.q_len * (p.head_dim + p.value_dim));
      sums_ = workspace.shared<float>(p.batch * p.heads * p.q_len * latent_);
      return;
    }
    Problem expanded = p;
    expanded.kv_heads = p.heads;
    engine_.emplace(expanded, kernels::EngineOptions{}, workspace);
    keys_ = workspace.shared<float>(p.batch * p.heads * p.kv_len * p.head_dim);
    values_ = workspace.shared<float>(p.batch * p.heads * p.kv_len * p.value_dim);
    maps_ = workspace.shared<float>(p.heads * latent_ * (own() + p.value_dim));
  }

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    if (few_ || many_) return run_absorbed(a, parameters, workspace);
    const View<float, 4> keys(workspace.shared(keys_).data(), {p_.batch, p_.heads, p_.kv_len, p_.head_dim});
    const View<float, 4> values(workspace.shared(values_).data(), {p_.batch, p_.heads, p_.kv_len, p_.value_dim});
    turn_maps(parameters, workspace);
    const index_t tiles = ceil_div(p_.kv_len, tile_rows);
    parallel_tasks(p_.batch * p_.heads * tiles, [&](index_t task, int) {
      const index_t h = task / tiles % p_.heads, b = task / tiles / p_.heads, first = task % tiles * tile_rows;
      const index_t rows = std::min(tile_rows, p_.kv_len - first);
      const auto k = a.k[b][p_.kv_head(h)], v = a.v[b][p_.kv_head(h)];
      const auto to = keys[b][h];
      const auto expand = [&](const float* map, index_t width, kernels::Into into) {
        if (width == 0) return;
        if (own() > 0) kernels::gemm(rows, width, own(), {k.row(first), k.stride(0)}, {map, width}, into);
        kernels::gemm(rows, width, p_.value_dim, {v.row(first), v.stride(0)}, {map + own() * width, width}, into,
                      {.add = own() > 0});
      };
      expand(turned_u(workspace, h), own(), {to.row(first), p_.head_dim});
      expand(turned_v(workspace, h), p_.value_dim, {values[b][h].row(first), p_.value_dim});
      kernels::copy(rows, rope_, {k.row(first) + own(), k.stride(0)}, {to.row(first) + own(), p_.head_dim});
    });
    engine_->run({a.q, keys, values, a.out}, workspace, kernels::all_keys);
  }

 private:
  static constexpr index_t tile_rows = 192;
  static index_t rope(const Problem& p, const Options& o) { return o.rope > 0 ? o.rope : p.head_dim / 4; }
  static index_t latent(const Problem& p, const Options& o) { return p.head_dim - rope(p, o) + p.value_dim; }
  index_t own() const { return p_.head_dim - rope_; }

  // A step's rows that share a latent lie in the lanes where they fill them. Of the roof, lanes along latents against rows in lanes: 8 rows of 256
  // numbers 0.70 and 0.32, 16 rows 0.71 and 0.60; of 128 numbers 0.62 and 0.38, 0.61 and 0.75 (Zen 4, 16384 tokens).
  static bool lanes_along_latents(const Problem& p) {
    const index_t rows = p.q_len * (p.heads / p.kv_heads), width = p.head_dim + p.value_dim;
    return width > kernels::max_head_dim || rows <= 8 || (rows <= 16 && width > 128);
  }

  static double pairs(const Problem& p) {
    return count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1); });
  }
  static double expanded_flops(const Problem& p, const Options& o) {
    const double maps = static_cast<double>(p.kv_len * latent(p, o)) * static_cast<double>(p.head_dim - rope(p, o) + p.value_dim);
    return 2 * static_cast<double>(p.batch * p.heads) * (maps + pairs(p) * static_cast<double>(p.head_dim + p.value_dim));
  }
  static double absorbed_flops(const Problem& p, const Options& o) {
    const double maps = static_cast<double>(p.q_len * latent(p, o)) * static_cast<double>(p.head_dim - rope(p, o) + p.value_dim);
    const double pair = static_cast<double>(p.head_dim + p.value_dim + latent(p, o));
    return 2 * static_cast<double>(p.batch * p.heads) * (maps + pairs(p) * pair);
  }
  static bool absorbed(const Problem& p, const Options& o) {
    if (o.form != Form::automatic) return o.form == Form::absorb;
    return absorbed_flops(p, o) < expanded_flops(p, o);
  }

  // U and V of each head as right operands.
  void turn_maps(const ParameterSet<float>& parameters, const Workspace& workspace) const {
    parallel_tasks(p_.heads, [&](index_t h, int) {
      const auto u = parameters.view<3>("U")[h], v = parameters.view<3>("V")[h];
      kernels::transpose(own(), latent_, {u.data_handle(), latent_}, {turned_u(workspace, h), own()});
      kernels::transpose(p_.value_dim, latent_, {v.data_handle(), latent_}, {turned_v(workspace, h), p_.value_dim});
    });
  }
  float* turned_u(const Workspace& workspace, index_t h) const {
    return workspace.shared(maps_).data() + h * latent_ * (own() + p_.value_dim);
  }
  float* turned_v(const Workspace& workspace, index_t h) const { return turned_u(workspace, h) + latent_ * own(); }

  void run_absorbed(const FloatArrays& a, const ParameterSet<float>& parameters, const Workspace& workspace) const {
    const View<float, 4> queries(workspace.shared(queries_).data(), {p_.batch, p_.heads, p_.q_len, p_.head_dim + p_.value_dim});
    const View<float, 4> sums(workspace.shared(sums_).data(), {p_.batch, p_.heads, p_.q_len, latent_});
    parallel_tasks(p_.batch * p_.heads, [&](index_t head, int) {
      const index_t b = head / p_.heads, h = head % p_.heads, width = p_.head_dim + p_.value_dim;
      const auto q = a.q[b][h];
      const kernels::Rows u{parameters.view<3>("U")[h].data_handle(), latent_};
      float* const to = queries[b][h].row(0);
      // In the order of k and then v, or of the latent and then the shared part.
      const index_t before = few_ ? own() : latent_;
      const kernels::Left own_part{q.row(0), q.stride(0)};
      kernels::gemm(p_.q_len, before, own(), own_part, u, {to, width});
      kernels::copy(p_.q_len, rope_, {q.row(0) + own(), q.stride(0)}, {to + before, width});
      if (few_) kernels::gemm(p_.q_len, p_.value_dim, own(), own_part, {u.data + own(), latent_}, {to + p_.head_dim, width});
    });
    if (few_)
      few_->run({.q = queries, .k = a.k, .v = a.v, .out = sums}, {}, workspace);
    else
      many_->run({queries, a.k, a.v, sums}, workspace);
    parallel_tasks(p_.batch * p_.heads, [&](index_t head, int) {
      const index_t b = head / p_.heads, h = head % p_.heads;
      const kernels::Rows v{parameters.view<3>("V")[h].data_handle(), latent_};
      const auto to = a.out[b][h];
      for (index_t i = 0; i < p_.q_len; ++i) kernels::row_dots(p_.value_dim, latent_, v, sums[b][h].row(i), to.row(i));
    });
  }

  Problem p_;
  index_t rope_, latent_;
  std::optional<kernels::SoftmaxEngine> engine_;
  std::optional<kernels::RowsEngine> few_;
  std::optional<kernels::LatentRows> many_;
  Booking<float> keys_, values_, maps_, queries_, sums_;
};
ATTN_VARIANT(mla, Mla)

}  // namespace attn
