// A guest's process, as who asks it sees it: a line in, a line out.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "attn/core/problem.hpp"

namespace attn {

// What a guest may use: so many threads, by the usual variables, and these processors, by its affinity mask.
struct GuestPlace {
  int threads = 1;
  std::vector<int> processors = {};  // empty: all that this process began with
  bool operator==(const GuestPlace&) const = default;
};

// The folder of the guests that come with attnbench: ATTN_GUEST_FOLDER, beside the program, or in the source tree.
std::string guest_folder();

class GuestProcess {
 public:
  // Runs `command` with a shell. It dies with this process.
  GuestProcess(const std::string& command, const GuestPlace& place);
  GuestProcess(const GuestProcess&) = delete;
  GuestProcess& operator=(const GuestProcess&) = delete;
  ~GuestProcess();  // kills it

  // The line that comes back. Throws RemoteError when there is none, when it is longer than 64 KiB or, with a limit, when it takes longer:
  // the process is of no use then. `what` is what sentences call the question.
  std::string ask(const std::string& question, const std::string& what, double timeout_s = 0);

  // Of the process that answers, which shells may stand before; known after find_answering().
  pid_t id() const { return answering_; }
  void find_answering();
  double processor_s() const;  // that all its threads have used; 0 where the system does not tell
  double waited_s() const;     // that its first thread and this one have waited for a processor, likewise
  const GuestPlace& place() const { return place_; }
  std::string last_words() const;  // the last line that it wrote to its stderr

 private:
  [[noreturn]] void fail(const std::string& sentence) const;
  bool read_some(double wait_s);
  std::string end_of_process();

  GuestPlace place_;
  pid_t id_ = -1, answering_ = -1;
  int questions_ = -1, answers_ = -1, words_ = -1;
  std::string answer_, stderr_tail_;
};

}  // namespace attn
