// What this machine reaches at most, measured at the start of a sweep: the denominators of the roof.
#pragma once

#include <string>
#include <vector>

#include "attn/exec/arena.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// The largest of seven repeats for each figure; all threads of the arena at once.
struct Peak {
  std::string isa;
  int threads = 1;
  double fma_gflops = 0;
  double exp_gexps = 0;
  double read_gbs = 0;                 // sum over an array larger than the caches: DRAM's
  double triad_gbs = 0;                // a = b + 3c, larger than the caches, STREAM's bytes
  double fma_gflops_median = 0;        // far below fma_gflops: the machine was busy
  std::vector<double> read_bytes;      // working sets, ascending, the last one as for read_gbs
  std::vector<double> read_bytes_gbs;  // read rate for each: caches are faster than DRAM

  // Read rate for a working set of this size: a problem that fits a cache is held to the cache's speed.
  double read_gbs_for(double bytes) const;
};

// Measures with the kernels' active instruction set. About half a second a call, `bandwidth` another.
Peak measure_peak(const Arena& arena, bool bandwidth);

// FMA rate over about 10 ms: shows the clock beside a cell's samples.
double quick_fma_gflops(const Arena& arena);

std::string to_json(const Peak& peak);
Peak peak_from_json(const std::string& text);

// The least time that the useful work can take, and what binds.
struct Roof {
  double seconds = 0;
  std::string binds;  // "flops", "bytes" or "exps"
};
Roof roof(const Cost& cost, const Peak& peak);

}  // namespace attn
