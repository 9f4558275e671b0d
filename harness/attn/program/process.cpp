#include "attn/program/process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>
#include <set>

#include "attn/core/sanitizer.hpp"
#include "attn/core/time.hpp"

namespace attn {

namespace {

constexpr std::size_t keep_of_stderr = 4096;
#if defined(ATTN_ANY_SANITIZER)
constexpr bool sanitized = true;  // its shadow memory is larger than any limit
#else
constexpr bool sanitized = false;
#endif
constexpr int poll_ms = 50;  // the end of a worker closes its pipes and wakes us at once; this bounds the rest

struct Pipe {
  int read_end = -1, write_end = -1;
  Pipe() {
    std::array<int, 2> ends{};
    ATTN_ASSERT(::pipe2(ends.data(), O_CLOEXEC) == 0);
    read_end = ends[0];
    write_end = ends[1];
  }
  ~Pipe() {
    close_end(read_end);
    close_end(write_end);
  }
  static void close_end(int& fd) {
    if (fd >= 0) ::close(fd);
    fd = -1;
  }
};

// So that no pipe of this process gets the number that the worker's answer will have.
void reserve_answer_fd() {
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  while (::fcntl(answer_fd, F_GETFD) == -1) {
    if (::open("/dev/null", O_RDONLY | O_CLOEXEC) == -1) return;
  }
}

// Appends what can be read now; false at the end of the stream.
bool drain(int fd, std::string& text) {
  std::array<char, 65536> chunk;
  for (;;) {
    const ssize_t n = ::read(fd, chunk.data(), chunk.size());
    if (n > 0) {
      text.append(chunk.data(), static_cast<std::size_t>(n));
    } else if (n == 0 || errno != EINTR) {
      return n != 0;
    }
  }
}

void write_all(int fd, const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno != EINTR) return;  // the worker is gone; its end says why
    if (n > 0) done += static_cast<std::size_t>(n);
  }
}

std::string last_line(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

// Takes the whole lines that `on_line` wants out of the text, from `seen` on.
void offer_lines(std::string& text, std::size_t& seen, const std::function<bool(std::string_view)>& on_line) {
  for (std::size_t end; (end = text.find('\n', seen)) != std::string::npos;) {
    if (on_line(std::string_view(text).substr(seen, end - seen))) {
      text.erase(seen, end + 1 - seen);
    } else {
      seen = end + 1;
    }
  }
}

bool adopting = false;
std::set<pid_t> children_before;  // of this program's start: a shell that became it may have had some

std::vector<pid_t> children() {
  std::ifstream list("/proc/self/task/" + std::to_string(::getpid()) + "/children");
  return {std::istream_iterator<pid_t>(list), {}};
}

// Until there is none: the children of one that is ended come next.
void end_orphans() {
  for (bool any = true; any;) {
    any = false;
    for (const pid_t child : children()) {
      if (children_before.contains(child)) continue;
      any = true;
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
    }
  }
}

// How long an answer has not grown, as far as this process ran meanwhile.
class Silence {
 public:
  explicit Silence(const std::function<double(std::string_view)>& patience) : patience_(patience) {}

  bool too_long(const std::string& answer) {
    if (!patience_) return false;
    const double now_s = monotonic_s();
    if (last_s_ == 0 || answer.size() != size_) {
      size_ = answer.size();
      allowed_s_ = patience_(answer);
      silent_s_ = 0;
    } else {
      silent_s_ += std::min(now_s - last_s_, 10e-3 * poll_ms);
    }
    last_s_ = now_s;
    return silent_s_ > allowed_s_;
  }
  double allowed_s() const { return allowed_s_; }

 private:
  const std::function<double(std::string_view)>& patience_;
  std::size_t size_ = 0;
  double last_s_ = 0, silent_s_ = 0, allowed_s_ = 0;
};

// Who answers: this program again on answer_fd, or another one on its standard output.
enum class Answers { self, launcher };

[[noreturn]] void become_worker(const std::vector<std::string>& arguments, Answers who, const Pipe& question, const Pipe& answer,
                                const Pipe& words, index_t memory_limit_bytes) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::dup2(question.read_end, STDIN_FILENO);
  ::dup2(words.write_end, STDERR_FILENO);
  ::dup2(who == Answers::self ? words.write_end : answer.write_end, STDOUT_FILENO);
  if (who == Answers::self) ::dup2(answer.write_end, answer_fd);  // dup2 clears close-on-exec
  if (memory_limit_bytes > 0 && !sanitized) {
    const rlimit limit{static_cast<rlim_t>(memory_limit_bytes), static_cast<rlim_t>(memory_limit_bytes)};
    ::setrlimit(RLIMIT_DATA, &limit);  // private writable memory, since Linux 4.7
  }
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  std::vector<char*> argv;
  std::string self = "/proc/self/exe";
  if (who == Answers::self) argv.push_back(self.data());
  std::vector<std::string> copies = arguments;
  for (auto& argument : copies) argv.push_back(argument.data());
  argv.push_back(nullptr);
  if (who == Answers::launcher) {
    ::execvp(argv.front(), argv.data());
    write_all(STDERR_FILENO, std::string(argv.front()) + " cannot be started: " + std::strerror(errno) + "\n");
    ::_exit(127);
  }
  ::execv(self.c_str(), argv.data());
  // Without /proc the name that this program was started by, unless that was a bare one found in PATH.
  const std::string why = std::strerror(errno);
  const auto* started_as = reinterpret_cast<const char*>(::getauxval(AT_EXECFN));
  if (started_as != nullptr) ::execv(started_as, argv.data());
  const std::string last = "a worker cannot be started: /proc/self/exe: " + why + "\n";
  write_all(STDERR_FILENO, last);
  ::_exit(127);
}

ProcessEnd run(Answers who, const std::vector<std::string>& arguments, const std::string& question_text, double timeout_s,
               index_t memory_limit_bytes, const std::atomic<bool>* stop, const std::function<bool(std::string_view)>& on_line,
               const std::function<double(std::string_view)>& patience) {
  reserve_answer_fd();
  Pipe question, answer, words;
  ::fcntl(answer.read_end, F_SETFL, O_NONBLOCK);
  ::fcntl(words.read_end, F_SETFL, O_NONBLOCK);
  const pid_t child = ::fork();
  ATTN_ASSERT(child >= 0);
  if (child == 0) become_worker(arguments, who, question, answer, words, memory_limit_bytes);
  ::setpgid(child, child);
  Pipe::close_end(question.read_end);
  Pipe::close_end(answer.write_end);
  Pipe::close_end(words.write_end);
  write_all(question.write_end, question_text);
  Pipe::close_end(question.write_end);

  ProcessEnd end;
  std::string stderr_tail;
  std::size_t seen = 0;  // of the tail, by on_line
  const double deadline_s = monotonic_s() + timeout_s;
  Silence silence(patience);
  bool killed = false;
  int status = 0;
  bool gone = false;
  while (!gone) {
    gone = ::waitpid(child, &status, WNOHANG) == child;
    std::array<pollfd, 2> fds = {pollfd{answer.read_end, POLLIN, 0}, pollfd{words.read_end, POLLIN, 0}};
    ::poll(fds.data(), fds.size(), gone ? 0 : poll_ms);
    if (fds[0].revents != 0 && !drain(answer.read_end, end.answer)) Pipe::close_end(answer.read_end);
    if (fds[1].revents != 0 && !drain(words.read_end, stderr_tail)) Pipe::close_end(words.read_end);
    if (on_line) offer_lines(stderr_tail, seen, on_line);
    if (stderr_tail.size() > keep_of_stderr) {
      const std::size_t excess = stderr_tail.size() - keep_of_stderr;
      stderr_tail.erase(0, excess);
      seen -= std::min(seen, excess);
    }
    const bool interrupted = stop != nullptr && stop->load(), silent = silence.too_long(end.answer);
    if (!gone && !killed && (interrupted || silent || monotonic_s() > deadline_s)) {
      end.how = interrupted ? ProcessEnd::How::stopped : ProcessEnd::How::timed_out;
      end.silent_s = silent ? silence.allowed_s() : 0;
      killed = true;
      ::kill(-child, SIGKILL);
    }
  }
  ::kill(-child, SIGKILL);  // whatever it left behind in its group
  if (adopting) end_orphans();
  end.last_words = last_line(stderr_tail);
  if (killed) return end;
  if (WIFSIGNALED(status)) {
    end.how = ProcessEnd::How::signalled;
    end.code = WTERMSIG(status);
  } else {
    end.how = end.answer.empty() ? ProcessEnd::How::silent : ProcessEnd::How::answered;
    end.code = WEXITSTATUS(status);
  }
  return end;
}

}  // namespace

void adopt_orphans() {
  const std::vector<pid_t> before = children();
  children_before = {before.begin(), before.end()};
  adopting = ::prctl(PR_SET_CHILD_SUBREAPER, 1) == 0;
}

ProcessEnd run_worker(const std::vector<std::string>& arguments, const std::string& question_text, double timeout_s,
                      index_t memory_limit_bytes, const std::atomic<bool>* stop,
                      const std::function<bool(std::string_view)>& on_line,
                      const std::function<double(std::string_view)>& patience) {
  return run(Answers::self, arguments, question_text, timeout_s, memory_limit_bytes, stop, on_line, patience);
}

ProcessEnd run_launcher(const std::vector<std::string>& command, const std::string& question_text, double timeout_s,
                        index_t memory_limit_bytes, const std::atomic<bool>* stop,
                        const std::function<bool(std::string_view)>& on_line) {
  return run(Answers::launcher, command, question_text, timeout_s, memory_limit_bytes, stop, on_line, {});
}

}  // namespace attn
