// What this machine can do at most: the denominators of every roof. Each probe runs on the calling thread and returns the
// work done; the caller holds the clock.
#pragma once

#include <cstdint>
#include <span>

#include "attn/core/problem.hpp"

namespace attn::kernels {

// Independent fused multiply-adds on registers, no loads. Returns floating-point operations.
double probe_fma(index_t iterations);

// exp of `buffer`, in place where it stays in [-1, 0]. Returns the number of exponentials.
double probe_exp(std::span<float> buffer, index_t repeats);

// Sum of `buffer`. Returns bytes read. Lines are fetched `ahead_bytes` before they are read, unless that is 0: which is faster
// depends on the machine and on where the buffer lies.
double probe_read(std::span<const float> buffer, index_t ahead_bytes = 0);

// Every number of `buffer` a little changed, in place. Returns bytes read plus bytes written.
double probe_update(std::span<float> buffer);

// Sum of the rows of `table` that `rows` names, each of gathered_floats. Returns bytes read, but those of the names. Rows are fetched
// `ahead` names before they are read, unless that is 0.
inline constexpr index_t gathered_floats = 64;  // a row of 256 bytes: a key of the usual width
double probe_gather(std::span<const float> table, std::span<const std::int32_t> rows, index_t ahead);

// a = b + 3 c. Returns bytes by STREAM's convention: two reads and one write an element.
double probe_triad(std::span<float> a, std::span<const float> b, std::span<const float> c);

}  // namespace attn::kernels
