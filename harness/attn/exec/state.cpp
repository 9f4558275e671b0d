#include "attn/exec/state.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace attn {

namespace {

// Of one sequence.
index_t elements_of(const StateSpec& spec, const StateTensor& tensor) {
  index_t count = 1;
  for (const index_t extent : tensor.extents) count *= extent;
  return spec.page_rows > 0 ? count / spec.rows() * (spec.pages() * spec.page_rows) : count;
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

// The first `count` rows of one head, whose tokens stand from position `first` on, into those that the layout has for them. Pages are
// the sequence's, `page_bytes` apart.
void append_rows(const StoredRows& from, index_t count, index_t first, const KeyLayout& layout, index_t page_bytes,
                 const StoredRows& to) {
  for (index_t t = 0; t < count; ++t) {
    const bool kept = layout.pages != nullptr || t >= count - layout.ring || layout.lasts(first + t);
    if (!kept) continue;
    const index_t page = layout.pages != nullptr ? layout.pages[(first + t) / layout.page_rows] : 0;
    std::memcpy(to.row(layout.row(first + t)) + page * page_bytes, from.row(t), static_cast<std::size_t>(to.row_bytes));
  }
}

}  // namespace

index_t StateSpec::bytes() const {
  index_t total = 0;
  for (const StateTensor& tensor : tensors) total += bytes_of(tensor.dtype, elements_of(*this, tensor));
  return total;
}

State::State(StateSpec spec, index_t batch, index_t start)
    : spec_(std::move(spec)), batch_(batch), start_(start), lengths_(static_cast<std::size_t>(batch)) {
  ATTN_ASSERT(spec_.page_rows == 0 || spec_.of_tokens);
  if (spec_.page_rows > 0) pages_ = PageTable::shuffled(batch_, spec_.pages());
  for (const StateTensor& tensor : spec_.tensors) {
    memory_.emplace_back(static_cast<std::size_t>(bytes_of(tensor.dtype, batch_ * elements_of(spec_, tensor))));
    arrays_.set(tensor.name, array_of(tensor, memory_.back()));
  }
  clear();
}

index_t State::page_stride(const StateTensor& tensor) const {
  return spec_.page_rows > 0 ? tensor.extents[0] * spec_.page_rows * tensor.extents[2] : 0;
}

Array State::array_of(const StateTensor& tensor, const Buffer& memory) const {
  std::vector<index_t> extents{batch_};
  extents.insert(extents.end(), tensor.extents.begin(), tensor.extents.end());
  if (spec_.page_rows == 0) return {tensor.dtype, memory.data(), extents};
  extents[2] = spec_.page_rows;
  const index_t width = extents[3], strides[] = {0, spec_.page_rows * width, width, 1};
  return {tensor.dtype, memory.data(), extents, strides};
}

// Of all rows, for every sequence.
KeyLayout State::layout() const {
  if (!pages_) return spec_.layout();
  const auto stride = [&](std::string_view name) {
    const auto tensor = std::ranges::find(spec_.tensors, name, &StateTensor::name);
    return tensor != spec_.tensors.end() ? page_stride(*tensor) : 0;
  };
  return pages_->layout(spec_.page_rows, stride("k"), stride("v"));
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
  return {memory.as<float>(), static_cast<std::size_t>(batch_ * elements_of(spec_, *at))};
}

void State::clear() {
  length_ = 0;
  std::ranges::fill(lengths_, 0);
  if (spec_.of_tokens) return;  // rows are read where tokens have come
  for (std::size_t i = 0; i < memory_.size(); ++i) {
    ATTN_ASSERT(spec_.tensors[i].dtype == DType::f32);
    std::fill_n(memory_[i].as<float>(), batch_ * elements_of(spec_, spec_.tensors[i]), spec_.tensors[i].at_first);
  }
}

void State::blank() {
  clear();
  for (const Buffer& memory : memory_)
    std::memset(memory.data(), 0xff, memory.bytes());  // NaN in every type, and as a block's scale
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
    KeyLayout own = layout();
    if (pages_) own.pages += batch * own.pages_stride;
    for (const StateTensor& tensor : spec_.tensors) {
      const Array &from = named(tokens, tensor.name), &to = (*this)[tensor.name];
      ATTN_ASSERT(from.dtype() == to.dtype() && from.stride(3) == 1);
      for (index_t h = 0; h < to.extent(1); ++h)
        append_rows({from, batch, h}, count, start_ + lengths_[b], own, bytes_of(tensor.dtype, page_stride(tensor)),
                    {to, batch, h});
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
  if (pages_ || length_ > spec_.rows() || spec_.block > 0) all.layout = layout();
  return all;
}

void State::adopt(const State& other) {
  ATTN_ASSERT(!pages_ && !other.pages_ && spec_.of_tokens && other.spec_.of_tokens && batch_ == other.batch_ && start_ == 0 &&
              other.start_ == 0);
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
