#include "attn/exec/limits.hpp"

#include <array>
#include <limits>

#include "../machine_of_files.hpp"
#include "attn/exec/openmp.hpp"
#include "attn/exec/seating.hpp"
#include "attn/exec/topology.hpp"
#include "catch.hpp"

using namespace attn;

namespace {

constexpr index_t mebi = index_t{1} << 20;

// Sixteen processors, all allowed, 8 GiB free, no group.
struct Plain : Machine {
  Plain() {
    write("/sys/devices/system/cpu/online", "0-15\n");
    write("/proc/self/status", "Name:\tattn\nVmSize:\t    2048 kB\nVmData:\t    1024 kB\nCpus_allowed_list:\t0-15\n");
    write("/proc/meminfo", "MemTotal:       16777216 kB\nMemFree:         1000000 kB\nMemAvailable:    8388608 kB\n");
    write("/proc/self/limits",
          "Limit                     Soft Limit           Hard Limit           Units\n"
          "Max data size             unlimited            unlimited            bytes\n"
          "Max address space         unlimited            unlimited            bytes\n");
  }
};

}  // namespace

TEST_CASE("without groups and masks the machine is all ours") {
  const Plain machine;
  const Limits limits = read_limits(machine.root);
  CHECK(limits.processors == 16);
  CHECK(limits.allowed.size() == 16);
  CHECK(limits.allowed_by == "");
  CHECK_FALSE(limits.quota);
  CHECK(limits.usable_cores() == 16);
  CHECK(limits.memory_bytes == 8192 * mebi);
  CHECK(limits.memory_by == "MemAvailable of /proc/meminfo");
  CHECK(limits.unread.empty());
  CHECK(limits.crowded(16) == "");
}

TEST_CASE("a group of version 2 limits, and idle pages of files count as free") {
  const Plain machine;
  machine.write("/proc/self/cgroup", "0::/\n");
  machine.write("/sys/fs/cgroup/cpu.max", "250000 100000\n");
  machine.write("/sys/fs/cgroup/memory.max", std::to_string(1024 * mebi) + "\n");
  machine.write("/sys/fs/cgroup/memory.current", std::to_string(900 * mebi) + "\n");
  machine.write("/sys/fs/cgroup/memory.stat",
                "anon 1\nfile 2\ninactive_anon 5\ninactive_file " + std::to_string(600 * mebi) + "\n");
  const Limits limits = read_limits(machine.root);
  CHECK(limits.quota == 2.5);
  CHECK(limits.quota_by == "/sys/fs/cgroup/cpu.max");
  CHECK(limits.usable_cores() == 2);
  CHECK(limits.memory_bytes == 724 * mebi);
  CHECK(limits.memory_by == "/sys/fs/cgroup/memory.max");
  CHECK(limits.crowded(2) == "");
  CHECK(limits.crowded(3) == "3 threads under a quota of 2.5 processors");
}

TEST_CASE("of nested groups the smallest limit counts, whichever group has it") {
  const Plain machine;
  machine.write("/proc/self/cgroup", "0::/kube/pod/box\n");
  const std::string top = "/sys/fs/cgroup";
  const auto group = [&](const std::string& path, const char* quota, index_t most, index_t used) {
    machine.write(top + path + "/cpu.max", std::string(quota) + " 100000\n");
    machine.write(top + path + "/memory.max", std::to_string(most) + "\n");
    machine.write(top + path + "/memory.current", std::to_string(used) + "\n");
  };
  group("/kube/pod/box", "max", 4096 * mebi, 0);
  group("/kube/pod", "300000", 2048 * mebi, 512 * mebi);
  group("/kube", "1200000", 6144 * mebi, 4000 * mebi);
  const Limits limits = read_limits(machine.root);
  CHECK(limits.quota == 3.0);
  CHECK(limits.quota_by == "/sys/fs/cgroup/kube/pod/cpu.max");
  CHECK(limits.memory_bytes == 1536 * mebi);
  CHECK(limits.memory_by == "/sys/fs/cgroup/kube/pod/memory.max");
}

TEST_CASE("memory.high binds as memory.max does") {
  const Plain machine;
  machine.write("/proc/self/cgroup", "0::/a\n");
  machine.write("/sys/fs/cgroup/a/memory.max", "max\n");
  machine.write("/sys/fs/cgroup/a/memory.high", std::to_string(100 * mebi) + "\n");
  const Limits limits = read_limits(machine.root);
  CHECK(limits.memory_bytes == 100 * mebi);
  CHECK(limits.memory_by == "/sys/fs/cgroup/a/memory.high");
}

TEST_CASE("groups of version 1 limit, each controller in its own hierarchy") {
  const Plain machine;
  machine.write("/proc/self/cgroup", "5:cpu,cpuacct:/a/b\n4:memory:/m\n3:cpuset:/\n2:devices:/x\n");
  machine.write("/proc/self/mountinfo",
                "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
                "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
                "33 31 0:30 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n");
  machine.write("/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us", "-1\n");
  machine.write("/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n");
  machine.write("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "50000\n");
  machine.write("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
  machine.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  machine.write("/sys/fs/cgroup/memory/m/memory.limit_in_bytes", std::to_string(512 * mebi) + "\n");
  machine.write("/sys/fs/cgroup/memory/m/memory.usage_in_bytes", std::to_string(300 * mebi) + "\n");
  machine.write("/sys/fs/cgroup/memory/m/memory.stat", "inactive_file 7\ntotal_inactive_file " + std::to_string(100 * mebi) + "\n");
  const Limits limits = read_limits(machine.root);
  CHECK(limits.quota == 0.5);
  CHECK(limits.quota_by == "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us");
  CHECK(limits.usable_cores() == 1);
  CHECK(limits.crowded(1) == "1 thread under a quota of 0.5 processors");
  CHECK(limits.memory_bytes == 312 * mebi);
  CHECK(limits.memory_by == "/sys/fs/cgroup/memory/m/memory.limit_in_bytes");
}

TEST_CASE("in a hybrid both versions count") {
  const Plain machine;
  machine.write("/proc/self/cgroup", "4:memory:/m\n0::/u\n");
  machine.write("/proc/self/mountinfo",
                "33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
                "34 31 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
  machine.write("/sys/fs/cgroup/memory/m/memory.limit_in_bytes", std::to_string(512 * mebi) + "\n");
  machine.write("/sys/fs/cgroup/unified/u/cpu.max", "100000 100000\n");
  const Limits limits = read_limits(machine.root);
  CHECK(limits.memory_bytes == 512 * mebi);
  CHECK(limits.quota == 1.0);
  CHECK(limits.quota_by == "/sys/fs/cgroup/unified/u/cpu.max");
}

TEST_CASE("a container sees its own group at the mount, under the name that it has outside") {
  const Plain machine;
  machine.write("/proc/self/cgroup", "4:memory:/docker/abc/inner\n0::/../../elsewhere\n");
  machine.write("/proc/self/mountinfo",
                "33 31 0:30 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
                "34 31 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
  machine.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", std::to_string(512 * mebi) + "\n");
  machine.write("/sys/fs/cgroup/memory/inner/memory.limit_in_bytes", std::to_string(256 * mebi) + "\n");
  machine.write("/sys/fs/cgroup/unified/cpu.max", "200000 100000\n");
  const Limits limits = read_limits(machine.root);
  CHECK(limits.memory_bytes == 256 * mebi);
  CHECK(limits.quota == 2.0);
}

TEST_CASE("a cpuset that keeps processors away is named, and so is a mask") {
  const Plain machine;
  machine.write("/proc/self/status", "Cpus_allowed_list:\t2-3,8\n");
  Limits limits = read_limits(machine.root);
  CHECK(limits.allowed == std::vector<int>{2, 3, 8});
  CHECK(limits.allowed_by.find("the affinity mask") == 0);
  CHECK(limits.usable_cores() == 3);
  CHECK(limits.crowded(4) == "4 threads share 3 allowed processors");
  machine.write("/proc/self/cgroup", "0::/a\n");
  machine.write("/sys/fs/cgroup/a/cpuset.cpus.effective", "2-3,8\n");
  CHECK(read_limits(machine.root).allowed_by == "/sys/fs/cgroup/a/cpuset.cpus.effective");
}

TEST_CASE("resource limits leave what this process has not taken yet") {
  const Plain machine;
  machine.write("/proc/self/limits",
                "Max data size             unlimited            unlimited            bytes\n"
                "Max address space         104857600            unlimited            bytes\n");
  Limits limits = read_limits(machine.root);
  CHECK(limits.memory_bytes == 98 * mebi);
  CHECK(limits.memory_by == "RLIMIT_AS (ulimit -v)");
  machine.write("/proc/self/limits", "Max data size             1048577              unlimited            bytes\n");
  limits = read_limits(machine.root);
  CHECK(limits.memory_bytes == 1);
  CHECK(limits.memory_by == "RLIMIT_DATA (ulimit -d)");
}

TEST_CASE("a group that holds more than its limit leaves nothing") {
  const Plain machine;
  machine.write("/sys/fs/cgroup/memory.max", "1000\n");
  machine.write("/sys/fs/cgroup/memory.current", "2000\n");
  CHECK(read_limits(machine.root).memory_bytes == 0);
}

TEST_CASE("without proc and sys nothing is known, and one thread can run") {
  const Machine machine;
  const Limits limits = read_limits(machine.root);
  CHECK(limits.processors == 0);
  CHECK(limits.allowed.empty());
  CHECK_FALSE(limits.quota);
  CHECK_FALSE(limits.memory_bytes);
  CHECK(limits.usable_cores() == 1);
  CHECK(limits.crowded(64) == "");
  CHECK_FALSE(throttled_s(machine.root));
}

TEST_CASE("without proc a container's groups at the mounts still count") {
  const Machine machine;
  machine.write("/sys/fs/cgroup/cpu.max", "100000 100000\n");
  machine.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n");
  const Limits limits = read_limits(machine.root);
  CHECK(limits.quota == 1.0);
  CHECK(limits.memory_bytes == 1000);
}

TEST_CASE("a file that says nonsense is no limit, and is named") {
  for (const char* nonsense : {"many 100000", "100000", "100000 0", "-5 100000", "nan 100000", "1 2 3"}) {
    const Plain machine;
    machine.write("/sys/fs/cgroup/cpu.max", std::string(nonsense) + "\n");
    machine.write("/sys/fs/cgroup/memory.max", "a lot\n");
    machine.write("/sys/devices/system/cpu/online", "0-99999999999\n");
    machine.write("/proc/self/mountinfo", "a line - of\n - \n33 31 - cgroup2\n");
    machine.write("/proc/self/cgroup", "0\n1:2\n::\n");
    const Limits limits = read_limits(machine.root);
    CHECK_FALSE(limits.quota);
    CHECK(limits.memory_bytes == 8192 * mebi);
    REQUIRE(limits.unread.size() == 2);
    CHECK(limits.unread[0] == "/sys/fs/cgroup/cpu.max says '" + std::string(nonsense) + "', which is no limit");
    CHECK(limits.unread[1] == "/sys/fs/cgroup/memory.max says 'a lot', which is no limit");
    CHECK(limits.processors == 0);
  }
}

TEST_CASE("time under a quota is read from either version") {
  const Machine machine;
  machine.write("/proc/self/cgroup", "0::/a\n");
  machine.write("/sys/fs/cgroup/a/cpu.stat", "usage_usec 5\nnr_throttled 3\nthrottled_usec 2500000\n");
  CHECK(throttled_s(machine.root) == 2.5);
  machine.write("/sys/fs/cgroup/cpu/cpu.stat", "nr_periods 1\nthrottled_time 4000000000\n");
  CHECK(throttled_s(machine.root) == 4.0);
}

TEST_CASE("this process may use a core, and has memory left") {
  CHECK(usable_cores() >= 1);
  CHECK(available_memory_bytes() > mebi);
  CHECK(available_memory_bytes() < std::numeric_limits<index_t>::max());
  const auto allowed = static_cast<int>(allowed_processors().size());
  CHECK(std::ssize(seating(allowed).seats()) == allowed);
  CHECK(allowed >= usable_cores());
}

TEST_CASE("variables that bind OpenMP's threads are taken out, all others stay in order") {
  std::array<std::string, 6> text = {"PATH=/bin",       "OMP_PLACES=cores", "OMP_NUM_THREADS=4",
                                     "OMP_PROC_BIND=1", "OMP_PLACES_=x",    "GOMP_CPU_AFFINITY=0"};
  std::array<char*, 7> environment{};
  for (std::size_t i = 0; i < text.size(); ++i) environment[i] = text[i].data();
  attn_drop_openmp_binding(environment.data());
  CHECK(environment[0] == std::string("PATH=/bin"));
  CHECK(environment[1] == std::string("OMP_NUM_THREADS=4"));
  CHECK(environment[2] == std::string("OMP_PLACES_=x"));
  CHECK(environment[3] == nullptr);
  CHECK(dropped_openmp_binding() == std::vector<std::string>{"OMP_PLACES=cores", "OMP_PROC_BIND=1", "GOMP_CPU_AFFINITY=0"});
}
