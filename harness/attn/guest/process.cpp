#include "attn/guest/process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>

#include "attn/core/time.hpp"
#include "attn/exec/limits.hpp"
#include "attn/variant/remote.hpp"

extern char** environ;

namespace attn {

namespace {

constexpr std::size_t most_answer_bytes = 64 << 10, keep_of_stderr = 4096;
constexpr rlim_t most_file_bytes = rlim_t{2} << 30;  // an output of 2^29 floats: what fills memory is stopped before it does

std::array<int, 2> pipe_ends() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0)
    throw RemoteError(RemoteError::Kind::failed, std::string("a guest cannot be started: ") + std::strerror(errno));
  return ends;
}

std::vector<std::string> environment_of(const GuestPlace& place) {
  std::vector<std::string> variables;
  const std::string threads = std::to_string(place.threads), folder = guest_folder();
  for (const char* name : {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
                           "ATTN_GUEST_THREADS"})
    variables.push_back(std::string(name) + "=" + threads);
  variables.push_back("ATTN_GUEST_FOLDER=" + folder);
  const char* python_path = std::getenv("PYTHONPATH");
  variables.push_back("PYTHONPATH=" + folder + (python_path != nullptr ? std::string(":") + python_path : ""));
  const std::size_t ours = variables.size();
  for (char** inherited = environ; *inherited != nullptr; ++inherited) {
    const std::string_view given(*inherited);
    const std::string name(given.substr(0, given.find('=') + 1));
    if (std::none_of(variables.begin(), variables.begin() + static_cast<std::ptrdiff_t>(ours),
                     [&](const std::string& own) { return own.starts_with(name); }))
      variables.emplace_back(given);
  }
  return variables;
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> list;
  for (std::string& text : texts) list.push_back(text.data());
  list.push_back(nullptr);
  return list;
}

// A shell that waits for its one command is in nobody's use.
std::string replacing_the_shell(const std::string& command) {
  const bool one = command.find_first_of(";&|<>()\n") == std::string::npos;
  const auto first = command.substr(0, command.find(' '));
  return one && first.find('=') == std::string::npos ? "exec " + command : command;
}

cpu_set_t mask_of(const GuestPlace& place) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  for (const int processor : place.processors.empty() ? allowed_processors() : place.processors)
    CPU_SET(static_cast<std::size_t>(processor), &mask);
  return mask;
}

}  // namespace

std::string guest_folder() {
  if (const char* given = std::getenv("ATTN_GUEST_FOLDER"); given != nullptr && *given != '\0') return given;
  std::error_code none;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", none);
  const auto installed = program.parent_path().parent_path() / "share/attnbench/scripts/guests";
  return std::filesystem::is_directory(installed, none) ? installed.string() : ATTN_SOURCE_GUESTS;
}

GuestProcess::GuestProcess(const std::string& command, const GuestPlace& place) : place_(place) {
  // Writing to a guest that is gone then fails, rather than end this process.
  struct sigaction pipe_action {};
  if (::sigaction(SIGPIPE, nullptr, &pipe_action) == 0 && pipe_action.sa_handler == SIG_DFL) ::signal(SIGPIPE, SIG_IGN);
  const auto question = pipe_ends(), answer = pipe_ends(), words = pipe_ends();
  // All that allocates comes before the fork.
  std::vector<std::string> arguments = {"/bin/sh", "-c", replacing_the_shell(command)}, variables = environment_of(place);
  const std::vector<char*> argv = pointers_to(arguments), env = pointers_to(variables);
  const cpu_set_t mask = mask_of(place);
  const pid_t parent = ::getpid();
  id_ = ::fork();
  if (id_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);
    if (CPU_COUNT(&mask) > 0) ::sched_setaffinity(0, sizeof mask, &mask);
    rlimit limit{};
    ::getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = std::min(limit.rlim_cur, most_file_bytes);
    ::setrlimit(RLIMIT_FSIZE, &limit);
    ::signal(SIGPIPE, SIG_DFL);
    ::dup2(question[0], STDIN_FILENO);
    ::dup2(answer[1], STDOUT_FILENO);
    ::dup2(words[1], STDERR_FILENO);
    ::close_range(STDERR_FILENO + 1, ~0U, 0);
    ::execve(argv[0], argv.data(), env.data());
    ::_exit(127);
  }
  for (const int theirs : {question[0], answer[1], words[1]}) ::close(theirs);
  questions_ = question[1], answers_ = answer[0], words_ = words[0];
  for (const int ours : {answers_, words_}) ::fcntl(ours, F_SETFL, O_NONBLOCK);
  answering_ = id_;
  if (id_ < 0) fail(std::string("cannot be started: ") + std::strerror(errno));
}

GuestProcess::~GuestProcess() {
  for (const int fd : {questions_, answers_, words_}) ::close(fd);
  if (id_ <= 0) return;
  if (answering_ != id_) ::kill(answering_, SIGKILL);
  ::kill(id_, SIGKILL);
  ::waitpid(id_, nullptr, 0);
}

void GuestProcess::find_answering() {
  const auto file = [this](const std::string& name) { return std::ifstream("/proc/" + std::to_string(answering_) + "/" + name); };
  for (;;) {
    std::string program;
    pid_t child = 0, other = 0;
    std::getline(file("comm") >> std::ws, program);
    std::ifstream children = file("task/" + std::to_string(answering_) + "/children");
    const bool shell = program == "sh" || program == "dash" || program == "bash";
    if (!shell || !(children >> child) || children >> other) return;
    answering_ = child;
  }
}

double GuestProcess::processor_s() const {
  clockid_t clock{};
  timespec used{};
  if (::clock_getcpuclockid(answering_, &clock) != 0 || ::clock_gettime(clock, &used) != 0) return 0;
  return static_cast<double>(used.tv_sec) + 1e-9 * static_cast<double>(used.tv_nsec);
}

double GuestProcess::waited_s() const {
  double ns = 0;
  for (const std::string& thread : {"/proc/" + std::to_string(answering_), std::string("/proc/thread-self")}) {
    std::ifstream counters(thread + "/schedstat");
    double on_processor = 0, in_queue = 0;
    if (counters >> on_processor >> in_queue) ns += in_queue;
  }
  return 1e-9 * ns;
}

std::string GuestProcess::last_words() const {
  std::string text = stderr_tail_;
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

void GuestProcess::fail(const std::string& sentence) const {
  const std::string words = last_words();
  throw RemoteError(RemoteError::Kind::failed, "the guest " + sentence + (words.empty() ? "" : ": " + words));
}

// What has come on either pipe, after at most so long; false when there will be no more answers.
bool GuestProcess::read_some(double wait_s) {
  std::array<pollfd, 2> fds = {pollfd{answers_, POLLIN, 0}, pollfd{words_, POLLIN, 0}};
  const int wait_ms = wait_s < 0 ? -1 : static_cast<int>(std::min(std::ceil(wait_s * 1e3), 1e9));
  if (::poll(fds.data(), fds.size(), wait_ms) < 0 && errno != EINTR) return false;
  std::array<char, 4096> chunk;
  bool open = true;
  if (fds[0].revents != 0) {
    const ssize_t n = ::read(answers_, chunk.data(), chunk.size());
    if (n > 0) answer_.append(chunk.data(), static_cast<std::size_t>(n));
    open = n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
  }
  if (fds[1].revents != 0) {
    const ssize_t n = ::read(words_, chunk.data(), chunk.size());
    if (n > 0) stderr_tail_.append(chunk.data(), static_cast<std::size_t>(n));
    if (stderr_tail_.size() > keep_of_stderr) stderr_tail_.erase(0, stderr_tail_.size() - keep_of_stderr);
    if (n == 0) {  // a closed pipe would wake every poll
      ::close(words_);
      words_ = -1;
    }
  }
  return open;
}

std::string GuestProcess::end_of_process() {
  constexpr double patience_s = 1;
  const double deadline_s = monotonic_s() + patience_s;
  int status = 0;
  pid_t gone = 0;
  while ((gone = ::waitpid(id_, &status, WNOHANG)) == 0 && monotonic_s() < deadline_s) read_some(0.01);
  while (words_ >= 0) {
    const std::size_t before = stderr_tail_.size();
    read_some(0);
    if (stderr_tail_.size() == before) break;
  }
  if (gone != id_) return "closed its stdout";
  id_ = -1;
  if (WIFSIGNALED(status))
    return "ended by signal " + std::to_string(WTERMSIG(status)) + " (" + ::strsignal(WTERMSIG(status)) + ")";
  return "ended with code " + std::to_string(WEXITSTATUS(status));
}

std::string GuestProcess::ask(const std::string& question, const std::string& what, double timeout_s) {
  if (!answer_.empty()) fail("wrote to its stdout without being asked");
  const std::string line = question + "\n";
  for (std::size_t done = 0; done < line.size();) {
    const ssize_t n = ::write(questions_, line.data() + done, line.size() - done);
    if (n < 0 && errno != EINTR) break;  // it is gone; reading says how
    if (n > 0) done += static_cast<std::size_t>(n);
  }
  const double deadline_s = monotonic_s() + timeout_s;
  std::size_t end = std::string::npos;
  while ((end = answer_.find('\n')) == std::string::npos) {
    const double left_s = timeout_s > 0 ? std::max(0.0, deadline_s - monotonic_s()) : -1;
    if (timeout_s > 0 && left_s == 0)
      fail("did not answer '" + what + "' within " + std::to_string(static_cast<int>(std::ceil(timeout_s))) + " s");
    if (answer_.size() > most_answer_bytes) fail("answered '" + what + "' with more than 64 KiB, a line of JSON is accepted");
    if (!read_some(left_s)) {
      const std::string ended = end_of_process();
      fail(ended + " before it answered '" + what + "'");
    }
  }
  std::string text = answer_.substr(0, end);
  answer_.erase(0, end + 1);
  return text;
}

}  // namespace attn
