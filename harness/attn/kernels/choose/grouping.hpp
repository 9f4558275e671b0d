// Who belongs to whom, decided from the data: the tables that clustered variants' definitions and fast paths share. Each takes
// floats and gives whole numbers, by the same operations in the same order wherever it is called, so both sides get the same
// table. Ties go to the lowest index; NaN loses every comparison, so tables of any input are in range. On the calling thread;
// without allocation, but for update_centroids.
#pragma once

#include <cstdint>
#include <span>

#include "attn/core/problem.hpp"
#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

// Lists items 0..n-1 by group, then by number: stable counting sort. Group g is order[begin[g]] .. order[begin[g + 1] - 1];
// begin holds one more than there are groups.
void sort_by_group(std::span<const std::int32_t> group, std::span<std::int32_t> order, std::span<std::int32_t> begin);

// Angular hashing (Andoni et al. 2015, arXiv:1509.02897): h(x) = argmax([x M; -x M]) over 2 * columns(M) buckets. With two
// factors two such hashes on columns of their own make h = a1 + first * a2.
struct AngularHash {
  index_t rounds = 1;
  index_t first = 2, second = 0;  // buckets of each factor, even; second = 0: one factor

  index_t columns() const { return (first + second) / 2; }  // of a round
  index_t buckets() const { return second == 0 ? first : first * second; }

  static constexpr index_t block = 128;  // rows at a time
  index_t scratch_floats() const { return 2 * block * rounds * columns(); }

  // bucket[r * stride + i] for rows i < n of x. rotations [dim, rounds * columns()].
  void operator()(index_t n, index_t dim, Rows x, const float* rotations, float* scratch, std::int32_t* bucket,
                  index_t stride) const;
};

// to[g] = mean of the rows of x in group g of `order` and `begin`, as sort_by_group leaves them; zeros if there are none.
void means_of_groups(std::span<const std::int32_t> order, std::span<const std::int32_t> begin, index_t dim, Rows x, Into to);

// (x - mean) / sqrt(variance + 1e-6), row by row, at most 256 columns; of the first m rows, where `to` may be
// `from`, or of those with the numbers listed.
void layer_norm(index_t m, index_t n, Rows from, Into to, const std::int32_t* list = nullptr);
// From the gradient of its result to that of `from`, in place.
void layer_norm_gradient(index_t m, index_t n, Rows from, Into gradient);

// Centroids that follow the rows nearest to them (largest product) as moving averages: Roy et al. 2021, arXiv:2003.05997.
// Sums and counts move by `decay`; the centroid is its sum over its count, smoothed by 1e-5 so that none divides by zero.
struct CentroidState {
  index_t clusters, dim;
  float* centroid;  // [clusters, dim]
  float* sum;       // [clusters, dim], begins as the centroids
  float* count;     // [clusters], begins as zeros
};
void update_centroids(const CentroidState& state, index_t n, Rows x, double decay);

}  // namespace attn::kernels
