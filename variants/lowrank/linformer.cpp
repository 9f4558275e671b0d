#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "attn/core/round.hpp"
#include "attn/kernels/dense/gemm_of_pairs.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/machine/dtypes.hpp"
#include "attn/kernels/machine/widen.hpp"
#include "attn/kernels/softmax/engine.hpp"
#include "attn/kernels/softmax/tile_bf16.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// linformer: softmax attention to k mixtures of all keys, whose weights are learned.
//   out = softmax(Q (E K)^T / sqrt(D)) (F V),  E, F [k, M]
//   Wang et al. 2020, arXiv:2006.04768, section 4
//   useful flops 2 k (M + N) (D + Dv), N k exps; workspace k (D + Dv) a head, and 128 k a worker
//   k = M with E = F = I is full attention. Every mixture holds all positions, so no causal form exists.
//   weights=lstsq: E of segment means, and F = E + (C^T C + r I)^-1 C^T (P - C E), the least squares of C F = P at some of the
//   queries, where P = softmax(Q K^T / sqrt(D)), C = softmax(Q (E K)^T / sqrt(D))
struct Linformer {
  // Read as it is stored: a block of tokens is widened when it is projected, queries by the engine. Where products are made of bf16, E, F and
  // the mixtures are rounded to it.
  static constexpr const auto& dtypes = kernels::engine_kv_dtypes;
  struct Engine {
    static kernels::Compute compute(const Problem& p) {
      return p.head_dim % 16 == 0 && p.value_dim % 16 == 0 ? kernels::compute_of(p) : kernels::Compute::f32;
    }
  };

  enum class Sharing { none, headwise, kv };
  enum class Weights { random, mean, small, lstsq };
  struct Options {
    index_t k = 256;
    Sharing sharing = Sharing::kv;
    index_t max_len = 0;
    Weights weights = Weights::random;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("k", &Options::k, 1, 65536, "projected keys")
        .budget()
        .choice("sharing", &Options::sharing, {{"none", Sharing::none}, {"headwise", Sharing::headwise}, {"kv", Sharing::kv}},
                "none: E and F for each head; headwise: E and F for all heads; kv: one matrix, E = F")
        .integer("max_len", &Options::max_len, 0, unlimited,
                 "columns of E and F, of which the first M are used; 0: as many as keys")
        .choice("weights", &Options::weights,
                {{"random", Weights::random}, {"mean", Weights::mean}, {"small", Weights::small}, {"lstsq", Weights::lstsq}},
                "how E and F start: N(0, 1/k); row r as the mean over the r-th of k segments, a fit that needs no training; "
                "N(0, 0.02^2), from which recall is learned; or E of such means and F by least squares from every second query of "
                "the input, at most 2048 of a head, for sharing=none and headwise");
  }

  static VariantInfo info() {
    return {.title = "Linformer",
            .formula = "out = softmax(Q (E K)^T / sqrt(D)) (F V)",
            .paper = "Wang et al. 2020, arXiv:2006.04768, section 4",
            .cost_in_n = "N k D",
            .fine_print =
                "weights=lstsq fits the matrix of weights and not the output: E is means of segments, and F the "
                "least squares of C F = P over some of the queries, P = softmax(Q K^T / sqrt(D)), C = softmax(Q "
                "(E K)^T / sqrt(D)), with a ridge of 1e-6 of the trace.",
            .exactness = Exactness::fitted,
            .causality = Causality::never,
            .grouped_heads = true,
            .in_default_sweep = true,
            .time_exponent = 1,
            .acausal = "E and F sum keys and values over all positions"};
  }

  // The projections are multiplied twice, for E or F and for K or V; of the attention, see softmax_backward_cost.
  static Cost backward_cost(const Problem& p, const Options& o) {
    Cost cost = softmax_backward_cost(Linformer::cost(p, o));
    cost.flops -= 0.5 * projection_flops(p, o);
    return cost;
  }

  // random: the random projection of the paper's theorem 1. small: a mixture of all tokens at full size drowns the pair that its
  // row comes to stand for. Packed recall of 8 pairs at N=64, k=16, E = F: solved in 640 steps from small with one of three seeds,
  // with none from random; with F of its own at chance from either, as no row of F knows which key its row of E took.
  static Parameters parameters(const Problem& p, const Options& o) {
    const index_t matrices = o.sharing == Sharing::none ? p.kv_heads : 1;
    const Shape shape{matrices, o.k, columns(p, o)};
    const double spread = o.weights == Weights::small ? 0.02 : 1 / std::sqrt(static_cast<double>(o.k));
    const bool pooled = o.weights == Weights::mean || o.weights == Weights::lstsq;
    const Init init =
        pooled ? [](std::span<float> values, const Shape& s, const Rng&) { segment_means(values, s); } : init::normal(spread);
    const std::string axes = o.sharing == Sharing::none ? "kv_heads, k, L" : "1, k, L";
    Parameters list{{.name = "E",
                     .shape = shape,
                     .init = init,
                     .axes = axes,
                     .doc = "E[., r, j]: the weight of key j in mixture r; L: as in max_len, of keys"}};
    if (o.sharing != Sharing::kv)
      list.push_back(
          {.name = "F", .shape = shape, .init = init, .axes = axes, .doc = "of value j in mixture r; with sharing=kv E serves"});
    if (o.weights == Weights::lstsq) {
      list.back().fit = [p](std::span<float> values, const Shape& s, const FloatArrays& a) { least_squares(p, values, s, a); };
    }
    return list;
  }

  static Status supports(const Problem& p, const Options& o) {
    if (p.kv_len > columns(p, o)) {
      return refuse("kv_len=" + std::to_string(p.kv_len) +
                    " exceeds the longest sequence that E is learned for, max_len=" + std::to_string(o.max_len));
    }
    if (o.weights != Weights::lstsq) return {};
    if (o.sharing == Sharing::kv)
      return refuse(
          "weights=lstsq fits F beside an E of segment means: give sharing=none or sharing=headwise, not kv, which is E = F");
    if (o.k > longest_fit) {
      return refuse("weights=lstsq solves k equations at once, at most " + std::to_string(longest_fit) +
                    ", not k=" + std::to_string(o.k));
    }
    if (o.k * p.kv_len > largest_fit) {
      return refuse("weights=lstsq holds k kv_len numbers a head several times over in double, at most " +
                    std::to_string(largest_fit) + ", not k=" + std::to_string(o.k) + " times kv_len=" + std::to_string(p.kv_len));
    }
    return {};
  }

  static Status supports_backward(const Problem&, const Options& o) {
    if (o.weights != Weights::lstsq) return {};
    return refuse("weights=lstsq is fitted to its inputs, which no gradient flows through");
  }

  static std::string note(const Problem& p, const Options& o, const FloatArrays&) {
    if (o.weights != Weights::lstsq) return "";
    return "F is fitted to " + std::to_string((p.q_len + fit_step(p) - 1) / fit_step(p)) + " of " + std::to_string(p.q_len) +
           " queries of this input";
  }

  static Cost cost(const Problem& p, const Options& o) {
    const auto b = static_cast<double>(p.batch), k = static_cast<double>(o.k), m = static_cast<double>(p.kv_len);
    const double queries = static_cast<double>(p.heads * p.q_len), width = static_cast<double>(p.head_dim + p.value_dim);
    const double matrices = o.sharing == Sharing::none ? 2.0 * static_cast<double>(p.kv_heads) : o.sharing == Sharing::kv ? 1 : 2;
    return {.flops = projection_flops(p, o) + 2 * b * k * width * queries,
            .bytes = tensor_bytes(p) + matrices * k * m * sizeof(float),
            .exps = b * queries * k};
  }

  // The k mixtures.
  static StateSpec state(const Problem& p, const Options& o) { return kept_keys(p, o.k); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const auto project = [&](const char* name, const Tensor<T>& x) {
      return per_query_head(p, matmul(slice(parameters[name], -1, 0, p.kv_len), x));
    };
    const Tensor<T> keys = project("E", in.k), values = project(o.sharing == Sharing::kv ? "E" : "F", in.v);
    return matmul(softmax(matmul_transposed(in.q, keys) * static_cast<T>(p.scale())), values);
  }

  // Heads are split over the threads first, so that each block of E serves many; then the keys, into partial sums.
  Linformer(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        pairs_(Engine::compute(p) == kernels::Compute::bf16_dot),
        heads_(p.batch * p.kv_heads),
        groups_(std::min<index_t>(heads_, workspace.threads())),
        segments_(std::clamp<index_t>(workspace.threads() / heads_, 1, (p.kv_len + block - 1) / block)),
        keys_(workspace.shared<float>(segments_ * heads_ * o.k * p.head_dim)),
        values_(workspace.shared<float>(segments_ * heads_ * o.k * p.value_dim)),
        block_(workspace.per_worker<float>(o.k * block)),
        widened_(workspace.per_worker<float>(pairs_ || p.kv_dtype == DType::f32 ? 0 : block * widest(p))),
        rounded_(workspace.per_worker<bf16>(pairs_ ? o.k * block : 0)),
        packed_(workspace.per_worker<std::uint32_t>(pairs_ ? block / 2 * widest(p) : 0)),
        mixtures_(workspace.shared<bf16>(pairs_ ? heads_ * o.k * (p.head_dim + p.value_dim) : 0)),
        engine_(projected(p, o, pairs_), {.compute = Engine::compute(p)}, workspace) {
    if (!workspace.training()) return;
    d_keys_ = workspace.shared<float>(heads_ * o.k * p.head_dim);
    d_values_ = workspace.shared<float>(heads_ * o.k * p.value_dim);
    d_block_ = workspace.per_worker<float>((o.k + std::max(p.head_dim, p.value_dim)) * block);
  }

  void run(const Arrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const Side sides[] = {{a.k, parameters.view<3>("E"), workspace.shared(keys_).data(), p_.head_dim},
                          {a.v, parameters.view<3>(o_.sharing == Sharing::kv ? "E" : "F"), workspace.shared(values_).data(),
                           p_.value_dim, p_.head_dim}};
    parallel_tasks(groups_ * segments_, [&](index_t task, int worker) {
      project(sides, task / segments_, task % segments_, {workspace, worker});
    });
    parallel_tasks(segments_ > 1 || pairs_ ? heads_ : 0, [&](index_t head, int) {
      for (const Side& side : sides) {
        const kernels::Into sum = side.partial(*this, 0, head);
        for (index_t s = 1; s < segments_; ++s) kernels::add(o_.k, side.width, side.partial(*this, s, head), sum);
        if (pairs_) kernels::round_to_bf16(o_.k, side.width, sum, halves(side, workspace) + head * o_.k * side.width, side.width);
      }
    });
    Arrays projected = a;
    projected.k = mixed(sides[0], workspace), projected.v = mixed(sides[1], workspace);
    engine_.run(projected, workspace, kernels::all_keys);
  }

  // The engine gives the gradients dK' and dV' of the mixtures; then dK = E^T dK', dE = dK' K^T, and so for F and V.
  void backward(const Arrays& arrays, const ParameterSet<float>& parameters, const Gradients& gradients,
                Workspace& workspace) const {
    const FloatArrays a(arrays);
    const FloatGradients g(gradients);
    const auto d_keys = mixtures(d_keys_, p_.head_dim, workspace), d_values = mixtures(d_values_, p_.value_dim, workspace);
    engine_.backward({a.q, mixtures(keys_, p_.head_dim, workspace), mixtures(values_, p_.value_dim, workspace)},
                     {a.out, g.d_out, g.d_q, d_keys, d_values}, workspace, kernels::all_keys);
    const bool shared = o_.sharing == Sharing::kv;
    const auto d_e = g.d_parameters.view<3>("E"), d_f = g.d_parameters.view<3>(shared ? "E" : "F");
    const BackSide sides[] = {{a.k, parameters.view<3>("E"), d_keys, g.d_k, d_e, false},
                              {a.v, parameters.view<3>(shared ? "E" : "F"), d_values, g.d_v, d_f, shared}};
    const index_t matrices = d_e.extent(0), blocks = (columns(p_, o_) + block - 1) / block;
    parallel_tasks(matrices * blocks, [&](index_t task, int worker) {
      for (const BackSide& side : sides) project_back(side, task / blocks, task % blocks * block, workspace, worker);
    });
  }

 private:
  // Columns of E at a time. Rows of E are a power of two apart as a rule, which would throw each other out of L2: a block is
  // copied, and then multiplied with K and V of many heads.
  static constexpr index_t block = 128;

  struct Side {
    Array from;
    View<const float, 3> weights;
    float* to;  // [segments, heads, k, width]
    index_t width, width_before = 0;
    kernels::Into partial(const Linformer& l, index_t segment, index_t head) const {
      return {to + (segment * l.heads_ + head) * l.o_.k * width, width};
    }
  };

  // A worker's own memory.
  struct Own {
    const Workspace& workspace;
    int worker;
    template <class T>
    T* operator[](const Booking<T>& booking) const {
      return workspace.of(worker, booking).data();
    }
  };

  void project(const Side (&sides)[2], index_t group, index_t segment, const Own& own) const {
    const index_t blocks = (p_.kv_len + block - 1) / block;
    const index_t first = blocks * segment / segments_ * block;
    const index_t end = std::min(p_.kv_len, blocks * (segment + 1) / segments_ * block);
    for (index_t t = first; t < end; t += block) {
      const index_t count = std::min(block, end - t);
      const float* source = nullptr;
      for (const Side& side : sides) {
        for (index_t h = heads_ * group / groups_; h < heads_ * (group + 1) / groups_; ++h) {
          const auto weights = side.weights[o_.sharing == Sharing::none ? h % p_.kv_heads : 0];
          if (const float* wanted = weights.row(0) + t; wanted != source) {
            take_weights(count, {wanted, weights.stride(0)}, own);
            source = wanted;
          }
          mix(side, h, t, count, side.partial(*this, segment, h), t > first, own);
        }
      }
    }
  }

  // A block's columns of E or F, dense.
  void take_weights(index_t count, kernels::Rows columns, const Own& own) const {
    if (!pairs_) return kernels::copy(o_.k, count, columns, {own[block_], block});
    kernels::round_to_bf16(o_.k, count, columns, own[rounded_], block);
    for (index_t row = 0; row < (count % 2 != 0 ? o_.k : 0); ++row) own[rounded_][row * block + count] = {};
  }

  // Those times the tokens of the block.
  void mix(const Side& side, index_t head, index_t first, index_t count, kernels::Into to, bool add, const Own& own) const {
    const index_t b = head / p_.kv_heads, h = head % p_.kv_heads;
    if (!pairs_) {
      const kernels::Rows tokens = kernels::float_rows(side.from, b, h, first, count, own[widened_]);
      return kernels::gemm(o_.k, side.width, count, {own[block_], block}, tokens, to, {.add = add});
    }
    static constexpr std::array<std::byte, 512> zeros{};  // a row of 256 bf16
    const kernels::StoredRows stored = kernels::rows_of_head(side.from, b, h);
    std::array<const std::byte*, block> rows;
    for (index_t i = 0; i < count; ++i) rows[static_cast<std::size_t>(i)] = stored.row(first + i);
    if (count % 2 != 0) rows[static_cast<std::size_t>(count)] = zeros.data();
    const index_t even = round_up(count, 2);
    kernels::pack_pairs(rows.data(), even, side.width, own[packed_], side.width);
    kernels::gemm_of_pairs(o_.k, side.width, even, own[rounded_], block, own[packed_], side.width, to, add);
  }

  bf16* halves(const Side& side, const Workspace& workspace) const {
    return workspace.shared(mixtures_).data() + (side.width_before * heads_ * o_.k);
  }
  // What the engine attends to.
  Array mixed(const Side& side, const Workspace& workspace) const {
    const std::array<index_t, 4> shape = {p_.batch, p_.kv_heads, o_.k, side.width};
    if (pairs_) return View<const bf16, 4>(halves(side, workspace), shape);
    return View<const float, 4>(side.to, shape);
  }

  // Beyond one row a column, rows repeat columns: k = M is full attention, and so is k = 2 M.
  static void segment_means(std::span<float> values, const Shape& shape) {
    const index_t k = shape[1], m = shape[2];
    std::fill(values.begin(), values.end(), 0.0f);
    for (index_t row = 0; row < shape[0] * k; ++row) {
      const index_t first = row % k * m / k, end = std::max(first + 1, (row % k + 1) * m / k);
      std::fill_n(values.begin() + row * m + first, end - first, 1 / static_cast<float>(end - first));
    }
  }

  // What a fit may cost: k and M of both limits together take a minute on two cores with eight heads.
  static constexpr index_t longest_fit = 2048, largest_fit = index_t{1} << 24, fitted_queries = 2048;

  // Every second query, so that the others tell whether the fit holds; fewer of many, so that its cost grows with M alone.
  static index_t fit_step(const Problem& p) { return std::max<index_t>(2, (p.q_len + fitted_queries - 1) / fitted_queries); }

  // The ridge r is a millionth of the trace of C^T C: it leaves F at E in the directions that C hardly has, and changes
  // the error of other queries by less than 1 % (N = 1024, k = 64; cluster, iid, local, lowrank), for the better. With k = M,
  // C is P and F stays E = I.
  static void least_squares(const Problem& p, std::span<float> values, const Shape& shape, const FloatArrays& a) {
    segment_means(values, shape);
    const index_t matrices = shape[0], k = shape[1], m = shape[2], group = p.heads / p.kv_heads, step = fit_step(p);
    const index_t queries = (p.q_len + step - 1) / step;
    const Tensor<double> e = slice(Tensor<double>::from(View<const float, 2>(values.data(), {k, m})), -1, 0, p.kv_len);
    parallel_tasks(matrices, [&](index_t matrix, int) {
      Tensor<double> seen = zeros<double>({k, k}), wanted = zeros<double>({k, p.kv_len});  // C^T C, C^T P
      for (index_t head = 0; head < p.batch * p.heads; ++head) {
        const index_t b = head / p.heads, h = head % p.heads;
        if (matrices > 1 && h / group != matrix) continue;
        const Tensor<double> keys = Tensor<double>::from(a.k[b][h / group]), pooled = matmul(e, keys);
        const View<const float, 2> all = a.q[b][h];
        for (index_t first = 0; first < queries; first += block) {
          const Tensor<double> q = Tensor<double>::from(View<const float, 2>(
              all.row(first * step), {std::min(block, queries - first), p.head_dim}, {all.stride(0) * step, all.stride(1)}));
          const auto weights = [&](const Tensor<double>& to) { return softmax(matmul_transposed(q, to) * p.scale()); };
          const Tensor<double> c = weights(pooled), transposed = transpose(c);
          seen = seen + matmul(transposed, c);
          wanted = wanted + matmul(transposed, weights(keys));
        }
      }
      const Tensor<double> ridge = identity<double>(k) * (1e-6 * sum(seen * identity<double>(k)).item());
      const Tensor<double> change = solve(seen + ridge, wanted - matmul(seen, e));
      for (index_t row = 0; row < k; ++row) {
        for (index_t j = 0; j < p.kv_len; ++j)
          values[static_cast<std::size_t>((matrix * k + row) * m + j)] = static_cast<float>(e(row, j) + change(row, j));
      }
    });
  }

  struct BackSide {
    View<const float, 4> from;
    View<const float, 3> weights;
    View<float, 4> d_mixtures, d_from;
    View<float, 3> d_weights;
    bool add;  // to d_weights
  };

  // Columns t .. t + block - 1 of one matrix, and the tokens that they stand for: rows of d_from have one writer.
  void project_back(const BackSide& side, index_t matrix, index_t t, const Workspace& workspace, int worker) const {
    const index_t k = o_.k, width = side.from.extent(3), count = std::clamp<index_t>(p_.kv_len - t, 0, block);
    const auto weights = side.weights[matrix];
    const auto d_weights = side.d_weights[matrix];
    const kernels::Into packed{workspace.of(worker, block_).data(), block}, d_packed{workspace.of(worker, d_block_).data(), block};
    const kernels::Into transposed{d_packed.data + k * block, block};
    kernels::copy(k, count, {weights.row(0) + t, weights.stride(0)}, packed);
    const bool own_heads = o_.sharing == Sharing::none;
    for (index_t h = own_heads ? matrix : 0, done = 0; h < heads_; h += own_heads ? p_.kv_heads : 1, ++done) {
      const auto rows = side.from[h / p_.kv_heads][h % p_.kv_heads];
      const auto d_rows = side.d_from[h / p_.kv_heads][h % p_.kv_heads];
      const auto d_mixtures = side.d_mixtures[h / p_.kv_heads][h % p_.kv_heads];
      if (count == 0) continue;
      kernels::gemm(count, width, k, {packed.data, 1, block}, {d_mixtures.row(0), width}, {d_rows.row(t), d_rows.stride(0)});
      kernels::transpose(count, width, {rows.row(t), rows.stride(0)}, transposed);
      kernels::gemm(k, count, width, {d_mixtures.row(0), width}, transposed, d_packed, {.add = done > 0});
    }
    const kernels::Into to{d_weights.row(0) + t, d_weights.stride(0)};
    if (count > 0 && side.add) kernels::add(k, count, d_packed, to);
    if (count > 0 && !side.add) kernels::copy(k, count, d_packed, to);
    const index_t unused = std::min(block, columns(p_, o_) - t) - count;  // of positions that no token stands at
    for (index_t row = 0; row < k && !side.add; ++row) std::fill_n(to.data + row * to.stride + count, unused, 0.0f);
  }

  View<float, 4> mixtures(const Booking<float>& booking, index_t width, const Workspace& workspace) const {
    return {workspace.shared(booking).data(), {p_.batch, p_.kv_heads, o_.k, width}};
  }

  static double projection_flops(const Problem& p, const Options& o) {
    return 2 * static_cast<double>(p.batch * o.k * (p.head_dim + p.value_dim) * p.kv_heads) * static_cast<double>(p.kv_len);
  }
  static index_t columns(const Problem& p, const Options& o) { return o.max_len == 0 ? p.kv_len : o.max_len; }
  static Problem projected(Problem p, const Options& o, bool pairs) {
    p.kv_len = o.k, p.kv_dtype = pairs ? DType::bf16 : DType::f32;
    return p;
  }
  static index_t widest(const Problem& p) { return std::max(p.head_dim, p.value_dim); }

  Problem p_;
  Options o_;
  bool pairs_;  // of bf16: what products are made of
  index_t heads_, groups_, segments_;
  Booking<float> keys_, values_, block_, widened_, d_keys_, d_values_, d_block_;
  Booking<bf16> rounded_;
  Booking<std::uint32_t> packed_;
  Booking<bf16> mixtures_;
  kernels::SoftmaxEngine engine_;
};
ATTN_VARIANT(linformer, Linformer)

}  // namespace attn
