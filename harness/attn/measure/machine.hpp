// What this machine reaches at most, measured at the start of a sweep: the denominators of the roof.
#pragma once

#include <string>
#include <vector>

#include "attn/exec/arena.hpp"
#include "attn/kernels/machine/compute.hpp"
#include "attn/measure/bandwidth.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// The largest of several repeats for each figure; all threads of the arena at once.
struct Peak {
  std::string isa;
  int threads = 1;
  double fma_gflops = 0;
  double exp_gexps = 0;
  double triad_gbs = 0;          // a = b + 3c, larger than the caches, STREAM's bytes
  double fma_gflops_median = 0;  // far below fma_gflops: the machine was busy
  double bf16_dot_gflops = 0;    // sums of bf16 products; 0: none with this instruction set
  BandwidthCurve read;           // by working set, up to DRAM
  BandwidthCurve update;         // in place, bytes read plus bytes written, by the bytes that are both
};

// Measures with the kernels' active instruction set. About half a second a call, `bandwidth` two more.
Peak measure_peak(const Arena& arena, bool bandwidth);

// FMA rate over about 10 ms: shows the clock beside a cell's samples.
double quick_fma_gflops(const Arena& arena);

// Of the products of this kind; 0: not measured.
double peak_gflops(const Peak& peak, kernels::Compute compute);

std::string to_json(const Peak& peak);
Peak peak_from_json(const std::string& text);

// How the work of a run is done: with which products, and how its bytes are moved.
struct Manner {
  double in_place = 0;  // so many of them are a state that is read and written, each byte of it counted twice; the others are read
  bool cold = false;    // from memory, rather than from the cache that all of them fit
  kernels::Compute compute = kernels::Compute::f32;
};

// The least time that the useful work can take, and what binds.
struct Roof {
  double seconds = 0;
  std::string binds;  // "flops", "bytes" or "exps"
};
Roof roof(const Cost& cost, const Peak& peak, Manner manner = {});

}  // namespace attn
