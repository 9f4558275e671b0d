// Worker processes: this executable again, so that a crash, a hang or a memory-eater ends one row and not the sweep.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"

namespace attn {

struct ProcessEnd {
  enum class How { answered, silent, signalled, timed_out, stopped } how = How::silent;
  std::string answer;      // what the worker wrote to its answer pipe
  int code = 0;            // exit code (silent) or signal (signalled)
  double silent_s = 0;     // timed out by its silence, after so long; 0: by timeout_s, or not at all
  std::string last_words;  // last line it wrote to stderr
};

// Runs /proc/self/exe with `arguments`, `question` on its standard input. Its standard output goes to its stderr, which is
// kept apart; what it writes to file descriptor answer_fd comes back. After `timeout_s`, or when *stop becomes true, the
// worker's whole process group is killed. A worker dies with its parent. Whole lines of its stderr go to `on_line` as they come;
// those for which it returns true (progress, say) are not kept as last words. `patience`, where given, is told of the answer so far at
// the beginning and whenever it has grown: the worker is killed, too, where the answer does not grow for as many seconds as it says;
// time in which this process stood still does not count. May be called from several threads at once.
inline constexpr int answer_fd = 3;
ProcessEnd run_worker(const std::vector<std::string>& arguments, const std::string& question, double timeout_s,
                      index_t memory_limit_bytes, const std::atomic<bool>* stop,
                      const std::function<bool(std::string_view line)>& on_line = {},
                      const std::function<double(std::string_view answer)>& patience = {});

// The same by another program, found in PATH, such as mpirun with this one's ranks behind: its standard output is the answer.
ProcessEnd run_launcher(const std::vector<std::string>& command, const std::string& question, double timeout_s,
                        index_t memory_limit_bytes, const std::atomic<bool>* stop,
                        const std::function<bool(std::string_view line)>& on_line = {});

// From here on what a worker's processes leave behind, those too that left its process group, becomes a child of this process, and
// run_worker ends it: then one worker runs at a time, and no other children.
void adopt_orphans();

}  // namespace attn
