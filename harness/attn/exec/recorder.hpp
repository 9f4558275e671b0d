// What the parallel regions of a run are made of: the time of every task, and what lies between the regions.
#pragma once

#include <vector>

#include "attn/core/problem.hpp"
#include "attn/exec/arena.hpp"

namespace attn {

struct RecordedRegion {
  double begin_s = 0, end_s = 0;  // since the recorder's begin
  std::vector<double> tasks_s;    // by number
};

struct Recording {
  std::vector<RecordedRegion> regions;
  double end_s = 0;

  double serial_s() const;  // outside of regions
};

// Records the parallel_tasks that its thread calls while it lives. Without one, that costs them a look at a pointer for each region.
class Recorder {
 public:
  enum class Clock { wall, processor };  // processor: the time that a thread had, whoever else wanted it

  Recorder();
  // A rehearsal: arena_threads() is `threads`, and all tasks run on this thread one after the other, in their order, as worker 0. What was
  // planned for so many threads does the same work in the same tasks, and none waits for another's memory.
  explicit Recorder(int threads, Clock clock = Clock::wall);
  ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  // What there was since this recorder, or the last take(), began.
  Recording take();

 private:
  friend void parallel_tasks(index_t count, FunctionRef<void(index_t task, int worker)> body);
  void record(index_t count, FunctionRef<void(index_t task, int worker)> body);
  double now_s() const;

  int threads_;
  Clock clock_;
  double begin_s_;
  Recording recording_;
  Recorder* recorder_before_;
  int rehearsed_before_;
};

}  // namespace attn
