#include "attn/kernels/softmax/key_stream.hpp"

#include <algorithm>
#include <optional>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace attn::kernels {

namespace {

// Zeros of any number type.
alignas(64) constexpr std::byte padding_row[sizeof(float) * max_head_dim] = {};

// Rows that are multiples of 4 KiB apart meet in one set of the first cache (12 ways of 64 sets on Emerald Rapids).
bool lands_in_few_sets(index_t stride) { return stride % 4096 == 0; }

index_t right_limit(const KeyRun& run, bool causal) { return causal ? std::min<index_t>(run.right, 0) : run.right; }

// n / step rounded down; a product of doubles takes a fifth of the time of a division and the half keeps it from rounding wrong.
index_t divide_down(index_t n, index_t step) {
  if (step == 1) return n;
  constexpr index_t far = index_t{1} << 40;
  const double quotient = (static_cast<double>(std::clamp(n, -far, far)) + 0.5) * (1.0 / static_cast<double>(step));
  const auto towards_zero = static_cast<index_t>(quotient);
  return towards_zero - (quotient < 0);
}

index_t divide_up(index_t n, index_t step) { return divide_down(n - 1, step) + 1; }

// Lanes from..to-1 of a word.
std::uint64_t lane_range(index_t from, index_t to) {
  const auto from_lane = [](index_t n) { return n >= 64 ? 0 : ~std::uint64_t{0} << std::max<index_t>(n, 0); };
  return from_lane(from) & ~from_lane(to);
}

// Lanes whose row is from `low` to `high`, numbers that fit 32 bits. Once for each key and tile: element by element it took as
// long as the key's products.
std::uint64_t listed_between(const std::int32_t* rows, index_t count, index_t low, index_t high) {
  std::uint64_t lanes = 0;
  index_t i = 0;
#if defined(__SSE2__)
  const __m128i least = _mm_set1_epi32(static_cast<int>(low)), most = _mm_set1_epi32(static_cast<int>(high));
  for (; i + 4 <= count; i += 4) {
    const __m128i row = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows + i));
    const __m128i out = _mm_or_si128(_mm_cmplt_epi32(row, least), _mm_cmpgt_epi32(row, most));
    lanes |= static_cast<std::uint64_t>(~_mm_movemask_ps(_mm_castsi128_ps(out)) & 15) << i;
  }
#endif
  for (; i < count; ++i) lanes |= std::uint64_t{rows[i] >= low && rows[i] <= high} << i;
  return lanes;
}

// Lanes of the tile that stand from key - back to key + ahead, for one key after the other.
class LanesAround {
 public:
  LanesAround(const TileQueries& tile, index_t first_key, index_t back, index_t ahead)
      : tile_(tile), first_key_(first_key), back_(back), ahead_(ahead) {
    if (tile.block->rows != nullptr) return;
    low_ = divide_up(first_key - back - tile.lowest, tile.block->step);
    high_ = divide_down(first_key + ahead - tile.lowest, tile.block->step) + 1;
  }

  // Key r of keys as far apart as the queries: the common case, without a division.
  std::uint64_t evenly(index_t r) const { return lane_range(low_ + r, high_ + r); }

  std::uint64_t operator()(index_t key, index_t r) const {
    const QueryBlock& block = *tile_.block;
    if (block.rows != nullptr) return search(key - back_, key + ahead_);
    if (key - first_key_ == r * block.step) return evenly(r);
    return lane_range(divide_up(key - back_ - tile_.lowest, block.step), divide_down(key + ahead_ - tile_.lowest, block.step) + 1);
  }

 private:
  std::uint64_t search(index_t low, index_t high) const {
    if (low <= tile_.lowest && high >= tile_.highest) return lane_range(0, tile_.count);
    const index_t shift = tile_.block->shift;
    return listed_between(tile_.block->rows + tile_.first, tile_.count, std::max(low, tile_.lowest) - shift,
                          std::min(high, tile_.highest) - shift);
  }

  const TileQueries& tile_;
  index_t first_key_, back_, ahead_;
  index_t low_ = 0, high_ = 0;
};

// Points keys begin..end-1 of the panel at their rows.
void place(const KeyRows& rows, KeyPanel& panel, index_t begin, index_t end) {
  const KeyLayout& layout = rows.layout;
  for (auto at = static_cast<std::size_t>(begin); at < static_cast<std::size_t>(end); ++at) {
    const index_t key = panel.key[at], row = layout.row(key);
    const index_t page = layout.pages != nullptr ? layout.pages[key / layout.page_rows] : 0;
    panel.k[at] = rows.k + page * layout.k_page_stride + row * rows.k_stride;
    panel.v[at] = rows.v + page * layout.v_page_stride + row * rows.v_stride;
  }
}

// Lanes of the tile that the run's exceptions hide the key from; bits past the tile's queries may be anything.
std::uint64_t hidden_lanes(const KeyRun& run, const TileQueries& tile, index_t key) {
  const index_t row = tile.block->row(tile.first), word = row / 64, shift = row % 64;
  const std::uint64_t* bits = run.hidden + key * run.hidden_words + word;
  const bool more = shift > 0 && word + 1 < run.hidden_words;
  return bits[0] >> shift | (more ? bits[1] << (64 - shift) : 0);
}

// Lanes of the tile whose rows begin at the key or before.
std::uint64_t begun_lanes(const KeyRun& run, const TileQueries& tile, index_t key) {
  const std::int32_t* const begins = run.begins + tile.block->row(tile.first);
  return lane_range(0,
                    std::partition_point(begins, begins + tile.count, [&](std::int32_t begin) { return begin <= key; }) - begins);
}

}  // namespace

KeyStream::KeyStream(const KeyList& list, index_t lowest, index_t highest, bool causal, index_t panel_limit)
    : list_(list), lowest_(lowest), highest_(highest), causal_(causal), limit_(panel_limit) {
  enter_run();
}

void KeyStream::enter_run() {
  if (run_ == list_.size()) return;
  const KeyRun& run = list_[run_];
  from_ = std::max<index_t>(0, lowest_ - run.left);
  to_ = std::min(list_.kv_len() - 1, highest_ + right_limit(run, causal_)) + 1;
  offset_ = 0;
  group_ = 0;
  last_group_ = run.count;
  if (run.index == nullptr && run.step > 0) {
    group_ = std::clamp<index_t>(divide_up(from_ - run.first - run.width + 1, run.step), 0, run.count);
    last_group_ = std::clamp<index_t>(divide_down(to_ - 1 - run.first, run.step) + 1, group_, run.count);
  }
}

index_t KeyStream::remaining() const {
  index_t keys = 0;
  KeyStream rest = *this;
  for (; rest.run_ < list_.size(); ++rest.run_, rest.enter_run()) {
    const KeyRun& run = list_[rest.run_];
    const index_t groups = rest.last_group_ - rest.group_;
    if (run.width == 1 || groups > 2 || run.index != nullptr) {
      keys += groups * run.width;
    } else {
      for (index_t g = rest.group_; g < rest.last_group_; ++g) {
        const index_t base = run.first + run.step * g;
        keys += std::max<index_t>(0, std::min(base + run.width, rest.to_) - std::max(base, rest.from_));
      }
    }
  }
  return keys;
}

// Takes keys of the run until it or the panel is full; returns the panel's new length.
index_t KeyStream::append(const KeyRun& run, const KeyRows& rows, KeyPanel& panel, index_t n, index_t limit) {
  const auto put = [&](index_t at, index_t key) {
    const auto slot = static_cast<std::size_t>(at);
    panel.key[slot] = key;
    panel.k[slot] = rows.k + key * rows.k_stride;
    panel.v[slot] = rows.v + key * rows.v_stride;
  };
  if (run.width == 1 && run.index == nullptr && run.step > 0) {  // groups of one key, which enter_run has clipped
    for (; group_ < last_group_ && n < limit; ++group_, ++n) put(n, run.first + run.step * group_);
    return n;
  }
  while (group_ < last_group_ && n < limit) {
    const index_t base = run.first + run.step * (run.index != nullptr ? run.index[group_] : group_);
    const index_t first = std::max(base, from_) + offset_;
    const index_t end = std::min(base + run.width, to_);
    const index_t take = std::clamp<index_t>(end - first, 0, limit - n);
    for (index_t i = 0; i < take; ++i, ++n) put(n, first + i);
    if (first + take >= end) {
      ++group_;
      offset_ = 0;
    } else {
      offset_ += take;
    }
  }
  return n;
}

bool KeyStream::next(const KeyRows& rows, KeyPanel& panel, std::byte* copies) {
  index_t n = 0;
  while (n < limit_ && run_ < list_.size()) {
    const KeyRun& run = list_[run_];
    const auto few_sets = [&](index_t stride) { return lands_in_few_sets(run.width == 1 ? run.step * stride : stride); };
    const bool copies_some = copies != nullptr && (few_sets(rows.k_stride) || (rows.copy_v && few_sets(rows.v_stride)));
    const index_t limit = copies_some ? std::min(limit_, usual_panel_keys) : limit_;
    if (n >= limit) break;
    const index_t begin = n;
    const index_t end = n = append(run, rows, panel, n, limit);
    if (!rows.layout.plain()) place(rows, panel, begin, end);
    if (copies_some && end - begin > key_step) {
      const auto copy = [&](auto& row, index_t stride, index_t bytes, std::byte* to) {
        if (!few_sets(stride)) return;
        for (index_t j = begin; j < end; ++j) {
          const std::byte*& source = row[static_cast<std::size_t>(j)];
          source = std::copy_n(source, bytes, to + j * bytes) - bytes;
        }
      };
      if (rows.copy_k) copy(panel.k, rows.k_stride, rows.k_bytes, copies);
      if (rows.copy_v) copy(panel.v, rows.v_stride, rows.v_bytes, copies + usual_panel_keys * rows.k_bytes);
    }
    for (; n % key_step != 0; ++n) {
      const auto at = static_cast<std::size_t>(n);
      panel.key[at] = 0;
      panel.k[at] = panel.v[at] = padding_row;
    }
    const bool plain = run.keep == nullptr && run.hidden == nullptr && run.begins == nullptr && run.not_left + run.not_right < 0;
    for (index_t row = begin; row < end; row += key_step) {
      const index_t stop = std::min(row + key_step, end);
      const auto keys = panel.key.begin();
      index_t low = keys[row], high = keys[stop - 1];
      if (run.index != nullptr || run.step <= 0) {
        const auto [least, most] = std::minmax_element(keys + row, keys + stop);
        low = *least, high = *most;
      }
      panel.steps[static_cast<std::size_t>(row / key_step)] = {&run, low, high, (1u << (stop - row)) - 1,
                                                               plain && stop - row == key_step};
    }
    if (group_ == last_group_) {
      ++run_;
      enter_run();
    }
  }
  panel.count = n;
  panel.lowest = anywhere;
  panel.highest = -anywhere;
  panel.left = panel.right = -anywhere;
  panel.least_left = panel.least_right = anywhere;
  panel.plain = true;
  panel.ascending = true;
  for (index_t step = 0; step < n / key_step; ++step) {
    const KeyPanel::Step& s = panel.steps[static_cast<std::size_t>(step)];
    panel.ascending = panel.ascending && s.lowest >= panel.highest;
    panel.lowest = std::min(panel.lowest, s.lowest);
    panel.highest = std::max(panel.highest, s.highest);
    panel.left = std::max(panel.left, s.run->left);
    panel.right = std::max(panel.right, right_limit(*s.run, causal_));
    panel.least_left = std::min(panel.least_left, s.run->left);
    panel.least_right = std::min(panel.least_right, right_limit(*s.run, causal_));
    panel.plain = panel.plain && s.plain;
  }
  return n > 0;
}

std::pair<index_t, index_t> steps_in_reach(const KeyPanel& panel, const TileQueries& tile) {
  const index_t low = tile.lowest - panel.left, high = tile.highest + panel.right;
  if (panel.lowest > high || panel.highest < low) return {0, 0};
  const auto begin = panel.steps.begin(), end = begin + panel.count / key_step;
  if (!panel.ascending) return {0, end - begin};
  const auto first = std::partition_point(begin, end, [&](const KeyPanel::Step& s) { return s.highest < low; });
  return {first - begin, std::partition_point(first, end, [&](const KeyPanel::Step& s) { return s.lowest <= high; }) - begin};
}

Sight partial_sight(const KeyPanel& panel, index_t step, const TileQueries& tile, bool causal, std::uint64_t* lanes) {
  const KeyPanel::Step& s = panel.steps[static_cast<std::size_t>(step)];
  const KeyRun& run = *s.run;
  const index_t right = right_limit(run, causal);
  const bool excludes = run.not_left + run.not_right >= 0;
  if (excludes && s.lowest >= tile.highest - run.not_left && s.highest <= tile.lowest + run.not_right) return Sight::none;
  const bool all_in = s.highest <= tile.lowest + right && s.lowest >= tile.highest - run.left;
  const bool none_out = !excludes || s.lowest > tile.highest + run.not_right || s.highest < tile.lowest - run.not_left;
  constexpr unsigned full = (1u << key_step) - 1;
  const bool begun = run.begins == nullptr || run.begins[tile.block->row(tile.first + tile.count - 1)] <= s.lowest;
  const bool whole = all_in && none_out && begun && run.keep == nullptr && s.valid == full;
  if (whole && run.hidden == nullptr) return Sight::all;

  ATTN_ASSERT((run.hidden == nullptr && run.begins == nullptr) || (tile.block->rows == nullptr && tile.block->step == 1));
  // Lanes past the tile's queries may see what they like: their results are not written.
  const std::uint64_t spare = ~lane_range(0, tile.count);
  std::uint64_t seen = 0;
  if (whole) {
    std::uint64_t every = ~std::uint64_t{0};
    for (index_t r = 0; r < key_step; ++r) {
      lanes[r] = ~hidden_lanes(run, tile, panel.key[static_cast<std::size_t>(step * key_step + r)]) | spare;
      every &= lanes[r];
      seen |= lanes[r] & ~spare;
    }
    return every == ~std::uint64_t{0} ? Sight::all : seen != 0 ? Sight::some : Sight::none;
  }
  const index_t first_key = panel.key[static_cast<std::size_t>(step * key_step)];
  const LanesAround inside(tile, first_key, right, run.left);
  bool evenly = s.plain && tile.block->rows == nullptr;
  for (index_t r = 1; r < key_step; ++r) {
    evenly = evenly && panel.key[static_cast<std::size_t>(step * key_step + r)] - first_key == r * tile.block->step;
  }
  if (evenly) {  // the edge of a window: 3 % of its time went into the general way below
    for (index_t r = 0; r < key_step; ++r) {
      const std::uint64_t own = inside.evenly(r);
      seen |= own & ~spare;
      lanes[r] = own | spare;
    }
    return seen != 0 ? Sight::some : Sight::none;
  }
  std::optional<LanesAround> excluded;
  if (excludes) excluded.emplace(tile, first_key, run.not_right, run.not_left);
  for (index_t r = 0; r < key_step; ++r) {
    lanes[r] = 0;
    if ((s.valid >> r & 1) == 0) continue;
    const index_t key = panel.key[static_cast<std::size_t>(step * key_step + r)];
    std::uint64_t own = inside(key, r);
    if (excludes) own &= ~(*excluded)(key, r);
    if (run.hidden != nullptr) own &= ~hidden_lanes(run, tile, key);
    if (!begun) own &= begun_lanes(run, tile, key);
    if (run.keep != nullptr) {
      for (index_t i = 0; i < tile.count; ++i) {
        if ((own >> i & 1) != 0 && !run.keep(run.context, tile.block->row(tile.first + i), key)) own &= ~(std::uint64_t{1} << i);
      }
    }
    seen |= own & ~spare;
    lanes[r] = own | spare;
  }
  return seen != 0 ? Sight::some : Sight::none;
}

}  // namespace attn::kernels
