// The register tiles of gemm; included once per instruction set.
#if defined(ATTN_KERNELS_GEMM_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_GEMM_INL
#undef ATTN_KERNELS_GEMM_INL
#else
#define ATTN_KERNELS_GEMM_INL
#endif
#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "attn/kernels/dense/gemm.hpp"
#include "attn/kernels/machine/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE::gemm_tiles {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr index_t lanes = kLanes;

// Vectors side by side in a tile, and rows for each width: accumulators + width + 1 broadcast fit 32 (16) registers, and
// 24 (12) accumulators hide the latency of two FMA pipes.
#if HWY_TARGET <= HWY_AVX3
inline constexpr int max_width = 4;
inline constexpr int tile_rows[] = {0, 16, 12, 8, 6, 0, 0, 0, 1, 0, 0, 0, 1};
#elif HWY_TARGET <= HWY_AVX2
inline constexpr int max_width = 3;
inline constexpr int tile_rows[] = {0, 12, 6, 4, 0, 0, 0, 0, 1};
#else
inline constexpr int max_width = 2;
inline constexpr int tile_rows[] = {0, 4, 4};
#endif

// Widths for a single row, widest first: four accumulators alone would wait for each other's latency, and lines of B come in longer
// runs (gru's step takes 0.91 of the time, Zen 4, D = 64).
#if HWY_TARGET <= HWY_AVX3
inline constexpr std::array row_widths{12, 8};
#elif HWY_TARGET <= HWY_AVX2
inline constexpr std::array row_widths{8};
#else
inline constexpr std::array<int, 0> row_widths{};
#endif

// Depth of a block: 128 rows of 4 vectors of B are 32 of the 48 KB of a Golden Cove L1.
inline constexpr index_t block_depth = 128;

// Rows of a block: its part of A, 96 KB, stays in L2 while the strips of B pass, even where rows are some KB apart.
inline constexpr index_t block_rows = 192;

struct Block {
  index_t row = 0, rows = 0;
  index_t k = 0, depth = 0;
};

struct Tile {
  const float* a = nullptr;
  index_t a_row = 0, a_step = 0;
  const float* b = nullptr;
  index_t b_row = 0;
  index_t depth = 0;
  const float* below = nullptr;  // rows of B after those
  index_t below_row = 0, below_depth = 0;
  float* c = nullptr;
  index_t c_row = 0;
  index_t last = lanes;  // lanes of the last vector that belong to C
  bool add = false;      // start from C, not from zero
  const float* row_scale = nullptr;
  const float* fetch = nullptr;  // a line to fetch at each step of k
  index_t fetch_step = 0;
  index_t diagonal = 0;  // C(i, j) with j > i + diagonal becomes zero
};

#define ATTN_EACH(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < (n); ++i)

template <int R, int W>
HWY_NOINLINE void tile(const Tile& t) {
  const F d;
  V c[R][W];
  ATTN_EACH(i, R) ATTN_EACH(w, W) c[i][w] = hn::Zero(d);

  const float* a[R];
  ATTN_EACH(i, R) a[i] = t.a + i * t.a_row;
  const float* ahead = t.fetch;
  const float* c_row = t.c;
  index_t c_rows = R;
  const float* b = t.b;
  index_t b_row = t.b_row, at = 0, left = t.depth, below = t.below_depth;
  for (;; --left, at += t.a_step, b += b_row) {
    if (left == 0) {
      if (below == 0) break;
      b = t.below, b_row = t.below_row;
      left = below, below = 0;
    }
    if constexpr (W >= 3) {
      __builtin_prefetch(ahead, 0, 2);
      ahead += t.fetch_step;
    }
    // The lines of C, a row at each of the first steps: met in a burst at the end, they hold up the next tile (1 to 4 %, Zen 4).
    if (c_rows > 0) {
      ATTN_EACH(w, W) __builtin_prefetch(c_row + w * lanes, 1, 3);
      c_row += t.c_row;
      --c_rows;
    }
    V row[W];
    ATTN_EACH(w, W) row[w] = hn::LoadU(d, b + w * lanes);
    ATTN_EACH(i, R) {
      const V x = hn::Set(d, a[i][at]);
      ATTN_EACH(w, W) c[i][w] = hn::MulAdd(x, row[w], c[i][w]);
    }
  }

  // What is there is added last: a block is summed by itself, so that errors grow with the blocks, not with their depth.
  if (t.add) {
    ATTN_EACH(i, R) {
      const float* from = t.c + i * t.c_row;
      ATTN_EACH(w, W - 1) c[i][w] = hn::Add(c[i][w], hn::LoadU(d, from + w * lanes));
      c[i][W - 1] = hn::Add(c[i][W - 1], load_first(from + (W - 1) * lanes, t.last));
    }
  }
  if (t.row_scale != nullptr) {
    ATTN_EACH(i, R) {
      const V scale = hn::Set(d, t.row_scale[i]);
      ATTN_EACH(w, W) c[i][w] = hn::Mul(c[i][w], scale);
    }
  }
  if (t.diagonal < W * lanes) {
    ATTN_EACH(i, R) ATTN_EACH(w, W) {
      const index_t keep = std::clamp<index_t>(t.diagonal + i + 1 - w * lanes, 0, lanes);
      c[i][w] = hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(keep)), c[i][w]);
    }
  }
  ATTN_EACH(i, R) {
    float* to = t.c + i * t.c_row;
    ATTN_EACH(w, W - 1) hn::StoreU(c[i][w], d, to + w * lanes);
    store_first(c[i][W - 1], to + (W - 1) * lanes, t.last);
  }
}

template <int W, int... I>
constexpr auto tiles_of(std::integer_sequence<int, I...>) {
  return std::array{&tile<I + 1, W>...};
}

// tiles<W>[r - 1] has r rows.
template <int W>
inline constexpr auto tiles = tiles_of<W>(std::make_integer_sequence<int, tile_rows[W]>());

// depth x (W vectors) of B, dense and padded with zeros.
template <int W>
HWY_NOINLINE void pack(const float* from, index_t row, index_t depth, index_t last, float* to) {
  const F d;
  for (index_t k = 0; k < depth; ++k, from += row, to += W * lanes) {
    ATTN_EACH(w, W - 1) hn::Store(hn::LoadU(d, from + w * lanes), d, to + w * lanes);
    hn::Store(load_first(from + (W - 1) * lanes, last), d, to + (W - 1) * lanes);
  }
}

// The rows to be fetched, a run of lines for each tile: down a column of lines, or straight on where rows lie side by side.
class FetchRuns {
 public:
  explicit FetchRuns(const GemmOptions& o) : at_(std::begin(o.fetch)), end_(std::end(o.fetch)) {}

  // At as many lines as the tile has steps; at a line that is near when all are done.
  HWY_INLINE void aim(Tile& t, index_t steps) {
    while (at_ != end_ && column_ >= at_->columns) ++at_, column_ = row_ = 0;
    if (at_ == end_) {
      t.fetch = t.b;
      t.fetch_step = 0;
      return;
    }
    const bool dense = at_->stride == at_->columns;
    t.fetch_step = dense ? line : at_->stride;
    t.fetch = at_->data + column_ + row_ * t.fetch_step;
    row_ += steps;
    if (row_ * line < at_->rows * (dense ? at_->columns : line)) return;
    row_ = 0;
    column_ += dense ? at_->columns : line;
  }

 private:
  static constexpr index_t line = 16;  // floats
  const Fetch *at_, *end_;
  index_t column_ = 0, row_ = 0;
};

// Columns `at` .. `at` + W vectors of one block of the result.
template <int W>
void strip(index_t k, Left a, Rows b, Into c, const GemmOptions& o, const Block& block, index_t at, index_t last,
           FetchRuns& fetch) {
  constexpr index_t rows = tile_rows[W];
  constexpr bool packs = W <= max_width;  // those of a single row are of whole vectors, each read once
  HWY_ALIGN float packed[packs ? block_depth * W * lanes : 1];
  HWY_ALIGN float packed_below[packs ? max_below * W * lanes : 1];
  Tile t{
      .a_row = a.row, .a_step = a.step, .b = b.data + block.k * b.stride + at, .b_row = b.stride, .c_row = c.stride, .last = last};
  // Rows a multiple of 4 KB apart fall into one set of L1; elsewhere copying costs what it saves (Emerald Rapids).
  if constexpr (packs) {
    if (last < lanes || (b.stride % 1024 == 0 && block.rows >= 96)) {
      pack<W>(t.b, b.stride, block.depth, last, packed);
      t.b = packed;
      t.b_row = W * lanes;
    }
  }
  t.add = o.add || block.k > 0;
  const bool ends = block.k + block.depth == k;
  const bool scaled = o.row_scale != nullptr && ends;
  if (ends && o.below_k > 0) {
    t.below = o.below.data + at;
    t.below_row = o.below.stride;
    if constexpr (packs) {
      if (last < lanes) {
        pack<W>(t.below, o.below.stride, o.below_k, last, packed_below);
        t.below = packed_below;
        t.below_row = W * lanes;
      }
    }
  }
  for (index_t i = block.row; i < block.row + block.rows; i += rows) {
    const index_t count = std::min(rows, block.row + block.rows - i);
    t.a = a.data + i * a.row + block.k * a.step;
    t.c = c.data + i * c.stride + at;
    t.row_scale = scaled ? o.row_scale + i : nullptr;
    t.depth = o.lower == Lower::left ? std::clamp<index_t>(i + count + o.diagonal - block.k, 0, block.depth) : block.depth;
    t.diagonal = o.lower == Lower::result ? i + o.diagonal - at : W * lanes;
    if (t.diagonal + count <= 0) t.depth = 0;
    if (ends) t.below_depth = o.lower == Lower::left ? std::clamp<index_t>(i + count + o.diagonal - k, 0, o.below_k) : o.below_k;
    if constexpr (W >= 3) fetch.aim(t, t.depth + t.below_depth);
    tiles<W>[static_cast<size_t>(count - 1)](t);
  }
}

// Width of the next strip: no strip of one vector where two even ones will do.
constexpr int next_width(index_t vectors) {
  if (vectors <= max_width) return static_cast<int>(vectors);
  const auto rest = vectors % max_width;
  return rest == 0 || rest == max_width - 1 ? max_width : max_width - 1;
}

// Wide strips of a single row, of whole vectors; returns the first column that is not done.
template <size_t I = 0>
index_t wide_row(index_t n, index_t k, Left a, Rows b, Into c, const GemmOptions& o, const Block& block, index_t at,
                 FetchRuns& fetch) {
  if constexpr (I < row_widths.size()) {
    constexpr int width = row_widths[I];
    for (; n - at >= width * lanes; at += width * lanes) strip<width>(k, a, b, c, o, block, at, lanes, fetch);
    return wide_row<I + 1>(n, k, a, b, c, o, block, at, fetch);
  }
  return at;
}

inline void run(index_t m, index_t n, index_t k, Left a, Rows b, Into c, const GemmOptions& o) {
  Block block;
  FetchRuns fetch(o);
  do {
    block.depth = std::min(block_depth, k - block.k);
    for (block.row = 0; block.row < m; block.row += block.rows) {
      block.rows = std::min(block_rows, m - block.row);
      for (index_t at = m == 1 && o.lower != Lower::result ? wide_row(n, k, a, b, c, o, block, 0, fetch) : 0; at < n;) {
        // A triangle in narrow strips has less to compute above its diagonal.
        const int width = o.lower == Lower::result ? 1 : next_width((n - at + lanes - 1) / lanes);
        const index_t last = std::min(lanes, n - at - (width - 1) * lanes);
        switch (width) {
          case 1: strip<1>(k, a, b, c, o, block, at, last, fetch); break;
          case 2: strip<2>(k, a, b, c, o, block, at, last, fetch); break;
#if HWY_TARGET <= HWY_AVX2
          case 3: strip<3>(k, a, b, c, o, block, at, last, fetch); break;
#endif
#if HWY_TARGET <= HWY_AVX3
          case 4: strip<4>(k, a, b, c, o, block, at, last, fetch); break;
#endif
          default: HWY_ABORT("gemm: width %d", width);
        }
        at += width * lanes;
      }
    }
    block.k += block.depth;
  } while (block.k < k);
}

}  // namespace attn::kernels::HWY_NAMESPACE::gemm_tiles
HWY_AFTER_NAMESPACE();
#endif
