#include "attn/variant/planned.hpp"

#include <utility>

namespace attn {

void Planned::equip(ParameterSet<float> parameters, Workspace::Mode mode) {
  ATTN_ASSERT(!workspace_);
  parameters_ = std::move(parameters);
  grant(mode);
}

Buffer output_buffer(const Problem& p) {
  return Buffer(static_cast<std::size_t>(bytes_of(DType::f32, p.batch * p.heads * p.q_len * p.value_dim)));
}

View<float, 4> output_view(const Problem& p, const Buffer& memory) {
  return {memory.as<float>(), {p.batch, p.heads, p.q_len, p.value_dim}};
}

}  // namespace attn
