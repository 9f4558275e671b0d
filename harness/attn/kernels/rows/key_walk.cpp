#include "attn/kernels/rows/key_walk.hpp"

#include <algorithm>

#include "attn/core/assert.hpp"

namespace attn::kernels {

namespace {

constexpr index_t ceil_div(index_t n, index_t d) { return (n + d - 1) / d; }

index_t right_limit(const KeyRun& run, bool causal) { return causal ? std::min<index_t>(run.right, 0) : run.right; }

bool excludes(const KeyRun& run) { return run.not_left + run.not_right >= 0; }

// Appends spans, joining those that follow each other.
class Spans {
 public:
  Spans(const GroupRows& rows, std::span<KeyRun> to) : rows_(rows), to_(to) {}

  index_t size() const { return static_cast<index_t>(size_); }

  // Stretches of `width` keys from first, first + step, ... of `run`, what of them lies in [low, high].
  void add(const KeyRun& run, index_t first, index_t step, index_t count, index_t width, index_t low, index_t high) {
    if (step <= width && count > 1) width += step * (count - 1), count = 1;
    const auto skip = [&](index_t stretches) { first += stretches * step, count -= stretches; };
    if (first + width <= low) skip(std::min(count, ceil_div(low - first - width + 1, step)));
    if (count > 0 && first < low) {
      take(run, low, 1, 1, std::min(first + width - 1, high) - low + 1);
      skip(1);
    }
    const index_t whole = first + width - 1 > high ? 0 : std::min(count, (high - first - width + 1) / step + 1);
    take(run, first, step, whole, width);
    skip(whole);
    if (count > 0 && first <= high) take(run, first, 1, 1, high - first + 1);
  }

 private:
  void take(const KeyRun& run, index_t first, index_t step, index_t count, index_t width) {
    if (count <= 0 || width <= 0) return;
    ATTN_ASSERT(run.hidden == nullptr);
    if (run.keep == nullptr) return append(run, first, step, count, width);
    for (index_t e = 0; e < count; ++e) {
      for (index_t key = first + e * step; key < first + e * step + width; ++key) {
        if (seen_by_some(run, key)) append(run, key, 1, 1, 1);
      }
    }
  }

  bool seen_by_some(const KeyRun& run, index_t key) const {
    for (index_t i = 0; i < rows_.queries; ++i) {
      if (sees(run, rows_, rows_.first_query + i, key)) return true;
    }
    return false;
  }

  void append(const KeyRun& run, index_t first, index_t step, index_t count, index_t width) {
    if (count == 1) step = width;
    if (size_ > 0 && source_ == &run && count == 1) {
      KeyRun& last = to_[size_ - 1];
      if (last.count == 1 && last.first + last.width == first) {
        last.width += width;
        return;
      }
    }
    ATTN_ASSERT(size_ < to_.size());
    KeyRun& span = to_[size_++];
    source_ = &run;
    span = run;
    span.first = first, span.step = step, span.count = count, span.width = width, span.index = nullptr;
    // What a single query does not see is not in the list.
    if (rows_.queries == 1) span.left = span.right = anywhere, span.not_left = -1, span.not_right = 0, span.keep = nullptr;
  }

  const GroupRows& rows_;
  std::span<KeyRun> to_;
  std::size_t size_ = 0;
  const KeyRun* source_ = nullptr;  // of the last span
};

}  // namespace

bool sees(const KeyRun& run, const GroupRows& rows, index_t query, index_t key) {
  const index_t distance = key - (rows.shift + query);
  return distance <= right_limit(run, rows.causal) && distance >= -run.left &&
         !(excludes(run) && distance <= run.not_right && distance >= -run.not_left) &&
         (run.keep == nullptr || run.keep(run.context, query, key));
}

index_t list_spans(const KeyList& list, const GroupRows& rows, std::span<KeyRun> to) {
  Spans spans(rows, to);
  for (std::size_t r = 0; r < list.size(); ++r) {
    const KeyRun& run = list[r];
    const index_t low = std::max<index_t>(0, rows.lowest() - run.left);
    const index_t high = std::min(list.kv_len() - 1, rows.highest() + right_limit(run, rows.causal));
    // Keys that no query sees: up to `below` and from `above` on they are seen by some.
    const index_t below = excludes(run) ? rows.highest() - run.not_left - 1 : high;
    const index_t above = excludes(run) ? std::max(rows.lowest() + run.not_right + 1, below + 1) : high + 1;
    const auto add = [&](index_t first, index_t step, index_t count) {
      spans.add(run, first, step, count, run.width, low, std::min(high, below));
      spans.add(run, first, step, count, run.width, std::max(low, above), high);
    };
    if (run.index == nullptr && run.step >= run.width) {
      add(run.first, run.step, run.count);
      continue;
    }
    for (index_t e = 0; e < run.count; ++e) add(run.first + run.step * (run.index != nullptr ? run.index[e] : e), 1, 1);
  }
  return spans.size();
}

index_t count_keys(std::span<const KeyRun> spans) {
  index_t keys = 0;
  for (const KeyRun& span : spans) keys += span.count * span.width;
  return keys;
}

KeyWalk::KeyWalk(std::span<const KeyRun> spans, const KeyRows& keys, const GroupRows& rows, index_t from)
    : spans_(spans), keys_(keys), rows_(rows), at_(from) {
  while (span_ < spans_.size() && at_ >= count_keys(spans_.subspan(span_, 1))) at_ -= count_keys(spans_.subspan(span_++, 1));
}

bool KeyWalk::seen_by_all(const KeyRun& run, index_t low, index_t high) const {
  return run.keep == nullptr && !excludes(run) && high <= rows_.lowest() + right_limit(run, rows_.causal) &&
         low >= rows_.highest() - run.left;
}

void KeyWalk::point(KeyBlock& block, index_t position, index_t step, index_t count) const {
  auto n = static_cast<std::size_t>(block.count);
  while (count > 0) {
    const KeyLayout& layout = keys_.layout;
    const std::byte *k = keys_.k, *v = keys_.v;
    if (layout.pages != nullptr) {
      const std::int32_t page = layout.pages[position / layout.page_rows];
      k += page * layout.k_page_stride, v += page * layout.v_page_stride;
    }
    const index_t row = layout.row(position), here = std::min(count, layout.evenly(position, step));
    k += row * keys_.k_stride, v += row * keys_.v_stride;
    const index_t k_step = step * keys_.k_stride, v_step = step * keys_.v_stride;
    for (index_t j = 0; j < here; ++j, ++n) block.k[n] = k + j * k_step, block.v[n] = v + j * v_step;
    position += here * step;
    count -= here;
  }
}

void KeyWalk::next(KeyBlock& block, index_t limit) {
  block.count = 0;
  block.cut = false;
  while (block.count < limit && span_ < spans_.size()) {
    const KeyRun& run = spans_[span_];
    const index_t stretch = at_ / run.width, offset = at_ - stretch * run.width;
    // Keys of one stretch, or one key of each of several.
    const bool single = run.width == 1;
    const index_t count = std::min(limit - block.count, single ? run.count - at_ : run.width - offset);
    const index_t low = run.first + stretch * run.step + offset, step = single ? run.step : 1;
    point(block, low, step, count);
    if (rows_.queries > 1 || rows_.potential != nullptr) {
      const auto begin = static_cast<std::size_t>(block.count);
      for (std::size_t j = 0; j < static_cast<std::size_t>(count); ++j) {
        block.position[begin + j] = low + static_cast<index_t>(j) * step;
        block.run[begin + j] = &run;
      }
    }
    block.cut = block.cut || !seen_by_all(run, low, low + (count - 1) * step);
    block.count += count;
    at_ += count;
    if (at_ == run.count * run.width) ++span_, at_ = 0;
  }
  if (block.count == 0) return;
  const index_t padded = ceil_div(block.count, KeyBlock::padding) * KeyBlock::padding + KeyBlock::ahead;
  for (auto n = static_cast<std::size_t>(block.count); n < static_cast<std::size_t>(padded); ++n) {
    block.k[n] = block.k[n - 1];
    block.v[n] = block.v[n - 1];
  }
}

}  // namespace attn::kernels
