#include "attn/inputs/projection.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "attn/core/isa.hpp"

namespace attn {

namespace {

constexpr index_t panel = PackedMatrix::panel;
constexpr index_t block = 64;  // tokens a task: 64 x (512 + 1536) floats stay in a 1 MiB cache

// Rows [0, rows) of one panel. Vectors of the compiler's extension: g++ 12 keeps arrays of accumulators in memory.
template <int rows>
[[gnu::always_inline]] inline void product(const float* in, index_t depth, const float* weights, float* out) {
  using Vector = float __attribute__((vector_size(64), aligned(4)));
  constexpr std::size_t vectors = panel / 16;
  Vector sum[rows][vectors] = {};
  for (index_t k = 0; k < depth; ++k) {
    const auto* w = reinterpret_cast<const Vector*>(weights + k * panel);
    for (int r = 0; r < rows; ++r) {
      for (std::size_t c = 0; c < vectors; ++c) sum[r][c] += in[r * depth + k] * w[c];
    }
  }
  std::memcpy(out, sum, sizeof sum);
}

// out [rows, panel]; `tile` rows at a time, as many as keep their sums in registers.
template <int tile>
[[gnu::always_inline]] inline void product_panel(const float* in, index_t rows, index_t depth, const float* weights, float* out) {
  for (; rows >= tile; rows -= tile, in += tile * depth, out += tile * panel) product<tile>(in, depth, weights, out);
  for (; rows > 0; --rows, in += depth, out += panel) product<1>(in, depth, weights, out);
}

using ProductPanel = void (*)(const float*, index_t, index_t, const float*, float*);

#if defined(__x86_64__)
[[gnu::target("avx512f")]] void product_avx512(const float* in, index_t rows, index_t depth, const float* weights, float* out) {
  product_panel<8>(in, rows, depth, weights, out);
}

[[gnu::target("avx2,fma")]] void product_avx2(const float* in, index_t rows, index_t depth, const float* weights, float* out) {
  product_panel<3>(in, rows, depth, weights, out);
}

void product_baseline(const float* in, index_t rows, index_t depth, const float* weights, float* out) {
  product_panel<1>(in, rows, depth, weights, out);
}

ProductPanel chosen_product() {
  if (chosen_isa() == Isa::avx512) return product_avx512;
  if (chosen_isa() == Isa::avx2) return product_avx2;
  return product_baseline;
}
#else
void product_baseline(const float* in, index_t rows, index_t depth, const float* weights, float* out) {
  product_panel<3>(in, rows, depth, weights, out);
}

ProductPanel chosen_product() { return product_baseline; }
#endif

// Adds PE(first), PE(first+1), ... to the rows of x: PE(i, 2f) = sin(i w_f), PE(i, 2f+1) = cos(i w_f), w_f =
// 10000^(-2f/width). Within a block the angle advances by rotation: a sine costs forty times a rotation.
void add_positions(index_t first, index_t count, index_t width, float* x) {
  const auto waves = static_cast<std::size_t>((width + 1) / 2);
  std::vector<double> sine(waves), cosine(waves), step_sine(waves), step_cosine(waves);
  for (std::size_t f = 0; f < waves; ++f) {
    const double frequency = std::pow(10000.0, -2.0 * static_cast<double>(f) / static_cast<double>(width));
    sine[f] = std::sin(frequency * static_cast<double>(first));
    cosine[f] = std::cos(frequency * static_cast<double>(first));
    step_sine[f] = std::sin(frequency);
    step_cosine[f] = std::cos(frequency);
  }
  for (index_t i = 0; i < count; ++i, x += width) {
    for (std::size_t f = 0; f < waves; ++f) {
      x[2 * f] += static_cast<float>(sine[f]);
      if (2 * f + 1 < static_cast<std::size_t>(width)) x[2 * f + 1] += static_cast<float>(cosine[f]);
      const double next = sine[f] * step_cosine[f] + cosine[f] * step_sine[f];
      cosine[f] = cosine[f] * step_cosine[f] - sine[f] * step_sine[f];
      sine[f] = next;
    }
  }
}

void layer_norm(index_t width, float* x) {
  double sum = 0;
  double square = 0;
  for (index_t d = 0; d < width; ++d) sum += static_cast<double>(x[d]);
  const double mean = sum / static_cast<double>(width);
  for (index_t d = 0; d < width; ++d) square += (static_cast<double>(x[d]) - mean) * (static_cast<double>(x[d]) - mean);
  const double scale = 1 / std::sqrt(square / static_cast<double>(width) + 1e-5);
  for (index_t d = 0; d < width; ++d) x[d] = static_cast<float>((static_cast<double>(x[d]) - mean) * scale);
}

void put_xavier(PackedMatrix& matrix, index_t first, index_t width, const Rng& rng) {
  std::vector<float> values(static_cast<std::size_t>(matrix.depth() * width));
  rng.uniforms(values);
  const auto bound = static_cast<float>(std::sqrt(6.0 / static_cast<double>(matrix.depth() + width)));
  for (float& x : values) x = bound * (2 * x - 1);
  matrix.put(first, values, width);
}

// One matrix for all heads: the columns of Wq head by head, then of Wk, then of Wv.
PackedMatrix projection_weights(const Problem& p, std::uint64_t seed) {
  PackedMatrix weights(model_width(p), p.heads * p.head_dim + p.kv_heads * (p.head_dim + p.value_dim));
  index_t column = 0;
  const auto put = [&](std::string_view name, index_t heads, index_t width) {
    const Rng rng(seed, name);
    for (index_t h = 0; h < heads; ++h, column += width) {
      put_xavier(weights, column, width, rng.substream(static_cast<std::uint64_t>(h)));
    }
  };
  put("projection Wq", p.heads, p.head_dim);
  put("projection Wk", p.kv_heads, p.head_dim);
  put("projection Wv", p.kv_heads, p.value_dim);
  return weights;
}

}  // namespace

PackedMatrix::PackedMatrix(index_t depth, index_t columns)
    : depth_(depth), columns_(columns), values_(static_cast<std::size_t>(depth * ((columns + panel - 1) / panel * panel))) {}

void PackedMatrix::put(index_t first, std::span<const float> values, index_t width) {
  for (index_t c = 0, run; c < width; c += run) {
    const index_t column = first + c;
    run = std::min(panel - column % panel, width - c);
    float* to = &values_[static_cast<std::size_t>(column / panel * panel * depth_ + column % panel)];
    for (index_t k = 0; k < depth_; ++k) std::copy_n(&values[static_cast<std::size_t>(k * width + c)], run, to + k * panel);
  }
}

void PackedMatrix::multiply(const float* in, index_t rows, float* out, index_t from) const {
  const ProductPanel product_of = chosen_product();
  std::array<float, block * panel> tile;
  for (index_t i = 0; i < rows; i += block) {
    const index_t count = std::min(block, rows - i);
    for (index_t c = from / panel * panel; c < columns_; c += panel) {
      product_of(in + i * depth_, count, depth_, &values_[static_cast<std::size_t>(c * depth_)], tile.data());
      const auto width = static_cast<std::size_t>(std::min(panel, columns_ - c));
      for (index_t r = 0; r < count; ++r)
        std::copy_n(&tile[static_cast<std::size_t>(r * panel)], width, out + (i + r) * columns_ + c);
    }
  }
}

PackedMatrix xavier(index_t depth, index_t columns, const Rng& rng) {
  PackedMatrix matrix(depth, columns);
  put_xavier(matrix, 0, columns, rng);
  return matrix;
}

void project(const Problem& p, std::uint64_t seed, Embed embed, const Tensors& tensors) {
  const index_t width = model_width(p);
  const index_t length = sequence_length(p);
  const index_t blocks = (length + block - 1) / block;
  const PackedMatrix weights = projection_weights(p, seed);

  parallel_tasks(p.batch * blocks, [&](index_t task, int) {
    const index_t b = task / blocks;
    const index_t first = task % blocks * block;
    const index_t count = std::min(block, length - first);
    std::vector<float> x(static_cast<std::size_t>(count * width));
    std::vector<float> y(static_cast<std::size_t>(count * weights.columns()));
    embed(b, first, count, x.data());
    add_positions(first, count, width, x.data());
    for (index_t i = 0; i < count; ++i) layer_norm(width, &x[static_cast<std::size_t>(i * width)]);
    const bool without_queries = first + count <= length - p.q_len;  // of a decode all tokens but the last few
    weights.multiply(x.data(), count, y.data(), without_queries ? p.heads * p.head_dim : 0);

    index_t column = 0;
    const auto scatter = [&](const View<float, 4>& to) {
      const index_t before = length - to.extent(2);  // tokens that come before the first row
      for (index_t h = 0; h < to.extent(1); ++h, column += to.extent(3)) {
        for (index_t i = std::max<index_t>(0, before - first); i < count; ++i) {
          std::copy_n(&y[static_cast<std::size_t>(i * weights.columns() + column)], to.extent(3), to[b][h].row(first + i - before));
        }
      }
    };
    scatter(tensors.q);
    scatter(tensors.k);
    scatter(tensors.v);
  });
}

}  // namespace attn
