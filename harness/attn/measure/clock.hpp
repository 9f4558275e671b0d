// The clock: Google Benchmark, driven in-process.
#pragma once

#include <vector>

#include "attn/exec/arena.hpp"

namespace attn {

// Seconds a call, one entry a sample; a sample repeats the call until it lasts `sample_min_s`.
std::vector<double> clock_samples(FunctionRef<void()> call, int samples, double sample_min_s);

// Seconds a call of each, sample beside sample in the order a b b a a b ...: what drifts meets both alike. Each repeats as
// often in every sample, so that its first lasts `sample_min_s`.
struct PairedSamples {
  std::vector<double> a_s, b_s;
};
PairedSamples clock_pairs(FunctionRef<void()> a, FunctionRef<void()> b, int samples, double sample_min_s);

}  // namespace attn
