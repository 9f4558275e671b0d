// How fast memory is gone through again and again, as a function of how much of it: from the first cache to DRAM. The roofs of
// work that is bound by bytes: decoding reads its cache once a step, a recurrent state is read and written in place.
#pragma once

#include <vector>

#include "attn/exec/arena.hpp"

namespace attn {

struct BandwidthCurve {
  std::vector<double> bytes;  // footprints of all threads together, ascending
  std::vector<double> gbs;    // never rises: what a larger footprint reached, a smaller one can reach

  // Between two footprints linear in the logarithm, beyond the ends as there. 0 without any.
  double at(double footprint) const;
};

// Rates of passes over footprints, as measured, turned into a curve that never rises.
BandwidthCurve bandwidth_curve(std::vector<double> bytes, std::vector<double> gbs);

// All threads of the arena at once, each its own share; about half a second each. Reads: sums, the fastest of three distances of
// fetching. Updates: bytes read plus bytes written.
BandwidthCurve measure_read_bandwidth(const Arena& arena);
BandwidthCurve measure_update_bandwidth(const Arena& arena);

// Rows of 256 bytes that lie anywhere in the footprint, which all threads share: what following the edges of a graph can reach. The fastest of
// three distances of fetching; half a second.
BandwidthCurve measure_gather_bandwidth(const Arena& arena);

}  // namespace attn
