#include "attn/exec/limits.hpp"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <fstream>
#include <limits>
#include <memory>
#include <string_view>

#include "attn/core/text.hpp"

namespace attn {

namespace {

// Files under a root; what cannot be understood becomes a sentence.
class Files {
 public:
  Files(const std::string& root, std::vector<std::string>& unread) : root_(root == "/" ? "" : root), unread_(unread) {}

  std::vector<std::string> lines(const std::string& path) const {
    std::vector<std::string> list;
    std::ifstream file(root_ + path);
    for (std::string line; std::getline(file, line);) list.push_back(line);
    return list;
  }

  // The first line; empty where there is none.
  std::string line(const std::string& path) const {
    const auto all = lines(path);
    return all.empty() ? "" : std::string(trim(all.front()));
  }

  // A file that holds one number; empty where it is absent or says "max".
  std::optional<index_t> number(const std::string& path) const {
    const std::string text = line(path);
    if (text.empty() || text == "max") return std::nullopt;
    const auto value = parse_integer(text);
    if (value) return *value;
    not_understood(path, text);
    return std::nullopt;
  }

  // The first number behind `name` at the start of a line.
  std::optional<index_t> field(const std::string& path, std::string_view name) const {
    for (const std::string& line : lines(path)) {
      if (line.compare(0, name.size(), name) != 0) continue;
      const std::string_view rest = trim(std::string_view(line).substr(name.size()));
      if (const auto value = parse_integer(rest.substr(0, rest.find_first_of(" \t")))) return *value;
    }
    return std::nullopt;
  }

  void not_understood(const std::string& path, const std::string& text) const {
    unread_.push_back(path + " says '" + text + "', which is no limit");
  }

 private:
  std::string root_;
  std::vector<std::string>& unread_;
};

// "0-3,8" as numbers; empty where it is no such list.
std::vector<int> processor_list(std::string_view text) {
  constexpr index_t most = 1 << 20;  // beyond any kernel's
  std::vector<int> list;
  for (const std::string_view part : split(trim(text), ',')) {
    const auto dash = part.find('-');
    const auto first = parse_integer(part.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : parse_integer(part.substr(dash + 1));
    if (!first || !last || *first < 0 || *last < *first || *last > most) return {};
    for (index_t processor = *first; processor <= *last; ++processor) list.push_back(static_cast<int>(processor));
  }
  std::sort(list.begin(), list.end());
  list.erase(std::unique(list.begin(), list.end()), list.end());
  return list;
}

// --- control groups ---

struct Group {
  std::string folder;
  bool version_2;
};

// Where a hierarchy is mounted, and which of its groups lies there: in a container that need not be its topmost one.
struct Mount {
  std::string point, group;
  bool version_2;
};

bool lists(std::string_view commas, std::string_view word) {
  const auto words = split(commas, ',');
  return std::find(words.begin(), words.end(), word) != words.end();
}

// proc/self/mountinfo: "ID PARENT MAJOR:MINOR GROUP POINT OPTIONS [FIELDS] - TYPE SOURCE OPTIONS"
std::vector<Mount> mounts_of(const Files& files, std::string_view controller) {
  std::vector<Mount> mounts;
  for (const std::string& line : files.lines("/proc/self/mountinfo")) {
    const auto dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    const auto before = split(std::string_view(line).substr(0, dash), ' ');
    const auto after = split(std::string_view(line).substr(dash + 3), ' ');
    if (before.size() < 6 || after.size() < 3) continue;
    const bool version_2 = after[0] == "cgroup2";
    if (version_2 || (after[0] == "cgroup" && lists(after[2], controller)))
      mounts.push_back({std::string(before[4]), std::string(before[3]), version_2});
  }
  if (mounts.empty()) {  // where systemd and Docker have them
    mounts.push_back({"/sys/fs/cgroup", "/", true});
    mounts.push_back({"/sys/fs/cgroup/" + std::string(controller), "/", false});
  }
  return mounts;
}

// The path of a group below the group at the mount; empty: that one itself, or a group that is not to be seen from here.
std::string below(const Mount& mount, const std::string& path) {
  if (path.find("/..") != std::string::npos) return "";
  const std::string top = mount.group == "/" ? "" : mount.group;
  if (path.compare(0, top.size(), top) != 0) return "";
  const std::string rest = path.substr(top.size());
  return rest.size() > 1 && rest.front() == '/' ? rest : "";
}

// This process's groups for a controller and all groups around them, innermost first. Without proc/self/cgroup the groups at the mounts.
std::vector<Group> groups_of(const Files& files, std::string_view controller) {
  std::string of_version_1 = "/", of_version_2 = "/";
  for (const std::string& line : files.lines("/proc/self/cgroup")) {  // ID:CONTROLLERS:PATH
    const auto first = line.find(':'), second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string_view controllers = std::string_view(line).substr(first + 1, second - first - 1);
    if (controllers.empty()) of_version_2 = line.substr(second + 1);
    if (lists(controllers, controller)) of_version_1 = line.substr(second + 1);
  }
  std::vector<Group> groups;
  for (const Mount& mount : mounts_of(files, controller)) {
    std::string path = below(mount, mount.version_2 ? of_version_2 : of_version_1);
    for (; !path.empty(); path.resize(path.rfind('/'))) groups.push_back({mount.point + path, mount.version_2});
    groups.push_back({mount.point, mount.version_2});
  }
  return groups;
}

// --- processors ---

std::vector<int> own_mask() {
  std::vector<int> list;
  // The kernel refuses a set smaller than its own with EINVAL, whose size it does not tell.
  for (std::size_t most = CPU_SETSIZE; most <= std::size_t{1} << 20; most *= 2) {
    const auto drop = [](cpu_set_t* set) { CPU_FREE(set); };
    const std::unique_ptr<cpu_set_t, decltype(drop)> set(CPU_ALLOC(most), drop);
    const std::size_t bytes = CPU_ALLOC_SIZE(most);
    CPU_ZERO_S(bytes, set.get());
    if (::sched_getaffinity(0, bytes, set.get()) == 0) {
      for (std::size_t processor = 0; processor < most; ++processor) {
        if (CPU_ISSET_S(processor, bytes, set.get())) list.push_back(static_cast<int>(processor));
      }
      return list;
    }
    if (errno != EINVAL) return list;
  }
  return list;
}

[[maybe_unused]] const std::vector<int>& mask_at_load = allowed_processors();

void read_processors(const Files& files, bool own_machine, Limits& limits) {
  limits.processors = static_cast<int>(processor_list(files.line("/sys/devices/system/cpu/online")).size());
  if (own_machine) {
    limits.allowed = allowed_processors();
  } else {
    constexpr std::string_view name = "Cpus_allowed_list:";
    for (const std::string& line : files.lines("/proc/self/status")) {
      if (line.compare(0, name.size(), name) == 0) limits.allowed = processor_list(std::string_view(line).substr(name.size()));
    }
  }
  if (limits.allowed.empty() || static_cast<int>(limits.allowed.size()) >= limits.processors) return;
  limits.allowed_by = "the affinity mask that it was started with (taskset, numactl, a batch system)";
  for (const Group& group : groups_of(files, "cpuset")) {
    for (const char* name : {"/cpuset.cpus.effective", "/cpuset.effective_cpus", "/cpuset.cpus"}) {
      const std::string path = group.folder + name;
      if (processor_list(files.line(path)) != limits.allowed) continue;
      limits.allowed_by = path;
      return;
    }
  }
}

void read_quota(const Files& files, Limits& limits) {
  for (const Group& group : groups_of(files, "cpu")) {
    std::string path = group.folder + (group.version_2 ? "/cpu.max" : "/cpu.cfs_quota_us");
    std::string text = files.line(path);
    if (text.empty()) continue;
    if (!group.version_2) text += " " + files.line(group.folder + "/cpu.cfs_period_us");
    const auto words = split(text, ' ');
    if (words.front() == "max" || words.front() == "-1") continue;
    const auto time = parse_number(words.front()), period = parse_number(words.size() == 2 ? words[1] : "");
    if (!time || !period || !(*time > 0) || !(*period > 0)) {
      files.not_understood(path, text);
      continue;
    }
    if (limits.quota && *limits.quota <= *time / *period) continue;
    limits.quota = *time / *period;
    limits.quota_by = std::move(path);
  }
}

// --- memory ---

// Of a group's use, what the kernel gives back before it refuses: pages of files that nobody has touched for a while.
index_t held_by(const Files& files, const Group& group) {
  const index_t used = files.number(group.folder + (group.version_2 ? "/memory.current" : "/memory.usage_in_bytes")).value_or(0);
  const std::string_view name = group.version_2 ? "inactive_file " : "total_inactive_file ";
  return std::max<index_t>(0, used - files.field(group.folder + "/memory.stat", name).value_or(0));
}

// A soft limit of proc/self/limits, "Max address space  SOFT HARD bytes"; empty: unlimited.
std::optional<index_t> resource_limit(const Files& files, std::string_view name) { return files.field("/proc/self/limits", name); }

void read_memory(const Files& files, Limits& limits) {
  constexpr index_t kibi = 1024;
  constexpr index_t none = index_t{1} << 62;  // version 1 says 2^63 less a page
  const auto leaves = [&limits](index_t bytes, const std::string& by) {
    if (limits.memory_bytes && *limits.memory_bytes <= bytes) return;
    limits.memory_bytes = std::max<index_t>(0, bytes);
    limits.memory_by = by;
  };
  if (const auto free = files.field("/proc/meminfo", "MemAvailable:")) leaves(*free * kibi, "MemAvailable of /proc/meminfo");
  for (const Group& group : groups_of(files, "memory")) {
    // Above `high` the kernel does not refuse, but every allocation waits.
    for (const char* name : {"/memory.max", "/memory.high", "/memory.limit_in_bytes"}) {
      const auto limit = files.number(group.folder + name);
      if (limit && *limit >= 0 && *limit < none) leaves(*limit - held_by(files, group), group.folder + name);
    }
  }
  const auto status = [&](std::string_view name) { return files.field("/proc/self/status", name).value_or(0) * kibi; };
  if (const auto most = resource_limit(files, "Max address space")) leaves(*most - status("VmSize:"), "RLIMIT_AS (ulimit -v)");
  if (const auto most = resource_limit(files, "Max data size")) leaves(*most - status("VmData:"), "RLIMIT_DATA (ulimit -d)");
}

}  // namespace

const std::vector<int>& allowed_processors() {
  static const std::vector<int> mask = own_mask();
  return mask;
}

Limits read_limits(const std::string& root) {
  Limits limits;
  const Files files(root, limits.unread);
  read_processors(files, root == "/", limits);
  read_quota(files, limits);
  read_memory(files, limits);
  return limits;
}

int Limits::usable_cores() const {
  const int cores = allowed.empty() ? processors : static_cast<int>(allowed.size());
  const double most = quota ? std::min<double>(cores, std::floor(*quota)) : cores;
  return std::max(1, static_cast<int>(most));
}

std::string Limits::crowded(int threads) const {
  if (!allowed.empty() && threads > static_cast<int>(allowed.size()))
    return std::to_string(threads) + " threads share " + counted(allowed.size(), "allowed processor");
  if (quota && threads > *quota)
    return counted(static_cast<std::size_t>(threads), "thread") + " under a quota of " + format_number(*quota) +
           (*quota == 1 ? " processor" : " processors");
  return "";
}

int usable_cores() { return read_limits().usable_cores(); }

index_t available_memory_bytes() { return read_limits().memory_bytes.value_or(std::numeric_limits<index_t>::max()); }

std::optional<double> throttled_s(const std::string& root) {
  std::vector<std::string> ignored;
  const Files files(root, ignored);
  std::optional<double> most;
  for (const Group& group : groups_of(files, "cpu")) {
    const auto microseconds = files.field(group.folder + "/cpu.stat", "throttled_usec");
    const auto nanoseconds = files.field(group.folder + "/cpu.stat", "throttled_time");
    if (!microseconds && !nanoseconds) continue;
    const double seconds = microseconds ? 1e-6 * static_cast<double>(*microseconds) : 1e-9 * static_cast<double>(*nanoseconds);
    most = std::max(most.value_or(0), seconds);
  }
  return most;
}

}  // namespace attn
