// What the floor must know of the thread that runs; not for others.
#pragma once

namespace attn {

class OnNodes;
class Recorder;
class Seating;

struct Here {
  bool inside = false;              // within Arena::execute
  int rehearsed = 0;                // threads that a rehearsal plays; 0: none
  Recorder* recorder = nullptr;     // of parallel_tasks
  const OnNodes* memory = nullptr;  // where Buffers lie
  const Seating* tasks = nullptr;   // several nodes, whose workers take their own tasks first
};

extern constinit thread_local Here here;

}  // namespace attn
