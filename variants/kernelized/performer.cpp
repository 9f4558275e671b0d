#include <cmath>
#include <limits>
#include <vector>

#include "attn/algebra/linalg.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/linear/linear_attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// performer: exp(q.k / sqrt(D)) as the mean of products of m random features (FAVOR+), or any positive features of W x.
//   out_i = sum_j w_ij v_j / n_i,  w_ij = phi_q(q_i).phi_k(k_j),  n_i = sum_j w_ij (+ 2e-6 where |n_i| <= 1e-6);  j <= i when causal
//   positive: phi(x) = (exp(W x' - |x'|^2/2 - c) + plus) / sqrt(m),  x' = x / D^(1/4)
//             c: of a query its largest W q', of keys the largest W k' among all keys that the query sees
//   relu:     phi(x) = relu(W x) + 1e-3
//   Choromanski et al. 2020, arXiv:2009.14794, section 2.3; c and the constants: google-research/performer/fast_attention
//             With plus=0 c cancels and n stays as it is: the paper's estimator. It is undamped, and loses what underflows float:
//             from |k|^2 of about 100 sqrt(D) on.
//   useful flops 8 N m D, 2 N m exps; workspace a state of m (Dv + 1) a worker, W
struct Performer {
  using Engine = kernels::LinearAttention;

  enum class Projection { orthogonal, iid };
  enum class Kernel { positive, relu };
  struct Options {
    index_t m = 128;
    Projection projection = Projection::orthogonal;
    Kernel kernel = Kernel::positive;
    double plus = 1e-6;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("m", &Options::m, 1, 65536, "random features")
        .budget()
        .choice("projection", &Options::projection, {{"orthogonal", Projection::orthogonal}, {"iid", Projection::iid}},
                "rows of W orthogonal within blocks of D, or independent")
        .choice("kernel", &Options::kernel, {{"positive", Kernel::positive}, {"relu", Kernel::relu}},
                "positive: estimates softmax attention; relu: a kernel of its own")
        .number("plus", &Options::plus, 0, 1, "added to positive features, damping outliers; 0: the paper's estimator, undamped");
  }

  static VariantInfo info() {
    return {.title = "Performer (FAVOR+)",
            .formula = "out_i = sum_j w_ij v_j / sum_j w_ij, w_ij = phi(q_i).phi(k_j), phi(x) = exp(W x' - |x'|^2/2) / sqrt(m)",
            .paper = "Choromanski et al. 2020, arXiv:2009.14794, section 2.3",
            .cost_in_n = "N m D",
            .exactness = Exactness::approximation,
            .grouped_heads = true,
            .randomised = true,
            .in_default_sweep = true,
            .time_exponent = 1};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    return {{.name = "W",
             .shape = {o.m, p.head_dim},
             .init = o.projection == Projection::iid ? init::normal(1) : Init(orthogonal_blocks),
             .trainable = false,
             .axes = "m, head_dim",
             .doc = "rows w_i of the features, shared by all heads"}};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const double tokens = static_cast<double>(p.batch * (p.heads * p.q_len + p.kv_heads * p.kv_len)), m = static_cast<double>(o.m);
    return {.flops = 2 * tokens * m * static_cast<double>(p.head_dim + p.value_dim + 1),
            .bytes = tensor_bytes(p),
            .exps = o.kernel == Kernel::positive ? tokens * m : 0};
  }

  static StateSpec state(const Problem& p, const Options& o) {
    return o.kernel == Kernel::relu ? Engine::state(p, o.m) : Engine::state(p, o.m + 1, Engine::Kind::peaks);
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Mask seen = allowed_pairs(p, in, every_key);
    const Tensor<T> k = per_query_head(p, in.k), v = per_query_head(p, in.v), &w = parameters["W"];
    Tensor<T> weights;
    if (o.kernel == Kernel::relu) {
      const auto phi = [&](const Tensor<T>& x) { return relu(matmul_transposed(x, w)) + static_cast<T>(relu_plus); };
      weights = matmul_transposed(phi(in.q), phi(k));
    } else {
      const auto m = static_cast<T>(o.m), epsilon = static_cast<T>(o.plus);
      const T root = static_cast<T>(std::sqrt(p.scale()));
      const auto half_square = [&](const Tensor<T>& x) { return sum(square(x * root), -1, Keep::yes) / T{2}; };
      const Tensor<T> uq = matmul_transposed(in.q * root, w), uk = matmul_transposed(k * root, w);
      const Tensor<T> phi_q = exp(uq - half_square(in.q) - max(uq, -1, Keep::yes)) + epsilon;
      // phi_k differs from query to query by its c, so the e^-c of all keys is put right by a factor.
      const Tensor<T> peak = transpose(max(uk, -1, Keep::yes)), top = max(peak, -1, Keep::yes);
      const Tensor<T> c = max(where(seen, peak, std::numeric_limits<T>::lowest()), -1, Keep::yes);
      const Tensor<T> products = matmul_transposed(phi_q, exp(uk - half_square(k) - top));
      weights = (products * exp(minimum(top - c, T{80})) + epsilon * sum(phi_q, -1, Keep::yes)) / m;
    }
    weights = where(seen, weights, T{0});
    const Tensor<T> n = sum(weights, -1, Keep::yes);
    const bool bare = undamped(o);
    return matmul(weights, v) / where(abs(n) <= static_cast<T>(bare ? 0 : 1e-6), n + static_cast<T>(bare ? 1 : 2e-6), n);
  }

  // The positive features of keys are computed without c, which is e^-c in the query's instead, and the small constant is one
  // feature more: exactly the same sums, in one pass over the keys, and the future cannot be seen in their rounding.
  Performer(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        engine_(p, o.m + (o.kernel == Kernel::positive), undamped(o) ? kernels::reciprocals<normal> : kernels::reciprocals<guard>,
                workspace, o.kernel == Kernel::positive),
        w_(workspace.shared<float>(p.head_dim * o.m)),
        rows_(workspace.per_worker<float>(2 * kernels::LinearAttention::max_panel)) {}

  // W, transposed and scaled.
  void prepare(const ParameterSet<float>& parameters, const Workspace& workspace) const {
    float* const w = workspace.shared(w_).data();
    const float factor = root();
    kernels::transpose(o_.m, p_.head_dim, {parameters["W"].data(), p_.head_dim}, {w, o_.m});
    const index_t size = o_.m * p_.head_dim;
    kernels::scale_rows(1, size, {w, size}, &factor, {w, size});
  }
  auto key_features(const Workspace& workspace) const {
    return [this, &workspace](const kernels::TokenPanel& t) {
      float* const shift = workspace.of(t.worker, rows_).data();
      project(t, workspace);
      if (o_.kernel == Kernel::relu) return kernels::relu_plus(t.count, o_.m, t.to, relu_plus, t.to);
      half_squares(t, shift);
      kernels::row_max(t.count, o_.m, t.to, t.peak);
      kernels::exp_features(t.count, o_.m, t.to, shift, 1, 0, t.to);
      for (index_t i = 0; i < t.count; ++i) t.to.data[i * t.to.stride + o_.m] = 1;
    };
  }
  auto query_features(const Workspace& workspace) const {
    return [this, &workspace](const kernels::TokenPanel& t) {
      float* const shift = workspace.of(t.worker, rows_).data();
      project(t, workspace);
      if (o_.kernel == Kernel::relu) return kernels::relu_plus(t.count, o_.m, t.to, relu_plus, t.to);
      float* const other = shift + kernels::LinearAttention::max_panel;
      half_squares(t, shift);
      kernels::row_max(t.count, o_.m, t.to, other);
      for (index_t i = 0; i < t.count; ++i) shift[i] = other[i] + (undamped(o_) ? 0 : shift[i]), other[i] = 0;
      const auto plus = static_cast<float>(o_.plus);
      kernels::exp_features(t.count, o_.m, t.to, shift, 1 / static_cast<float>(o_.m), plus, t.to);
      kernels::add_row_sums(t.count, o_.m, t.to, other);
      for (index_t i = 0; i < t.count; ++i) {
        t.to.data[i * t.to.stride + o_.m] = plus * other[i];
        other[i] = undamped(o_) ? 1 : std::exp(-t.peak[i]);
      }
      kernels::scale_rows(t.count, o_.m, t.to, other, t.to);
    };
  }
  void project(const kernels::TokenPanel& t, const Workspace& workspace) const {
    kernels::gemm(t.count, o_.m, p_.head_dim, {t.from.data, t.from.stride}, {workspace.shared(w_).data(), o_.m}, t.to);
  }
  void half_squares(const kernels::TokenPanel& t, float* to) const {
    kernels::row_squares(t.count, p_.head_dim, t.from, to);
    const float half = 0.5f * root() * root();
    for (index_t i = 0; i < t.count; ++i) to[i] *= half;
  }
  float root() const { return o_.kernel == Kernel::positive ? static_cast<float>(std::sqrt(p_.scale())) : 1.0f; }

  void run(const Arrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    prepare(parameters, workspace);
    engine_.run(a, workspace, query_features(workspace), key_features(workspace));
  }
  void absorb(const Arrays& tokens, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    prepare(parameters, workspace);
    engine_.absorb(tokens, state, workspace, key_features(workspace));
  }
  void answer(const Arrays& queries, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    prepare(parameters, workspace);
    engine_.answer(queries, state, workspace, query_features(workspace));
  }
  void step(const Arrays& token, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    prepare(parameters, workspace);
    engine_.step(token, state, workspace, query_features(workspace), key_features(workspace));
  }
  void merge(State& into, const State& later) const { kernels::LinearAttention::merge(into, later); }

 private:
  static constexpr float relu_plus = 1e-3f;

  static bool undamped(const Options& o) { return o.kernel == Kernel::positive && o.plus == 0; }
  static float guard(float n) { return std::abs(n) <= 1e-6f ? n + 2e-6f : n; }
  static float normal(float n) { return n < std::numeric_limits<float>::min() ? 1 : n; }  // the reciprocal is finite

  // Blocks of D orthonormal rows, each row as long as an independent Gaussian vector: the paper's R+ORF.
  static void orthogonal_blocks(std::span<float> values, const Shape& shape, const Rng& rng) {
    const index_t m = shape[0], d = shape[1];
    for (index_t first = 0; first < m; first += d) {
      const Rng block = rng.substream(static_cast<std::uint64_t>(first));
      const Tensor<double> gaussian = generate<double>({2 * d, d}, [&](index_t i) { return block.normal(i); });
      const Tensor<double> rows = qr_orthogonal_rows(slice(gaussian, 0, 0, d));
      const Tensor<double> lengths = sqrt(sum(square(slice_from(gaussian, 0, d)), -1));
      for (index_t i = first; i < std::min(m, first + d); ++i) {
        for (index_t x = 0; x < d; ++x) {
          values[static_cast<std::size_t>(i * d + x)] = static_cast<float>(rows(i - first, x) * lengths(i - first));
        }
      }
    }
  }

  Problem p_;
  Options o_;
  kernels::LinearAttention engine_;
  Booking<float> w_, rows_;
};
ATTN_VARIANT(performer, Performer)

}  // namespace attn
