// What the files of attn_micro share.
#pragma once

#include <cstdint>

#include "attn/core/rng.hpp"
#include "attn/core/time.hpp"
#include "attn/exec/buffer.hpp"

namespace attn {

// Seconds: of this thread's CPU where one works, of the wall where several do.
inline double now_s(int threads) { return threads > 1 ? monotonic_s() : thread_cpu_s(); }

// As the harness holds its tensors: pages of 2 MiB where the system grants them (8 % on strided windows at N = 8192).
struct Floats {
  explicit Floats(index_t count) : memory(static_cast<std::size_t>(count) * sizeof(float)) {}
  float* data() const { return memory.as<float>(); }
  Buffer memory;
};

inline Floats normals(index_t count, std::uint64_t stream) {
  Floats values(count);
  Rng(1, stream).normals({values.data(), static_cast<std::size_t>(count)});
  return values;
}

void register_decode_cases();   // micro_decode.cpp
void register_graph_cases();    // micro_graph.cpp
void register_step_cases();     // micro_step.cpp
void register_storage_cases();  // micro_storage.cpp

}  // namespace attn
