#include "attn/exec/state.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace attn {

namespace {

index_t elements_of(const StateTensor& tensor) {
  index_t count = 1;
  for (const index_t extent : tensor.extents) count *= extent;
  return count;
}

const Array& named(const Arrays& tokens, std::string_view name) { return name == "k" ? tokens.k : name == "v" ? tokens.v : tokens.x(); }

// Rows of one head into theirs, of which the last `rows` remain.
void append_rows(const View<const float, 2>& from, index_t first, const View<float, 2>& to) {
  const index_t count = from.extent(0), rows = to.extent(0);
  for (index_t t = std::max<index_t>(0, count - rows); t < count; ++t)
    std::memcpy(to.row((first + t) % rows), from.row(t), static_cast<std::size_t>(from.extent(1)) * sizeof(float));
}

}  // namespace

index_t StateSpec::bytes() const {
  index_t total = 0;
  for (const StateTensor& tensor : tensors) total += bytes_of(tensor.dtype, elements_of(tensor));
  return total;
}

State::State(StateSpec spec, index_t batch, index_t start) : spec_(std::move(spec)), batch_(batch), start_(start) {
  for (const StateTensor& tensor : spec_.tensors) {
    std::vector<index_t> extents{batch_};
    extents.insert(extents.end(), tensor.extents.begin(), tensor.extents.end());
    memory_.emplace_back(static_cast<std::size_t>(bytes_of(tensor.dtype, batch_ * elements_of(tensor))));
    arrays_.set(tensor.name, Array(tensor.dtype, memory_.back().data(), extents));
  }
  clear();
}

State State::copy() const {
  State other(spec_, batch_, start_);
  for (std::size_t i = 0; i < memory_.size(); ++i) std::memcpy(other.memory_[i].data(), memory_[i].data(), memory_[i].bytes());
  other.length_ = length_;
  return other;
}

void State::clear() {
  length_ = 0;
  if (spec_.of_tokens) return;  // rows are read where tokens have come
  for (std::size_t i = 0; i < memory_.size(); ++i)
    std::fill_n(memory_[i].as<float>(), batch_ * elements_of(spec_.tensors[i]), spec_.tensors[i].at_first);
}

void State::append(const Arrays& tokens) {
  ATTN_ASSERT(spec_.of_tokens);
  index_t count = 0;
  for (const StateTensor& tensor : spec_.tensors) {
    const auto from = named(tokens, tensor.name).f32();
    const auto to = (*this)[tensor.name].f32_out();
    count = from.extent(2);
    for (index_t b = 0; b < batch_; ++b)
      for (index_t h = 0; h < to.extent(1); ++h) append_rows(from[b][h], end(), to[b][h]);
  }
  advance(count);
}

}  // namespace attn
