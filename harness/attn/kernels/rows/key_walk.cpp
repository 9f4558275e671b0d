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

  // Keys first, first + step, ... of `run`, those in [low, high].
  void add(const KeyRun& run, index_t first, index_t step, index_t count, index_t low, index_t high) {
    const index_t skip = first < low ? ceil_div(low - first, step) : 0;
    const index_t end = first > high ? 0 : std::min(count, (high - first) / step + 1);
    if (skip >= end) return;
    if (run.keep == nullptr) return append(run, first + skip * step, step, end - skip);
    for (index_t e = skip; e < end; ++e) {
      const index_t key = first + e * step;
      for (index_t query = 0; query < rows_.queries; ++query) {
        if (!sees(run, rows_, query, key)) continue;
        append(run, key, 1, 1);
        break;
      }
    }
  }

 private:
  void append(const KeyRun& run, index_t first, index_t step, index_t count) {
    if (size_ > 0 && source_ == &run && step == 1) {
      KeyRun& last = to_[size_ - 1];
      if (last.step == 1 && last.first + last.count == first) {
        last.count += count;
        return;
      }
    }
    ATTN_ASSERT(size_ < to_.size());
    KeyRun& span = to_[size_++];
    source_ = &run;
    span = run;
    span.first = first, span.step = step, span.count = count, span.width = 1, span.index = nullptr;
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
      spans.add(run, first, step, count, low, std::min(high, below));
      spans.add(run, first, step, count, std::max(low, above), high);
    };
    if (run.index == nullptr && run.width == 1 && run.step > 0) {
      add(run.first, run.step, run.count);
      continue;
    }
    for (index_t e = 0; e < run.count; ++e) {
      add(run.first + run.step * (run.index != nullptr ? run.index[e] : e), 1, run.width);
    }
  }
  return spans.size();
}

index_t count_keys(std::span<const KeyRun> spans) {
  index_t keys = 0;
  for (const KeyRun& span : spans) keys += span.count;
  return keys;
}

KeyWalk::KeyWalk(std::span<const KeyRun> spans, const KeyRows& keys, const GroupRows& rows, index_t from)
    : spans_(spans), keys_(keys), rows_(rows), at_(from) {
  while (span_ < spans_.size() && at_ >= spans_[span_].count) at_ -= spans_[span_++].count;
}

bool KeyWalk::seen_by_all(const KeyRun& run, index_t low, index_t high) const {
  return run.keep == nullptr && !excludes(run) && high <= rows_.lowest() + right_limit(run, rows_.causal) &&
         low >= rows_.highest() - run.left;
}

void KeyWalk::point(KeyBlock& block, index_t position, index_t step, index_t count) const {
  auto n = static_cast<std::size_t>(block.count);
  while (count > 0) {
    // As many as lie evenly.
    const std::byte *k = keys_.k, *v = keys_.v;
    index_t row = position, here = count;
    if (keys_.pages != nullptr) {
      const std::int32_t page = keys_.pages[position / keys_.page_rows];
      row = position % keys_.page_rows;
      here = std::min(count, ceil_div(keys_.page_rows - row, step));
      k += page * keys_.k_page_stride, v += page * keys_.v_page_stride;
    } else if (keys_.ring > 0) {
      row = position % keys_.ring;
      here = std::min(count, ceil_div(keys_.ring - row, step));
    }
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
    const index_t count = std::min(limit - block.count, run.count - at_);
    const index_t low = run.first + at_ * run.step;
    point(block, low, run.step, count);
    if (rows_.queries > 1) {
      const auto begin = static_cast<std::size_t>(block.count);
      for (std::size_t j = 0; j < static_cast<std::size_t>(count); ++j) {
        block.position[begin + j] = low + static_cast<index_t>(j) * run.step;
        block.run[begin + j] = &run;
      }
    }
    block.cut = block.cut || !seen_by_all(run, low, low + (count - 1) * run.step);
    block.count += count;
    at_ += count;
    if (at_ == run.count) ++span_, at_ = 0;
  }
  if (block.count == 0) return;
  for (auto n = static_cast<std::size_t>(block.count); n % KeyBlock::padding != 0; ++n) {
    block.k[n] = block.k[n - 1];
    block.v[n] = block.v[n - 1];
  }
}

}  // namespace attn::kernels
