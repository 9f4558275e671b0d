#include "attn/exec/workspace.hpp"

#include <algorithm>
#include <cstring>

#include "attn/exec/seating.hpp"

namespace attn {

namespace {
constexpr index_t line_pair = 128;  // adjacent-line prefetch couples two 64-byte lines
constexpr index_t gap_bytes = 128;
constexpr unsigned char gap_pattern = 0xA5;
}  // namespace

index_t WorkspacePlan::book(index_t& total, index_t count, std::size_t element_bytes) {
  ATTN_ASSERT(count >= 0);
  const index_t bytes = count * static_cast<index_t>(element_bytes);
  const index_t offset = total;
  ranges_.push_back({offset, bytes, &total == &worker_bytes_});
  total = (offset + bytes + gap_bytes + line_pair - 1) / line_pair * line_pair;
  return offset;
}

template <class F>
void Workspace::for_each_gap(F&& f) const {
  const auto gaps = [&](bool per_worker, index_t base, index_t total) {
    for (const auto& range : plan_.ranges_) {
      if (range.per_worker != per_worker) continue;
      index_t end = total;
      for (const auto& other : plan_.ranges_) {
        if (other.per_worker == per_worker && other.offset_bytes > range.offset_bytes) {
          end = std::min(end, other.offset_bytes);
        }
      }
      const index_t begin = range.offset_bytes + range.bytes;
      f(memory_.data() + base + begin, static_cast<std::size_t>(end - begin));
    }
  };
  gaps(false, 0, plan_.shared_bytes_);
  for (int w = 0; w < plan_.threads(); ++w) {
    gaps(true, plan_.shared_bytes_ + w * plan_.worker_bytes_, plan_.worker_bytes_);
  }
}

Workspace::Workspace(const WorkspacePlan& plan, Mode mode) : plan_(plan), memory_(static_cast<std::size_t>(plan.bytes())) {
  const auto shared_bytes = static_cast<std::size_t>(plan_.shared_bytes_);
  for (const auto& range : plan_.ranges_) {
    if (!range.per_worker) OnNodes::lay(memory_.data() + range.offset_bytes, static_cast<std::size_t>(range.bytes));
  }
  OnNodes::lay(memory_.data() + shared_bytes, memory_.bytes() - shared_bytes);
  if (mode == Mode::checked && memory_.bytes() > 0) {
    std::memset(memory_.data(), 0xFF, memory_.bytes());  // all ones is a NaN in every floating type
    for_each_gap([](std::byte* gap, std::size_t bytes) { std::memset(gap, gap_pattern, bytes); });
  }
  for (const auto& fill : plan_.fills_) fill(memory_.data());
}

bool Workspace::gaps_intact() const {
  bool intact = true;
  for_each_gap([&](const std::byte* gap, std::size_t bytes) {
    intact = intact && std::all_of(gap, gap + bytes, [](std::byte b) { return b == std::byte{gap_pattern}; });
  });
  return intact;
}

}  // namespace attn
