#include "attn/inputs/tensors.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <vector>

#include "attn/core/rng.hpp"
#include "attn/exec/seating.hpp"

namespace attn {

std::size_t staggered(std::size_t end_bytes, std::size_t i) {
  constexpr std::size_t page = 4096, stagger = 576;  // nine cache lines
  return (end_bytes + page - 1) / page * page + i * stagger;
}

Tensors Tensors::allocate(const Problem& p) {
  const auto bytes = [](const View<float, 4>& view) { return static_cast<std::size_t>(view.size()) * sizeof(float); };

  Tensors t;
  t.q = {nullptr, {p.batch, p.heads, p.q_len, p.head_dim}};
  t.k = {nullptr, {p.batch, p.kv_heads, p.kv_len, p.head_dim}};
  t.v = {nullptr, {p.batch, p.kv_heads, p.kv_len, p.value_dim}};
  const std::size_t k_at = staggered(bytes(t.q), 1);
  const std::size_t v_at = staggered(k_at + bytes(t.k), 2);
  t.memory = Buffer(v_at + bytes(t.v));
  float* base = t.memory.as<float>();
  t.q = {base, t.q.extents()};
  t.k = {base + k_at / sizeof(float), t.k.extents()};
  t.v = {base + v_at / sizeof(float), t.v.extents()};
  for (const auto& x : {t.q, t.k, t.v}) OnNodes::lay(reinterpret_cast<std::byte*>(x.data_handle()), bytes(x));
  return t;
}

std::span<float> NamedTensors::add(const std::string& name, std::span<const index_t> extents) {
  index_t count = 1;
  for (const index_t extent : extents) count *= extent;
  memory.emplace_back(static_cast<std::size_t>(bytes_of(DType::f32, count)));
  arrays.set(name, Array(DType::f32, memory.back().data(), extents));
  return {memory.back().as<float>(), static_cast<std::size_t>(count)};
}

void draw(const InputSpec& spec, std::uint64_t seed, std::span<float> to) {
  Rng(seed, "input " + spec.name).normals(to);
  for (float& x : to) {
    const double drawn = spec.drawn(static_cast<double>(x));
    x = static_cast<float>(std::clamp(spec.whole ? std::floor(drawn) : drawn, spec.low, spec.high));
  }
}

Status check_shape(const Problem& p) {
  constexpr index_t most = index_t{1} << 40;  // elements of one tensor: 4 TiB of floats
  for (const index_t extent : {p.batch, p.heads, p.kv_heads, p.q_len, p.kv_len, p.head_dim, p.value_dim}) {
    if (extent < 1 || extent > most) return refuse("every extent must be 1.." + std::to_string(most) + ": " + to_string(p));
  }
  if (p.heads % p.kv_heads != 0) {
    return refuse(std::to_string(p.heads) + " heads cannot share " + std::to_string(p.kv_heads) + " kv_heads evenly");
  }
  const double elements = static_cast<double>(p.batch) * static_cast<double>(p.heads) *
                          static_cast<double>(std::max(p.q_len, p.kv_len)) * static_cast<double>(std::max(p.head_dim, p.value_dim));
  if (elements > static_cast<double>(most)) return refuse("a tensor of this problem would not fit any memory: " + to_string(p));
  return {};
}

namespace {

// Adds the row's figures to `sum`; `logits` are those of its visible keys.
void add_row(std::vector<double>& logits, Placement& sum) {
  const double count = static_cast<double>(logits.size());
  double mean = 0;
  double square = 0;
  for (const double x : logits) mean += x / count;
  for (const double x : logits) square += (x - mean) * (x - mean) / count;
  sum.logit_std += square;

  const double top = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  double moment = 0;  // sum of p ln p, before normalising
  for (double& x : logits) {
    const double e = std::exp(x - top);
    total += e;
    moment += e * (x - top);
    x = e;
  }
  const double entropy = std::log(total) - moment / total;
  sum.row_entropy += entropy;
  sum.perplexity += entropy - std::log(count);
  sum.sink_mass += logits[0] / total;
  const auto heavy = logits.begin() + std::min<std::ptrdiff_t>(32, std::ssize(logits));
  std::partial_sort(logits.begin(), heavy, logits.end(), std::greater<>());
  double mass = 0;
  for (auto x = logits.begin(); x != heavy; ++x) mass += *x / total;
  sum.top32_mass += mass;
}

}  // namespace

Placement place(const Problem& p, const FloatArrays& in) {
  const index_t rows = p.batch * p.heads * p.q_len;
  const index_t samples = std::min<index_t>(rows, 64);
  const Rng rng(1, "placement rows");
  Placement sum;
  index_t seeing = 0;  // rows that see no key have no weights to tell of
  std::vector<double> logits;
  for (index_t s = 0; s < samples; ++s) {
    // One row of each of `samples` equal strata.
    const index_t low = rows * s / samples;
    const index_t row = low + rng.below(s, rows * (s + 1) / samples - low);
    const index_t b = row / (p.heads * p.q_len);
    const index_t h = row / p.q_len % p.heads;
    const index_t i = row % p.q_len;
    const index_t visible = p.causal ? std::clamp<index_t>(p.query_position(i) + 1, 0, p.kv_len) : p.kv_len;
    if (visible == 0) continue;
    ++seeing;
    const float* q = in.q[b][h].row(i);
    const auto k = in.k[b][p.kv_head(h)];
    logits.assign(static_cast<std::size_t>(visible), 0);
    for (index_t j = 0; j < visible; ++j) {
      float dot = 0;
      for (index_t d = 0; d < p.head_dim; ++d) dot += q[d] * k.row(j)[d];
      logits[static_cast<std::size_t>(j)] = p.scale() * static_cast<double>(dot);
    }
    add_row(logits, sum);
    for (index_t d = 0; d < p.head_dim; ++d) sum.q_norm2 += static_cast<double>(q[d]) * static_cast<double>(q[d]) * p.scale();
  }
  const double n = static_cast<double>(std::max<index_t>(seeing, 1));
  return {std::sqrt(sum.logit_std / n), sum.row_entropy / n, std::exp(sum.perplexity / n), sum.sink_mass / n,
          sum.top32_mass / n,           sum.q_norm2 / n};
}

std::string to_string(const Placement& x) {
  char text[200];
  std::snprintf(text, sizeof text,
                "logit_std=%.3g row_entropy=%.3g (%.2g of the keys) sink_mass=%.2g top32_mass=%.2g |q|^2/sqrt(d)=%.3g", x.logit_std,
                x.row_entropy, x.perplexity, x.sink_mass, x.top32_mass, x.q_norm2);
  return text;
}

}  // namespace attn
