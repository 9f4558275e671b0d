#include "attn/measure/implicit_matrix.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "attn/core/text.hpp"

namespace attn {

namespace {

bool of_x(const CellRun& cell) { return cell.variant().info().reads == Reads::x; }

Elements<float> columns_of(const CellRun& cell) {
  const Problem& p = cell.problem();
  Arrays arrays = cell.arrays();
  Array& mixed = of_x(cell) ? arrays.q : arrays.v;  // a page that reads x finds it in q
  const DType dtype = mixed.dtype();
  const index_t heads = mixed.extent(1), width = mixed.extent(3);
  const Buffer memory(static_cast<std::size_t>(mixed.bytes()));
  const Buffer out_memory = output_buffer(p);
  const View<float, 4> out = output_view(p, out_memory);
  mixed = Array(dtype, memory.data(), mixed.extents());
  arrays.out = out;
  Elements<float> matrix({p.batch, p.heads, p.q_len, p.kv_len});
  const View<float, 4> columns(matrix.writable(), {p.batch, p.heads, p.q_len, p.kv_len});
  const auto set_block = [&](index_t first, index_t count, float value) {
    for (index_t head = 0; head < p.batch * heads; ++head) {
      for (index_t d = 0; d < count; ++d)
        round_row(&value, 1, dtype, memory.data() + bytes_of(dtype, (head * p.kv_len + first + d) * width + d));
    }
  };
  for (index_t first = 0; first < p.kv_len; first += width) {
    const index_t count = std::min(width, p.kv_len - first);
    set_block(first, count, 1);
    cell.run(arrays, cell.parameters());
    set_block(first, count, 0);
    for (index_t head = 0; head < p.batch * p.heads; ++head) {
      const auto from = out[head / p.heads][head % p.heads];
      const auto to = columns[head / p.heads][head % p.heads];
      for (index_t i = 0; i < p.q_len; ++i) std::copy_n(from.row(i), count, to.row(i) + first);
    }
  }
  return matrix;
}

// |P' V - out| / |out| over all heads, or of x.
double missed(const CellRun& cell, const Elements<float>& matrix) {
  const Problem& p = cell.problem();
  const AsFloats floats(cell.arrays());
  const FloatArrays in = floats.views();
  const View<float, 4> output = cell.output();
  double missed2 = 0, output2 = 0;
  for (index_t head = 0; head < p.batch * p.heads; ++head) {
    const index_t b = head / p.heads, h = head % p.heads, size = p.q_len * p.kv_len;
    const float* first = matrix.data() + head * size;
    const Tensor<double> product = matmul(Tensor<double>({p.q_len, p.kv_len}, std::vector<double>(first, first + size)),
                                          Tensor<double>::from(of_x(cell) ? in.q[b][h] : in.v[b][p.kv_head(h)]));
    const Tensor<double> given = Tensor<double>::from(View<const float, 2>(output[b][h]));
    for (index_t i = 0; i < given.size(); ++i) {
      missed2 += std::pow(product.data()[i] - given.data()[i], 2);
      output2 += std::pow(given.data()[i], 2);
    }
  }
  const double share = std::sqrt(missed2 / std::max(output2, 1e-300));
  return std::isfinite(share) ? share : std::numeric_limits<double>::max();
}

}  // namespace

Status has_matrix(const Problem& p) {
  if (p.q_len > longest_matrix || p.kv_len > longest_matrix)
    return refuse("matrices are compared up to " + std::to_string(longest_matrix) + " queries and keys");
  if (block_of(p.kv_dtype) > 1) return refuse("blocks of " + std::string(to_string(p.kv_dtype)) + " hold no identity matrix");
  return {};
}

Result<Elements<float>> implicit_matrix(const CellRun& cell) {
  if (Status possible = has_matrix(cell.problem()); !possible) return possible.refusal();
  Elements<float> matrix = columns_of(cell);
  constexpr double linear_within = 1e-3;  // rounding alone leaves 1e-6; biases and channels that are mixed leave more than this
  if (const double off = missed(cell, matrix); off > linear_within)
    return refuse("the output is not a matrix times " + std::string(of_x(cell) ? "x" : "V") + ": they differ by " +
                  format_number(std::round(1e4 * off) / 1e4));
  return matrix;
}

}  // namespace attn
