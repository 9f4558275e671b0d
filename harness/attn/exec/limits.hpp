// What this process may use of the machine's processors and memory, and which limit says so. The one place that reads them: affinity
// mask, control groups of version 1 and 2 with all groups around them, resource limits, /proc/meminfo.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "attn/core/problem.hpp"

namespace attn {

// Sentences name files as they lie on the machine, without `root`.
struct Limits {
  int processors = 0;        // online, logical; 0: unknown
  std::vector<int> allowed;  // of these, by affinity mask and cpuset; empty: the system does not tell
  std::string allowed_by;    // what keeps the others away; empty: nothing, or unknown

  std::optional<double> quota;  // processors' worth of time in each period, the least of all groups around; empty: none
  std::string quota_by;         // the file that says so

  std::optional<index_t> memory_bytes;  // that can still be allocated; empty: unknown
  std::string memory_by;                // the limit that leaves the least

  std::vector<std::string> unread;  // a sentence for each file that says something unexpected, which then counts as no limit

  // Threads that run at once: allowed processors, or whole processors of the quota where these are fewer. At least 1.
  int usable_cores() const;

  // Why so many threads do not run at once, as a sentence; empty: they do.
  std::string crowded(int threads) const;
};

// Reads proc and sys under `root`. At "/" the affinity mask is allowed_processors(), elsewhere what proc/self/status tells.
Limits read_limits(const std::string& root = "/");

// Of read_limits("/"), read anew at each call.
int usable_cores();
index_t available_memory_bytes();  // the largest index_t: nothing tells

// The affinity mask that this process began with, ascending: one of its threads may be pinned by now. Empty: the system refuses it.
const std::vector<int>& allowed_processors();

// Time for which a quota held this process's groups still, since each began: the most of any. Empty: no group tells.
std::optional<double> throttled_s(const std::string& root = "/");

}  // namespace attn
