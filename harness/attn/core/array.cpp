#include "attn/core/array.hpp"

namespace attn {

namespace {

// Row-major copies of the rows of an array whose last stride is 1, from axis `axis` on; `at`: of the first element. Returns where the
// copies end.
float* widen_rows(const Array& from, std::size_t axis, index_t at, float* to) {
  const index_t count = from.extent(axis);
  if (axis + 1 < from.rank()) {
    for (index_t i = 0; i < count; ++i) to = widen_rows(from, axis + 1, at + i * from.stride(axis), to);
    return to;
  }
  widen_row(from.dtype(), from.data() + bytes_of(from.dtype(), at), count, to);
  return to + count;
}

}  // namespace

Arrays tokens_of(const Arrays& sequence, index_t first, index_t count) {
  Arrays some = sequence;
  for (Array* array : {&some.q, &some.k, &some.v, &some.out}) {
    if (!array->empty()) *array = array->part(2, first, count);
  }
  for (const auto& [name, array] : sequence.more) some.more.set(name, array.part(2, first, count));
  return some;
}

AsFloats::AsFloats(const Arrays& stored) : arrays_(stored) {
  std::size_t next = 0;
  for (Array* array : {&arrays_.q, &arrays_.k, &arrays_.v}) {
    std::vector<float>& memory = memory_[next++];
    if (array->empty() || array->dtype() == DType::f32) continue;
    ATTN_ASSERT(array->rank() == 4 && array->stride(3) == 1);
    memory.resize(static_cast<std::size_t>(array->size()));
    widen_rows(*array, 0, 0, memory.data());
    *array = View<const float, 4>(memory.data(), {array->extent(0), array->extent(1), array->extent(2), array->extent(3)});
  }
}

}  // namespace attn
