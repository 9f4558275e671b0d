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

const Array& named(const Arrays& tokens, std::string_view name) {
  return name == "k" ? tokens.k : name == "v" ? tokens.v : tokens.x();
}

// Rows of one head as they are stored, whatever their type.
struct StoredRows {
  std::byte* first;
  index_t stride_bytes, row_bytes;

  StoredRows(const Array& array, index_t batch, index_t head)
      : first(const_cast<std::byte*>(array.data()) + bytes_of(array.dtype(), batch * array.stride(0) + head * array.stride(1))),
        stride_bytes(bytes_of(array.dtype(), array.stride(2))),
        row_bytes(bytes_of(array.dtype(), array.extent(3))) {}
  std::byte* row(index_t i) const { return first + i * stride_bytes; }
};

void copy_row(const StoredRows& from, index_t i, const StoredRows& to, index_t j) {
  std::memcpy(to.row(j), from.row(i), static_cast<std::size_t>(to.row_bytes));
}

// The first `count` rows of one head, whose tokens stand from position `first` on, into those that the layout has for them.
void append_rows(const StoredRows& from, index_t count, index_t first, const KeyLayout& layout, const StoredRows& to) {
  for (index_t t = 0; t < count; ++t) {
    if (t < count - layout.ring && !layout.lasts(first + t)) continue;
    copy_row(from, t, to, layout.row(first + t));
  }
}

}  // namespace

index_t StateSpec::bytes() const {
  index_t total = 0;
  for (const StateTensor& tensor : tensors) total += bytes_of(tensor.dtype, elements_of(tensor));
  return total;
}

State::State(StateSpec spec, index_t batch, index_t start)
    : spec_(std::move(spec)), batch_(batch), start_(start), lengths_(static_cast<std::size_t>(batch)) {
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
  other.lengths_ = lengths_;
  return other;
}

std::span<float> State::elements(std::string_view name) const {
  const auto at = std::ranges::find(spec_.tensors, name, &StateTensor::name);
  ATTN_ASSERT(at != spec_.tensors.end() && at->dtype == DType::f32);
  const Buffer& memory = memory_[static_cast<std::size_t>(at - spec_.tensors.begin())];
  return {memory.as<float>(), static_cast<std::size_t>(batch_ * elements_of(*at))};
}

void State::clear() {
  length_ = 0;
  std::ranges::fill(lengths_, 0);
  if (spec_.of_tokens) return;  // rows are read where tokens have come
  for (std::size_t i = 0; i < memory_.size(); ++i) {
    ATTN_ASSERT(spec_.tensors[i].dtype == DType::f32);
    std::fill_n(memory_[i].as<float>(), batch_ * elements_of(spec_.tensors[i]), spec_.tensors[i].at_first);
  }
}

void State::advance(index_t tokens) {
  for (index_t& length : lengths_) length += tokens;
  length_ += tokens;
}

void State::rewind(index_t tokens) {
  for (index_t& length : lengths_) {
    ATTN_ASSERT(tokens >= 0 && tokens <= length);
    length -= tokens;
  }
  length_ -= tokens;
}

void State::append(const Arrays& tokens) {
  ATTN_ASSERT(spec_.of_tokens);
  ATTN_ASSERT(tokens.lengths.empty() || tokens.lengths.size() == lengths_.size());
  const index_t most = tokens_in(tokens);
  for (std::size_t b = 0; b < lengths_.size(); ++b) {
    const auto batch = static_cast<index_t>(b);
    const index_t count = tokens.lengths.empty() ? most : tokens.lengths[b];
    for (const StateTensor& tensor : spec_.tensors) {
      const Array &from = named(tokens, tensor.name), &to = (*this)[tensor.name];
      ATTN_ASSERT(from.dtype() == to.dtype() && from.stride(3) == 1);
      for (index_t h = 0; h < to.extent(1); ++h)
        append_rows({from, batch, h}, count, start_ + lengths_[b], spec_.layout(), {to, batch, h});
    }
    lengths_[b] += count;
  }
  length_ = *std::ranges::max_element(lengths_);
}

Arrays State::asked_by(const Arrays& queries) const {
  ATTN_ASSERT(spec_.of_tokens && start_ == 0);
  Arrays all = queries;
  if (const Array* k = find("k")) all.k = *k;
  if (const Array* v = find("v")) all.v = *v;
  all.lengths = lengths_;
  // Until they are overwritten, rows are tokens.
  if (length_ > spec_.rows() || spec_.block > 0) all.layout = spec_.layout();
  return all;
}

void State::adopt(const State& other) {
  ATTN_ASSERT(spec_.of_tokens && other.spec_.of_tokens && batch_ == other.batch_ && start_ == 0 && other.start_ == 0);
  length_ = other.length_;
  lengths_ = other.lengths_;
  const KeyLayout theirs = other.spec_.layout(), ours = spec_.layout();
  const auto keeps = [](const KeyLayout& l, index_t position, index_t length) {
    return l.lasts(position) || position >= length - l.ring;
  };
  for (const StateTensor& tensor : spec_.tensors) {
    const Array &from = other[tensor.name], &to = (*this)[tensor.name];
    for (index_t b = 0; b < batch_; ++b) {
      const index_t length = lengths_[static_cast<std::size_t>(b)];
      for (index_t p = 0; p < length; ++p) {
        if (!keeps(theirs, p, length) || !keeps(ours, p, length)) continue;
        for (index_t h = 0; h < to.extent(1); ++h) copy_row({from, b, h}, theirs.row(p), {to, b, h}, ours.row(p));
      }
    }
  }
}

}  // namespace attn
