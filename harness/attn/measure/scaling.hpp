// What more threads give a run, foretold from the times of its tasks as one thread did them.
#pragma once

#include <string>

#include "attn/exec/recorder.hpp"

namespace attn {

// Work and span, as in Graham's and Brent's bounds: p threads take at least max(work / p, span), and greedy ones at most work / p + span.
struct Parallelism {
  double work_s = 0;     // of all tasks and of what lies between the regions
  double span_s = 0;     // of the longest task of each region, and what lies between
  double serial_s = 0;   // what lies between
  double largest_s = 0;  // task
  index_t tasks = 0, regions = 0;
  index_t fewest = 0;  // tasks of a region that has 2 % of the work or more; 0: there is none

  double ratio() const { return span_s > 0 ? work_s / span_s : 0; }
};
Parallelism parallelism_of(const Recording& recording);

// So many threads of a machine, as far as a run's time depends on them.
struct ThreadModel {
  int threads = 1;
  double start_s = 0;     // of a region: until all threads have begun, and again until all are through
  double slowdown = 1;    // of arithmetic: how much faster one thread computes alone than among so many
  double bytes = 0;       // that a run moves through the memory which the threads share
  double gbs_of_one = 0;  // at which one thread alone moves them; 0: memory binds nothing
  double gbs_of_all = 0;  // and all together
};

struct Foretold {
  double seconds = 0;
  // Its parts: were all of it spread evenly; and what of the rest is due to what.
  double even_s = 0, serial_s = 0, idle_s = 0, start_s = 0, memory_s = 0;
  std::string binds() const;  // the largest of the last four; "work" where they make up less than a tenth
};

// The tasks of each region go, in their order, to whichever thread is free first. A task lasts as recorded times the slowdown, or as long as its
// part of the bytes takes at its part of the bandwidth: the longer of the two.
Foretold foretell(const Recording& recording, const ThreadModel& model);

}  // namespace attn
