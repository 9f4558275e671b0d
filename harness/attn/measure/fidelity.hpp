// How near softmax attention an output comes on the same Q, K, V. Formulas and their literature: reference/accuracy.md
// section 3.1. Everything is summed in double.
#pragma once

#include <iterator>
#include <vector>

#include "attn/cell/cell.hpp"
#include "attn/cell/cell_run.hpp"

namespace attn {

// Why outputs of such a variant are not compared; empty if they are. An operator that reads no keys has nothing to
// approximate. Another kernel of the same queries and keys is compared, and flagged by its exactness.
std::string incomparable(const VariantInfo& info);

// Of a cell whose output has been written. Variants with random tables are run again under the seeds that
// follow the cell's, `seeds` in all; the matrix is that of the cell's own seed.
Fidelity measure_fidelity(const CellRun& cell, Comparison level, int seeds);

// Outputs of one problem against softmax attention: at all rows up to 2^27 pairs of a query and a key (8 heads of
// N = 4096, 2 s of one core), beyond that at as many sampled rows of every head, at least 64. Runs in the caller's arena.
class RowComparison {
 public:
  RowComparison(const Problem& p, const Arrays& arrays);
  void add(View<const float, 4> output);  // one for each seed
  Fidelity result() const;
  index_t rows() const { return std::ssize(rows_); }  // compared, of each head

 private:
  std::vector<index_t> rows_;
  index_t heads_, dim_;                     // heads of all sequences, width of a value
  std::vector<double> exact_;               // [heads, rows, dim]
  double exact2_ = 0, mean_error2_ = 0;     // |O|^2, and that of answering mean(V)
  std::vector<double> sum_, sum2_;          // over the outputs, element by element
  std::vector<double> relative_, skill_;    // one an output
  std::vector<double> row_error_, cosine_;  // one a row and output
};

// The matrix P' of an operator out = P' V against softmax attention's: the fast path is run on blocks of the identity.
MatrixFidelity compare_matrices(const CellRun& cell);

}  // namespace attn
