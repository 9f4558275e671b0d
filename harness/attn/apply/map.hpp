// --map: where attention looks. The weights of a run as an array, or drawn on a page of its own that opens without a network.
#pragma once

#include <string>
#include <vector>

#include "attn/algebra/elements.hpp"
#include "attn/cell/cell_run.hpp"
#include "attn/measure/head_figures.hpp"

namespace attn {

struct MapOptions {
  std::string file;    // .npy: [batch, heads, q_len, kv_len] in f32; .html: the page, of the first sequence
  std::string tokens;  // a file with what the tokens are, one a line; empty: what the input knows of them
};

// A page holds so many weights, heads x queries x keys: 8 heads of 724 tokens, 11 MB.
inline constexpr index_t weights_of_page = index_t{1} << 22;

// What can be refused before anything is run: the file's ending, problems too large for it.
Status check_map(const MapOptions& options, const Problem& p);

class AttentionMap {
 public:
  // Of a cell that has run. Refuses operators that have no weights (attn/measure/implicit_matrix.hpp), and tokens that are too few or too
  // many.
  static Result<AttentionMap> of(const CellRun& run, const MapOptions& options);

  Status write() const;
  // What was written, with `more` behind it, and the figures, a line a head of the first sequence.
  std::string text(const std::string& more) const;

 private:
  AttentionMap(const CellRun& run, MapOptions options, Elements<float> weights);
  std::string page() const;

  MapOptions options_;
  Problem p_;
  std::string variant_, input_;
  Elements<float> weights_;           // [batch, heads, q_len, kv_len]
  std::vector<HeadFigures> figures_;  // of the first sequence
  TokenPicture tokens_;
};

}  // namespace attn
