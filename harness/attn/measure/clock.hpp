// The clock: Google Benchmark, driven in-process.
#pragma once

#include <type_traits>
#include <vector>

#include "attn/exec/arena.hpp"
#include "attn/variant/remote.hpp"

namespace attn {

// What is clocked: a call, by this process; or the runs of a guest, by its own clock.
struct Clocked {
  template <class F>
  requires std::is_invocable_v<F&> Clocked(F&& f, Remote* of_guest = nullptr) : call(f), guest(of_guest) {}
  FunctionRef<void()> call;
  Remote* guest;
};

// Seconds a call, one entry a sample; a sample repeats the call until it lasts `sample_min_s`.
std::vector<double> clock_samples(Clocked what, int samples, double sample_min_s);

// Seconds a call of each, sample beside sample in the order a b b a a b ...: what drifts meets both alike. Each repeats as
// often in every sample, so that its first lasts `sample_min_s`.
struct PairedSamples {
  std::vector<double> a_s, b_s;
};
PairedSamples clock_pairs(Clocked a, Clocked b, int samples, double sample_min_s);

}  // namespace attn
