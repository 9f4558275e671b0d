#include "attn/measure/fidelity.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>
#include <optional>
#include <span>

#include "attn/core/rng.hpp"
#include "attn/measure/implicit_matrix.hpp"
#include "attn/prove/sampled_rows.hpp"

namespace attn {

namespace {

constexpr index_t compared_pairs = index_t{1} << 27;  // of a query and a key, over all heads
constexpr index_t least_rows = 64;
constexpr index_t chunk_pairs = index_t{1} << 18;  // of a head at once: some matrices of 2 MiB

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double x : values) sum += x;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  const auto at = values.begin() + std::lround(q * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

// JSON knows neither infinity nor NaN; an output of NaN is infinitely far off.
double finite(double x) { return std::isfinite(x) ? x : std::numeric_limits<double>::max(); }

}  // namespace

namespace {

// What the mask of a problem says of a head; nothing where it has none.
View<const float, 2> mask_of(const Problem& p, const NamedArrays& named, index_t head) {
  if (!p.mask.given()) return {};
  const auto mask = named["mask"].f32();
  return mask[p.mask.batch == 1 ? 0 : head / p.heads][p.mask.heads == 1 ? 0 : head % p.heads];
}

// One head as a problem of its own, with the keys and values that it reads and some of its queries.
Values<double> one_head(const Problem& p, const FloatArrays& in, const NamedArrays& named, index_t head,
                        std::span<const index_t> rows) {
  const index_t b = head / p.heads, h = head % p.heads;
  const auto q = in.q[b][h];
  Values<double> inputs{tabulate<double>({std::ssize(rows), p.head_dim},
                                         [&](index_t r, index_t d) { return q(rows[static_cast<std::size_t>(r)], d); }),
                        Tensor<double>::from(in.k[b][p.kv_head(h)]),
                        Tensor<double>::from(in.v[b][p.kv_head(h)]),
                        {}};
  for (const index_t row : rows) inputs.position.push_back(p.query_position(row));
  if (p.mask.given()) inputs.more.emplace("mask", Tensor<double>::from(mask_of(p, named, head)));
  return inputs;
}

Problem of_one_head(Problem p) {
  p.batch = p.heads = p.kv_heads = 1;
  if (p.mask.given()) p.mask.batch = p.mask.heads = 1;
  return p;
}

// Sums of V over the keys that each query of a head may see, one query after the other, and of how many.
class SeenValues {
 public:
  SeenValues(const Problem& p, const View<const float, 2>& v, const View<const float, 2>& mask)
      : p_(p), v_(v), mask_(mask), sum_(static_cast<std::size_t>(p.value_dim)) {}

  // Rows ascend.
  void move_to(index_t row) {
    const index_t visible = p_.causal ? std::clamp<index_t>(p_.query_position(row) + 1, 0, p_.kv_len) : p_.kv_len;
    const bool again = mask_.extent(0) > 1;
    if (again) std::fill(sum_.begin(), sum_.end(), 0.0), looked_at_ = count_ = 0;
    for (; looked_at_ < visible; ++looked_at_) {
      if (mask_.data_handle() != nullptr && std::isinf(mask_(again ? row : 0, looked_at_))) continue;
      ++count_;
      for (index_t d = 0; d < p_.value_dim; ++d) sum_[static_cast<std::size_t>(d)] += v_(looked_at_, d);
    }
  }
  double mean(index_t d) const { return sum_[static_cast<std::size_t>(d)] / static_cast<double>(std::max<index_t>(count_, 1)); }

 private:
  const Problem& p_;
  View<const float, 2> v_, mask_;
  std::vector<double> sum_;
  index_t looked_at_ = 0, count_ = 0;
};

}  // namespace

RowComparison::RowComparison(const Problem& p, const Arrays& arrays)
    : rows_(sampled_rows(p.q_len, std::max(compared_pairs / (p.batch * p.heads * p.kv_len), least_rows))),
      heads_(p.batch * p.heads),
      dim_(p.value_dim),
      exact_(static_cast<std::size_t>(heads_ * std::ssize(rows_) * dim_)) {
  const AsFloats floats(arrays);
  const FloatArrays in = floats.views();
  const index_t rows = std::ssize(rows_);
  const index_t chunk = std::clamp<index_t>(chunk_pairs / p.kv_len, 1, rows), chunks = (rows + chunk - 1) / chunk;
  parallel_tasks(heads_ * chunks, [&](index_t task, int) {
    const index_t head = task / chunks, first = task % chunks * chunk, count = std::min(chunk, rows - first);
    const std::span some(rows_.data() + first, static_cast<std::size_t>(count));
    const Tensor<double> out = softmax_attention(of_one_head(p), one_head(p, in, arrays.more, head, some), every_key);
    std::copy_n(out.data(), count * dim_, exact_.data() + (head * rows + first) * dim_);
  });

  for (index_t head = 0; head < heads_; ++head) {
    SeenValues seen(p, in.v[head / p.heads][p.kv_head(head % p.heads)], mask_of(p, arrays.more, head));
    for (index_t r = 0; r < rows; ++r) {
      seen.move_to(rows_[static_cast<std::size_t>(r)]);
      const double* exact = exact_.data() + (head * rows + r) * dim_;
      for (index_t d = 0; d < dim_; ++d) {
        exact2_ += exact[d] * exact[d];
        mean_error2_ += (seen.mean(d) - exact[d]) * (seen.mean(d) - exact[d]);
      }
    }
  }
  sum_.assign(exact_.size(), 0);
  sum2_ = sum_;
}

void RowComparison::add(View<const float, 4> output) {
  ATTN_ASSERT(output.extent(0) * output.extent(1) == heads_ && output.extent(3) == dim_);
  double error2 = 0;
  std::size_t at = 0;  // in exact_
  for (index_t head = 0; head < heads_; ++head) {
    const auto given_head = output[head / output.extent(1)][head % output.extent(1)];
    for (const index_t row : rows_) {
      double row_error2 = 0, row_exact2 = 0, given2 = 0, product = 0;
      for (index_t d = 0; d < dim_; ++d, ++at) {
        const double e = exact_[at], g = given_head(row, d);
        row_error2 += (g - e) * (g - e);
        row_exact2 += e * e;
        given2 += g * g;
        product += g * e;
        sum_[at] += g;
        sum2_[at] += g * g;
      }
      error2 += row_error2;
      if (row_exact2 > 0) row_error_.push_back(finite(std::sqrt(row_error2 / row_exact2)));
      if (row_exact2 > 0 && given2 > 0) cosine_.push_back(product / std::sqrt(row_exact2 * given2));
    }
  }
  relative_.push_back(exact2_ > 0 ? finite(std::sqrt(error2 / exact2_)) : 0);
  skill_.push_back(mean_error2_ > 0 ? -finite(error2 / mean_error2_ - 1) : (error2 == 0 ? 1 : 0));
}

Fidelity RowComparison::result() const {
  Fidelity f{.done = true, .skill = -finite(-mean(skill_)), .relative = finite(mean(relative_))};
  f.row_p50 = quantile(row_error_, 0.50);
  f.row_p95 = quantile(row_error_, 0.95);
  f.worst_row = quantile(row_error_, 1);
  f.cosine_p50 = quantile(cosine_, 0.50);
  f.seeds = static_cast<int>(relative_.size());
  const auto lost = [](double relative) { return relative == std::numeric_limits<double>::max(); };
  if (!lost(relative_.front())) f.lost_seeds = static_cast<int>(std::ranges::count_if(relative_, lost));
  if (f.seeds < 2 || exact2_ <= 0) return f;

  // |mean output - O|^2 holds a share 1/seeds of the scatter, which is taken off the bias.
  const auto n = static_cast<double>(f.seeds);
  double square = 0, bias2 = 0, scatter2 = 0;
  for (const double r : relative_) square += (r - f.relative) * (r - f.relative);
  for (std::size_t i = 0; i < sum_.size(); ++i) {
    const double average = sum_[i] / n, off = average - exact_[i];
    bias2 += off * off;
    scatter2 += std::max(0.0, sum2_[i] - n * average * average) / (n - 1);
  }
  f.relative_sd = finite(std::sqrt(square / (n - 1)));
  f.bias = finite(std::sqrt(std::max(0.0, bias2 - scatter2 / n) / exact2_));
  f.scatter = finite(std::sqrt(scatter2 / exact2_));
  return f;
}

namespace {

// The weights of one head: softmax attention's, and P' next to it.
struct Weights {
  index_t rows, keys;
  std::vector<double> exact, given;
};

// Mass of `mass` on the k keys of the largest `weight`. Keys that tie for the last places share them, as drawn at random.
double top_mass(std::span<const double> weight, std::span<const double> mass, index_t k) {
  std::vector<double> sorted(weight.begin(), weight.end());
  const auto last = sorted.begin() + (std::min<std::ptrdiff_t>(k, std::ssize(sorted)) - 1);
  std::nth_element(sorted.begin(), last, sorted.end(), std::greater<>());
  double above = 0, tied = 0;
  index_t places = last - sorted.begin() + 1, ties = 0;
  for (std::size_t j = 0; j < weight.size(); ++j) {
    if (weight[j] > *last) above += mass[j], --places;
    if (weight[j] == *last) tied += mass[j], ++ties;
  }
  return above + tied * static_cast<double>(places) / static_cast<double>(ties);
}

// Jensen-Shannon divergence in nats, 0 to ln 2: finite where a sparse pattern gives keys no weight at all. Negative
// weights of `given` count as none.
double jensen_shannon(std::span<const double> exact, std::span<const double> given) {
  double total = 0;
  for (const double g : given) total += std::max(0.0, g);
  if (total <= 0) return std::numbers::ln2;
  double js = 0;
  for (std::size_t j = 0; j < exact.size(); ++j) {
    const double p = exact[j], g = std::max(0.0, given[j]) / total, middle = (p + g) / 2;
    if (p > 0) js += p * std::log(p / middle) / 2;
    if (g > 0) js += g * std::log(g / middle) / 2;
  }
  return js;
}

// The largest singular value, by 30 power iterations on A^T A.
double spectral_norm(const std::vector<double>& a, index_t rows, index_t keys) {
  const Rng rng(0, "power iteration");
  std::vector<double> x(static_cast<std::size_t>(keys)), next(x.size());
  for (index_t j = 0; j < keys; ++j) x[static_cast<std::size_t>(j)] = rng.normal(j);
  double norm = 0;
  for (int step = 0; step < 30; ++step) {
    std::fill(next.begin(), next.end(), 0.0);
    double ax2 = 0, x2 = 0;
    for (index_t i = 0; i < rows; ++i) {
      const double* row = a.data() + i * keys;
      double ax = 0;
      for (std::size_t j = 0; j < x.size(); ++j) ax += row[j] * x[j];
      for (std::size_t j = 0; j < x.size(); ++j) next[j] += ax * row[j];
      ax2 += ax * ax;
    }
    for (const double v : x) x2 += v * v;
    norm = x2 > 0 ? std::sqrt(ax2 / x2) : 0;
    double length = 0;
    for (const double v : next) length += v * v;
    if (length <= 0) return norm;
    for (std::size_t j = 0; j < x.size(); ++j) x[j] = next[j] / std::sqrt(length);
  }
  return norm;
}

// Adds one head's figures, and to `masses` the attention that each row covers, with those of a row averaged over the rows that see any key.
void add_head(Weights& w, MatrixFidelity& sum, std::vector<double>& masses) {
  double error2 = 0, exact2 = 0, rows = 0;
  MatrixFidelity head;
  for (index_t i = 0; i < w.rows; ++i) {
    const std::span exact(w.exact.data() + i * w.keys, static_cast<std::size_t>(w.keys));
    const std::span given(w.given.data() + i * w.keys, static_cast<std::size_t>(w.keys));
    double seen = 0, support = 0;
    for (std::size_t j = 0; j < exact.size(); ++j) {
      error2 += (given[j] - exact[j]) * (given[j] - exact[j]);
      exact2 += exact[j] * exact[j];
      seen += exact[j];
      if (given[j] != 0) support += exact[j];
    }
    if (seen <= 0) continue;
    rows += 1;
    head.support_mass += support;
    masses.push_back(support);
    head.js += jensen_shannon(exact, given);
    for (const auto& [recall, k] : {std::pair{&head.recall_1, 1}, {&head.recall_8, 8}, {&head.recall_32, 32}}) {
      *recall += top_mass(given, exact, k) / top_mass(exact, exact, k);
    }
  }
  const double exact_norm = spectral_norm(w.exact, w.rows, w.keys);
  for (std::size_t i = 0; i < w.given.size(); ++i) w.given[i] -= w.exact[i];
  sum.spectral += exact_norm > 0 ? spectral_norm(w.given, w.rows, w.keys) / exact_norm : 0;
  sum.relative += exact2 > 0 ? std::sqrt(error2 / exact2) : 0;
  if (rows == 0) return;
  sum.js += head.js / rows;
  sum.recall_1 += head.recall_1 / rows;
  sum.recall_8 += head.recall_8 / rows;
  sum.recall_32 += head.recall_32 / rows;
  sum.support_mass += head.support_mass / rows;
}

}  // namespace

MatrixFidelity compare_matrices(const CellRun& cell) {
  const Problem& p = cell.problem();
  const Result<Elements<float>> all = implicit_matrix(cell);
  if (!all) return {.reason = all.reason()};
  const AsFloats floats(cell.arrays());
  const FloatArrays in = floats.views();
  const Problem one = of_one_head(p);
  const std::vector<index_t> rows = all_rows(p.q_len);
  MatrixFidelity sum{.done = true};
  std::vector<double> masses;  // that a row of the variant covers
  for (index_t head = 0; head < p.batch * p.heads; ++head) {
    const Values<double> inputs = one_head(p, in, cell.arrays().more, head, rows);
    const Tensor<double> exact =
        masked_softmax(one, inputs, matmul_transposed(inputs.q, inputs.k) * one.scale(), allowed_pairs(one, inputs, every_key));
    const float* first = all->data() + head * p.q_len * p.kv_len;
    Weights weights{p.q_len, p.kv_len, {exact.data(), exact.data() + exact.size()}, {first, first + exact.size()}};
    add_head(weights, sum, masses);
  }
  for (double MatrixFidelity::*figure :
       {&MatrixFidelity::relative, &MatrixFidelity::js, &MatrixFidelity::recall_1, &MatrixFidelity::recall_8,
        &MatrixFidelity::recall_32, &MatrixFidelity::support_mass, &MatrixFidelity::spectral}) {
    sum.*figure /= static_cast<double>(p.batch * p.heads);
  }
  sum.support_mass_p05 = quantile(std::move(masses), 0.05);
  return sum;
}

std::string incomparable(const VariantInfo& info) {
  const bool other_matter = info.exactness == Exactness::different && info.reads != Reads::qkv;
  return other_matter ? "a different operator that reads no keys: distance to softmax attention says nothing" : "";
}

Fidelity measure_fidelity(const CellRun& cell, Comparison level, int seeds) {
  if (level == Comparison::none) return {};
  const Problem& p = cell.problem();
  if (const std::string why = incomparable(cell.variant().info()); !why.empty()) return {.reason = why};
  std::optional<RowComparison> rows;
  cell.arena().execute([&] { rows.emplace(p, cell.arrays()); });
  rows->add(cell.output());
  if (cell.variant().info().randomised && seeds > 1) {
    const Buffer memory = output_buffer(p);
    Arrays arrays = cell.arrays();
    arrays.out = output_view(p, memory);
    const Parameters specs = cell.specs();
    const ParameterSet<float> fitted = cell.fitted();
    for (int s = 1; s < seeds; ++s) {
      cell.run(arrays, make_parameters(specs, cell.seed() + static_cast<std::uint64_t>(s), fitted));
      rows->add(arrays.out.f32());
    }
  }
  Fidelity f = rows->result();
  if (level == Comparison::full) f.matrix = compare_matrices(cell);
  return f;
}

}  // namespace attn
