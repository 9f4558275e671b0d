// linformer@reduce, inducing@reduce: all keys come down to a few rows whatever N, each rank's to a part of them; the parts are added up, or
// merged by log-sum-exp, and each rank's queries read the sum. Bidirectional, as the variants are.
//   sends ceil(log2 P) times k (D + Dv) numbers a kv head (linformer), m (Dv + 1) a head (inducing), once more where P is no power of two
#include <algorithm>
#include <memory>
#include <optional>

#include "attn/kernels/dense/gemm.hpp"
#include "attn/kernels/softmax/attention.hpp"
#include "attn/ranks/hops.hpp"
#include "attn/ranks/merge_rows.hpp"

namespace attn {

namespace {

// What the two share: parts of `floats` numbers, merged over ranks.
class Reduce : public Scheme {
 public:
  Holding holding(int rank) const override { return {.queries = {held(rank)}, .keys = {held(rank)}}; }

  void run(const Own& own, const ParameterSet<float>& parameters, Workspace& workspace, Communicator& ranks,
           Doing doing) const override {
    const bool computes = doing == Doing::all;
    const std::span<float> mine = workspace.shared(mine_), theirs = workspace.shared(theirs_);
    if (computes) gather(own, parameters, workspace, mine.data());
    sum_over(hops_, mine, theirs, ranks, doing, [&](bool before) { merge(mine, theirs, before); });
    if (computes && own_.count() > 0) answer(own, parameters, workspace, mine.data());
  }

  Traffic traffic() const override { return {sends(hops_) * bytes_of(DType::f32, mine_.count), sends(hops_)}; }

 protected:
  Reduce(const Part& part, index_t floats, WorkspacePlan& workspace)
      : part_(part),
        own_(held(part.rank)),
        hops_(hops_to_all(part.rank, part.ranks)),
        mine_(workspace.shared<float>(floats)),
        theirs_(workspace.shared<float>(floats)) {}
  // The rank's keys into a part; two parts, theirs of earlier keys or not; the rank's outputs from the sum of all.
  virtual void gather(const Own&, const ParameterSet<float>&, Workspace&, float* part) const = 0;
  virtual void merge(std::span<float> mine, std::span<const float> theirs, bool before) const = 0;
  virtual void answer(const Own&, const ParameterSet<float>&, Workspace&, float* sum) const = 0;

  Range held(int rank) const { return part_of(part_.problem.kv_len, rank, part_.ranks); }
  // Attention of so many queries to so many keys; none where there are none.
  std::optional<kernels::Attention> attention(index_t queries, index_t keys, index_t kv_heads, WorkspacePlan& workspace) const {
    if (queries == 0 || keys == 0) return {};
    Problem p = part_.problem;
    p.q_len = queries, p.kv_len = keys, p.kv_heads = kv_heads;
    return std::optional<kernels::Attention>(std::in_place, p, kernels::EngineOptions{}, workspace);
  }

  Part part_;
  Range own_;

 private:
  std::vector<Hop> hops_;
  Booking<float> mine_, theirs_;
};

index_t option(const Part& part, std::string_view name) { return part.variant.name().options.integer(name); }

// E K and F V, [batch, kv_heads, k, D] and [batch, kv_heads, k, Dv]. A rank has the columns of E and F that meet its tokens.
class Linformer final : public Reduce {
 public:
  Linformer(const Part& part, WorkspacePlan& workspace)
      : Reduce(part, rows(part) * (part.problem.head_dim + part.problem.value_dim), workspace),
        k_(option(part, "k")),
        read_(attention(own_.count(), k_, part.problem.kv_heads, workspace)) {}

  ParameterSet<float> share(const ParameterSet<float>& whole, int rank) const override {
    ParameterSet<float> own;
    const Range columns = held(rank);
    for (const auto& [name, tensor] : whole.all()) {
      const index_t all = tensor.shape().back(), lines = tensor.size() / all;
      std::vector<float> values;
      for (index_t line = 0; line < lines; ++line)
        values.insert(values.end(), tensor.data() + line * all + columns.first, tensor.data() + line * all + columns.end);
      Shape shape = tensor.shape();
      shape.back() = columns.count();
      own.set(name, Tensor<float>(shape, values));
    }
    return own;
  }

 protected:
  void gather(const Own& own, const ParameterSet<float>& parameters, Workspace&, float* part) const override {
    const Problem& p = part_.problem;
    const Tensor<float>& e = parameters["E"];
    const Tensor<float>& f = parameters.all().contains("F") ? parameters["F"] : e;
    const auto k = own.arrays.k.f32(), v = own.arrays.v.f32();
    float* const values = part + p.batch * p.kv_heads * k_ * p.head_dim;
    parallel_tasks(p.batch * p.kv_heads * 2, [&](index_t task, int) {
      const index_t head = task / 2;
      const auto mix = [&](const Tensor<float>& weights, const View<const float, 4>& x, index_t width, float* to) {
        const index_t n = own_.count(), matrix = weights.extent(0) == 1 ? 0 : head % p.kv_heads;
        std::fill_n(to + head * k_ * width, k_ * width, 0.0f);
        if (n == 0) return;
        const auto rows_of_head = x[head / p.kv_heads][head % p.kv_heads];
        kernels::gemm(k_, width, n, {weights.data() + matrix * k_ * n, n}, {rows_of_head.row(0), rows_of_head.stride(0)},
                      {to + head * k_ * width, width});
      };
      task % 2 == 0 ? mix(e, k, p.head_dim, part) : mix(f, v, p.value_dim, values);
    });
  }
  void merge(std::span<float> mine, std::span<const float> theirs, bool) const override {
    for (std::size_t i = 0; i < mine.size(); ++i) mine[i] += theirs[i];
  }
  void answer(const Own& own, const ParameterSet<float>&, Workspace& workspace, float* sum) const override {
    const Problem& p = part_.problem;
    float* const values = sum + p.batch * p.kv_heads * k_ * p.head_dim;
    Arrays a = own.arrays;
    a.k = View<float, 4>(sum, {p.batch, p.kv_heads, k_, p.head_dim});
    a.v = View<float, 4>(values, {p.batch, p.kv_heads, k_, p.value_dim});
    read_->run(a, workspace, kernels::all_keys);
  }

 private:
  static index_t rows(const Part& part) { return part.problem.batch * part.problem.kv_heads * option(part, "k"); }

  index_t k_;
  std::optional<kernels::Attention> read_;
};

// H = softmax(I K^T / sqrt(D)) V with the logarithms of its sums, [batch, heads, m, Dv] and [batch, heads, m].
class Inducing final : public Reduce {
 public:
  Inducing(const Part& part, WorkspacePlan& workspace)
      : Reduce(part, part.problem.batch * part.problem.heads * option(part, "m") * (part.problem.value_dim + 1), workspace),
        m_(option(part, "m")),
        rows_(part.problem.batch * part.problem.heads * m_),
        k_(workspace.shared<float>(rows_ * part.problem.head_dim)),
        v_(workspace.shared<float>(rows_ * part.problem.value_dim)),
        gather_(attention(m_, own_.count(), part.problem.kv_heads, workspace)),
        spread_(attention(own_.count(), m_, part.problem.heads, workspace)) {}

 protected:
  void gather(const Own& own, const ParameterSet<float>& parameters, Workspace& workspace, float* part) const override {
    const Problem& p = part_.problem;
    float* const lse = part + rows_ * p.value_dim;
    if (!gather_) return clear_rows(rows_, p.value_dim, part);
    const View<const float, 4> points(parameters["I"].data(), {p.batch, p.heads, m_, p.head_dim},
                                      {0, m_ * p.head_dim, p.head_dim, 1});
    gather_->run({points, own.arrays.k.f32(), own.arrays.v.f32(), View<float, 4>(part, {p.batch, p.heads, m_, p.value_dim}),
                  View<float, 3>(lse, {p.batch, p.heads, m_})},
                 workspace, kernels::all_keys);
  }
  void merge(std::span<float> mine, std::span<const float> theirs, bool before) const override {
    merge_rows(rows_, part_.problem.value_dim, mine.data(), theirs.data(), before);
  }
  void answer(const Own& own, const ParameterSet<float>& parameters, Workspace& workspace, float* sum) const override {
    const Problem& p = part_.problem;
    const View<float, 4> k(workspace.shared(k_).data(), {p.batch, p.heads, m_, p.head_dim});
    const View<float, 4> v(workspace.shared(v_).data(), {p.batch, p.heads, m_, p.value_dim});
    parallel_tasks(p.batch * p.heads, [&](index_t task, int) {
      const index_t head = task % p.heads;
      const auto multiply = [&](const char* weights, float* to, index_t width) {
        kernels::gemm(m_, width, p.value_dim, {sum + task * m_ * p.value_dim, p.value_dim},
                      {parameters[weights].data() + head * p.value_dim * width, width}, {to + task * m_ * width, width});
      };
      multiply("W_k", k.data_handle(), p.head_dim);
      multiply("W_v", v.data_handle(), p.value_dim);
    });
    spread_->run({own.arrays.q.f32(), k, v, own.arrays.out.f32_out()}, workspace, kernels::all_keys);
  }

 private:
  index_t m_, rows_;
  Booking<float> k_, v_;
  std::optional<kernels::Attention> gather_, spread_;
};

bool suits(const VariantType& type) { return type.id == "linformer" || type.id == "inducing"; }

Status supports(const Variant&, const Problem& p, int ranks) {
  if (ranks > 1 && (p.dtype != DType::f32 || p.kv_dtype != DType::f32)) return refuse("takes f32 over ranks");
  return plain_self_attention(p);
}

std::unique_ptr<Scheme> plan(const Part& part, WorkspacePlan& workspace) {
  if (part.variant.name().id == "linformer") return std::make_unique<Linformer>(part, workspace);
  return std::make_unique<Inducing>(part, workspace);
}

}  // namespace

const SchemeKind reduce_kind{"reduce", "over ranks: what all keys come down to is added up", suits, supports, plan};

}  // namespace attn
