#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>
#include <string>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/softmax/engine.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// nystrom: softmax attention through m landmarks, by Nystrom's method; the inverse by an iteration of matrix products.
//   out = F Z (G V) (+ a depthwise convolution of V),  F = softmax(s Q K~^T), A = softmax(s Q~ K~^T), G = softmax(s Q~ K^T)
//   Q~, K~ [m, D] means of m segments, of N / m rows or one more, the shorter ones first;  s = 1/sqrt(D)
//   Z ~ A^+: Z = A^T / (|A|_1 |A|_inf), then 6 times Z = Z (13 I - AZ (15 I - AZ (7 I - AZ))) / 4
//   Xiong et al. 2021, arXiv:2102.03902, section 3.2; the iteration stops where it stops: |AZA - A| of 1e-2 is usual
//   A and Z are in double: Z grows by 13/4 a step where A is nearly singular, and 20 steps in float leave two or three digits
//   useful flops 4 m (N + M) D + 8 iterations m^3 + 2 m^2 D; workspace 4 m D a head, and 5 m^2 doubles a worker
//   Up to m queries or keys it is full attention. Segments mix positions, so no causal form exists.
struct Nystrom {
  struct Options {
    index_t landmarks = 64;
    index_t iterations = 6;
    index_t conv = 0;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("landmarks", &Options::landmarks, 1, 4096, "segments, m")
        .budget()
        .integer("iterations", &Options::iterations, 0, 100, "steps towards the pseudo-inverse")
        .integer("conv", &Options::conv, 0, 1023, "taps of the convolution of V that is added, odd (paper: 33); 0: none");
  }

  static VariantInfo info() {
    return {.title = "Nystromformer",
            .formula = "out = softmax(s Q K~^T) Z softmax(s Q~ K^T) V, Z ~ softmax(s Q~ K~^T)^+",
            .paper = "Xiong et al. 2021, arXiv:2102.03902, section 3.2",
            .cost_in_n = "N m D",
            .fine_print =
                "Q~ and K~ are means of m segments of N / m rows or one more, the shorter ones first. Z starts "
                "from A^T over its largest sums of a row and of a column. Up to m queries or keys it is full "
                "attention.",
            .exactness = Exactness::approximation,
            .causality = Causality::never,
            .grouped_heads = true,
            .row_wise = false,
            .time_exponent = 1,
            .acausal = "landmarks are means over segments of all queries and keys"};
  }

  // One filter a head, as nn.Conv2d starts it.
  static Parameters parameters(const Problem& p, const Options& o) {
    if (o.conv == 0) return {};
    return {{.name = "conv",
             .shape = {p.heads, o.conv, 1},
             .init = init::uniform(1 / std::sqrt(static_cast<double>(o.conv))),
             .axes = "heads, conv, 1",
             .doc = "tap u weighs v_(t+u-P), P = (conv - 1) / 2, of every channel"}};
  }

  static Status supports(const Problem& p, const Options& o) {
    if (o.conv == 0) return {};
    if (o.conv % 2 == 0) return refuse("conv=" + std::to_string(o.conv) + " is even: taps are centred on the token, so odd or 0");
    if (!p.self_attention()) {
      return refuse("conv needs as many keys as queries, not kv_len=" + std::to_string(p.kv_len) +
                    " with q_len=" + std::to_string(p.q_len));
    }
    return {};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const auto heads = static_cast<double>(p.batch * p.heads), m = static_cast<double>(o.landmarks);
    const auto n = static_cast<double>(p.q_len), keys = static_cast<double>(p.kv_len);
    const auto d = static_cast<double>(p.head_dim), dv = static_cast<double>(p.value_dim);
    const double pairs = exact(p, o) ? n * keys : m * (n + keys), conv = 2 * n * static_cast<double>(o.conv) * dv;
    const double small =
        exact(p, o) ? 0 : 8 * static_cast<double>(o.iterations) * m * m * m + 2 * m * m * (d + dv) + (n + keys) * d;
    return {.flops = heads * (2 * pairs * (d + dv) + small + conv), .bytes = tensor_bytes(p), .exps = heads * pairs};
  }

  // The landmarks of the keys and what each gathered.
  static StateSpec state(const Problem& p, const Options& o) { return kept_keys(p, o.landmarks); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const auto weights = [&](const Tensor<T>& q, const Tensor<T>& k) {
      return softmax(matmul_transposed(q, k) * static_cast<T>(p.scale()));
    };
    const Tensor<T> keys = per_query_head(p, in.k), values = per_query_head(p, in.v);
    Tensor<T> out;
    if (exact(p, o)) {
      out = matmul(weights(in.q, keys), values);
    } else {
      const auto means = [&](const Tensor<T>& x) {
        return matmul(
            tabulate<T>({o.landmarks, x.extent(2)},
                        [&](index_t s, index_t i) {
                          const Segment segment = segment_of(x.extent(2), o.landmarks, s);
                          return i >= segment.first && i < segment.first + segment.count ? 1 / static_cast<T>(segment.count) : T{0};
                        }),
            x);
      };
      const Tensor<T> q = means(in.q), k = means(keys), z = pseudo_inverse(weights(q, k), o.iterations);
      out = matmul(weights(in.q, k), matmul(z, matmul(weights(q, keys), values)));
    }
    return o.conv == 0 ? out : out + depthwise_conv(values, parameters["conv"], o.conv / 2);
  }

  // How far the iteration came: it is what bounds the method where A is nearly singular, and the output does not tell.
  static std::string note(const Problem& p, const Options& o, const FloatArrays& a) {
    if (exact(p, o)) return "full attention: no more queries or keys than landmarks";
    double residual = 0;
    for (index_t head = 0; head < p.batch * p.heads; ++head) {
      const auto means = [&](const View<const float, 2>& x) {
        return tabulate<double>({o.landmarks, x.extent(1)}, [&](index_t s, index_t c) {
          const Segment segment = segment_of(x.extent(0), o.landmarks, s);
          double sum = 0;
          for (index_t i = 0; i < segment.count; ++i) sum += static_cast<double>(x(segment.first + i, c));
          return sum / static_cast<double>(segment.count);
        });
      };
      const Tensor<double> q = means(a.q[head / p.heads][head % p.heads]),
                           k = means(a.k[head / p.heads][p.kv_head(head % p.heads)]);
      const Tensor<double> middle = softmax(matmul_transposed(q, k) * p.scale());
      const Tensor<double> missed = abs(matmul(middle, matmul(pseudo_inverse(middle, o.iterations), middle)) - middle);
      residual = std::max(residual, *std::max_element(missed.values().begin(), missed.values().end()));
    }
    char digits[16];
    std::snprintf(digits, sizeof digits, "%.1e", residual);
    return std::string("pseudo-inverse: |AZA - A| up to ") + digits;
  }

  Nystrom(const Problem& p, const Options& o, WorkspacePlan& workspace) : p_(p), o_(o), heads_(p.batch * p.heads) {
    if (exact(p, o)) {
      spread_.emplace(p, kernels::EngineOptions{}, workspace);
      return;
    }
    const index_t m = o.landmarks;
    Problem gathering = p, spreading = p;
    gathering.q_len = m;
    spreading.kv_len = m;
    spreading.kv_heads = p.heads;  // what landmarks gather is of a query head
    q_ = workspace.shared<float>(heads_ * m * p.head_dim);
    k_ = workspace.shared<float>(heads_ * m * p.head_dim);
    gathered_ = workspace.shared<float>(heads_ * m * p.value_dim);
    solved_ = workspace.shared<float>(heads_ * m * p.value_dim);
    turned_ = workspace.per_worker<float>(m * p.head_dim);
    squares_ = workspace.per_worker<double>(4 * m * m + m * std::max({m, p.head_dim, p.value_dim}));
    gather_.emplace(gathering, kernels::EngineOptions{}, workspace);
    spread_.emplace(spreading, kernels::EngineOptions{}, workspace);
  }

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const auto all = [](const kernels::QueryBlock&, kernels::KeyList& keys) { keys.all(); };
    if (exact(p_, o_)) {
      spread_->run({a.q, a.k, a.v, a.out}, workspace, all);
    } else {
      const auto view = [&](const Booking<float>& b, index_t d) {
        return View<float, 4>(workspace.shared(b).data(), {p_.batch, p_.heads, o_.landmarks, d});
      };
      const auto q = view(q_, p_.head_dim), k = view(k_, p_.head_dim);
      const auto gathered = view(gathered_, p_.value_dim), solved = view(solved_, p_.value_dim);
      parallel_tasks(heads_ * 2, [&](index_t task, int) {
        const index_t batch = task / 2 / p_.heads, head = task / 2 % p_.heads;
        task % 2 == 0 ? means(a.q[batch][head], q[batch][head]) : means(a.k[batch][p_.kv_head(head)], k[batch][head]);
      });
      gather_->run({q, a.k, a.v, gathered}, workspace, all);
      parallel_tasks(heads_, [&](index_t task, int worker) {
        const index_t batch = task / p_.heads, head = task % p_.heads;
        solve(q[batch][head], k[batch][head], gathered[batch][head], workspace.of(worker, turned_).data(),
              workspace.of(worker, squares_).data(), solved[batch][head]);
      });
      spread_->run({a.q, k, solved, a.out}, workspace, all);
    }
    if (o_.conv > 0) convolve(a.v, parameters["conv"].data(), a.out);
  }

 private:
  template <class T>
  static Tensor<T> pseudo_inverse(const Tensor<T>& a, index_t iterations) {
    const Tensor<T> eye = identity<T>(a.extent(-1));
    const auto norm = [](const Tensor<T>& x, index_t axis) {
      return max(sum(abs(x), axis, Keep::yes), axis == -1 ? -2 : -1, Keep::yes);
    };
    Tensor<T> z = transpose(a) / (norm(a, -1) * norm(a, -2));
    for (index_t i = 0; i < iterations; ++i) {
      const Tensor<T> az = matmul(a, z);
      z = matmul(z, eye * T{13} - matmul(az, eye * T{15} - matmul(az, eye * T{7} - az))) / T{4};
    }
    return z;
  }

  struct Segment {
    index_t first, count;
  };
  static Segment segment_of(index_t rows, index_t m, index_t s) {
    const index_t shorter = rows / m, shorts = m - rows % m;
    return {s * shorter + std::max<index_t>(0, s - shorts), s < shorts ? shorter : shorter + 1};
  }

  static bool exact(const Problem& p, const Options& o) { return std::min(p.q_len, p.kv_len) <= o.landmarks; }

  void means(const View<const float, 2>& x, const View<float, 2>& to) const {
    for (index_t s = 0; s < o_.landmarks; ++s) {
      const Segment segment = segment_of(x.extent(0), o_.landmarks, s);
      const float share = 1 / static_cast<float>(segment.count);
      const kernels::Into row{to.row(s), to.stride(0)};
      std::fill_n(row.data, x.extent(1), 0.0f);
      kernels::add_column_sums(segment.count, x.extent(1), {x.row(segment.first), x.stride(0)}, row.data);
      kernels::scale_rows(1, x.extent(1), row, &share, row);
    }
  }

  // to = Z gathered.
  void solve(const View<float, 2>& q, const View<float, 2>& k, const View<float, 2>& gathered, float* turned, double* squares,
             const View<float, 2>& to) const {
    const index_t m = o_.landmarks, size = m * m, d = p_.head_dim, width = p_.value_dim;
    double *const minus_a = squares, *const minus_az = squares + size, *const y = squares + 2 * size, *const z = squares + 3 * size;
    double* const x = squares + 4 * size;  // at least [m, m], [m, D] and [m, Dv]
    // into = c I + left right
    const auto add_to_identity = [&](double c, const double* left, const double* right, double* into) {
      std::fill_n(into, size, 0.0);
      for (index_t i = 0; i < m; ++i) into[i * m + i] = c;
      kernels::add_product(m, m, m, left, right, into);
    };

    kernels::transpose(m, d, {k.row(0), d}, {turned, m});
    std::copy_n(q.row(0), m * d, x);
    std::fill_n(minus_a, size, 0.0);
    kernels::add_product(m, m, d, x, {turned, m}, minus_a);
    std::fill_n(x, m, 0.0);  // sums of the columns of A
    for (index_t i = 0; i < m; ++i) {
      double* const row = minus_a + i * m;
      const double top = *std::max_element(row, row + m);
      double sum = 0;
      for (index_t j = 0; j < m; ++j) sum += row[j] = std::exp(p_.scale() * (row[j] - top));
      for (index_t j = 0; j < m; ++j) x[j] += row[j] /= sum;
    }
    const double norms = *std::max_element(x, x + m);  // rows of A sum to one
    for (index_t i = 0; i < m; ++i) {
      for (index_t j = 0; j < m; ++j) z[j * m + i] = minus_a[i * m + j] / norms;
    }
    for (index_t e = 0; e < size; ++e) minus_a[e] = -minus_a[e];

    for (index_t step = 0; step < o_.iterations; ++step) {
      add_to_identity(0, minus_a, z, minus_az);
      std::copy_n(minus_az, size, x);
      for (index_t i = 0; i < m; ++i) x[i * m + i] += 7;
      add_to_identity(15, minus_az, x, y);
      add_to_identity(13, minus_az, y, x);
      add_to_identity(0, z, x, y);
      for (index_t e = 0; e < size; ++e) z[e] = y[e] / 4;
    }
    std::fill_n(x, m * width, 0.0);
    kernels::add_product(m, width, m, z, {gathered.row(0), gathered.stride(0)}, x);
    std::transform(x, x + m * width, to.row(0), [](double sum) { return static_cast<float>(sum); });
  }

  void convolve(const View<const float, 4>& v, const float* filters, const View<float, 4>& out) const {
    constexpr index_t rows = 64;  // 16 KB of output stay in L1 while the taps pass
    const index_t tiles = (p_.q_len + rows - 1) / rows;
    parallel_tasks(heads_ * tiles, [&](index_t task, int) {
      const index_t head = task / tiles % p_.heads, batch = task / tiles / p_.heads;
      const index_t first = task % tiles * rows, end = std::min(p_.q_len, first + rows);
      for (index_t t = 0; t < o_.conv; ++t) {
        const index_t shift = t - o_.conv / 2, from = std::max(first, -shift), to = std::min(end, p_.kv_len - shift);
        if (from >= to) continue;
        kernels::add(to - from, p_.value_dim, {v[batch][p_.kv_head(head)].row(from + shift), v.stride(2)},
                     {out[batch][head].row(from), out.stride(2)}, filters[head * o_.conv + t]);
      }
    });
  }

  Problem p_;
  Options o_;
  index_t heads_;
  Booking<float> q_, k_, gathered_, solved_, turned_;
  Booking<double> squares_;
  std::optional<kernels::SoftmaxEngine> gather_, spread_;
};
ATTN_VARIANT(nystrom, Nystrom)

}  // namespace attn
