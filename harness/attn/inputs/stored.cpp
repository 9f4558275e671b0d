#include "attn/inputs/stored.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "attn/core/text.hpp"
#include "attn/exec/arena.hpp"
#include "attn/exec/seating.hpp"

namespace attn {

namespace {

struct Part {
  const char* name;
  View<float, 4> from;
  DType dtype;
  const char* flag;
  std::size_t at_bytes = 0;  // in the block

  std::size_t bytes() const { return static_cast<std::size_t>(bytes_of(dtype, from.size())); }
};

// Rounds the rows into memory; how many numbers were finite and are not any more.
index_t round_into(const Part& part, std::byte* memory) {
  std::atomic<index_t> lost = 0;
  const index_t width = part.from.extent(3), rows = part.from.size() / width;
  constexpr index_t rows_per_task = 256;
  parallel_tasks((rows + rows_per_task - 1) / rows_per_task, [&](index_t task, int) {
    std::vector<float> back(static_cast<std::size_t>(width));
    index_t lost_here = 0;
    for (index_t row = task * rows_per_task; row < std::min(rows, (task + 1) * rows_per_task); ++row) {
      const float* from = part.from.data_handle() + row * width;
      std::byte* to = memory + bytes_of(part.dtype, row * width);
      round_row(from, width, part.dtype, to);
      widen_row(part.dtype, to, width, back.data());
      for (index_t d = 0; d < width; ++d) lost_here += std::isfinite(from[d]) && !std::isfinite(back[static_cast<std::size_t>(d)]);
    }
    lost += lost_here;
  });
  return lost;
}

Refusal too_large(const Part& part, index_t lost) {
  return refuse(std::to_string(lost) + " of the " + std::to_string(part.from.size()) + " numbers of " + part.name +
                " are too large for " + std::string(to_string(part.dtype)) + ", whose largest is " +
                format_number(largest_of(part.dtype)) + "; accepted: " + part.flag + " bf16 or f32, or smaller numbers");
}

Array array_at(const Part& part, const Buffer& memory) { return {part.dtype, memory.data() + part.at_bytes, part.from.extents()}; }

}  // namespace

StoredTensors StoredTensors::copy() const {
  StoredTensors other{Buffer(memory.bytes()), {}, {}, {}};
  for (const Array* array : {&q, &k, &v})
    OnNodes::lay(other.memory.data() + (array->data() - memory.data()), static_cast<std::size_t>(array->bytes()));
  std::memcpy(other.memory.data(), memory.data(), memory.bytes());
  const auto there = [&](const Array& array) {
    return Array(array.dtype(), other.memory.data() + (array.data() - memory.data()), array.extents());
  };
  other.q = there(q), other.k = there(k), other.v = there(v);
  return other;
}

Result<StoredTensors> store(Tensors floats, const Problem& p) {
  std::array<Part, 3> parts = {Part{"Q", floats.q, p.dtype, "--dtype"}, Part{"K", floats.k, p.kv_dtype, "--kv-dtype"},
                               Part{"V", floats.v, p.kv_dtype, "--kv-dtype"}};
  if (p.dtype == DType::f32 && p.kv_dtype == DType::f32) {
    StoredTensors stored{std::move(floats.memory), floats.q, floats.k, floats.v};
    return stored;
  }
  for (const Part& part : parts) {
    if (part.from.extent(3) % block_of(part.dtype) != 0)
      return refuse("rows of " + std::string(part.name) + " have " + std::to_string(part.from.extent(3)) + " numbers; " +
                    std::string(to_string(part.dtype)) + " takes multiples of " + std::to_string(block_of(part.dtype)));
  }
  StoredTensors stored;
  std::size_t end = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    parts[i].at_bytes = staggered(end, i);
    end = parts[i].at_bytes + parts[i].bytes();
  }
  stored.memory = Buffer(end);
  for (const Part& part : parts) OnNodes::lay(stored.memory.data() + part.at_bytes, part.bytes());
  for (const Part& part : parts) {
    if (const index_t lost = round_into(part, stored.memory.data() + part.at_bytes); lost > 0) return too_large(part, lost);
  }
  stored.q = array_at(parts[0], stored.memory);
  stored.k = array_at(parts[1], stored.memory);
  stored.v = array_at(parts[2], stored.memory);
  return stored;
}

}  // namespace attn
