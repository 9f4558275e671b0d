#include "attn/measure/machine_state.hpp"

#include <unistd.h>

#include <cstdlib>

#include "../machine_of_files.hpp"
#include "attn/measure/doctor.hpp"
#include "catch.hpp"

using namespace attn;

namespace {

Advice about(const std::string& topic, const Machine& machine) {
  for (const Advice& advice : examine(machine.root)) {
    if (advice.topic == topic) return advice;
  }
  FAIL("no advice about " << topic);
  return {};
}

MachineState at(double s) {
  return {.at_s = s, .own_cpu_s = 0, .busy_s = 0.0, .stolen_s = 0.0, .memory_stall_s = 0.0, .load = 0.0, .processors = 2};
}

}  // namespace

TEST_CASE("the machine's state is read from proc") {
  const Machine machine;
  machine.write("/proc/stat",
                "cpu  100 20 30 4000 50 6 7 80 9 10\ncpu0 50 10 15 2000 25 3 3 40 0 0\ncpu1 50 10 15 2000 25 3 4 40 0 0\nintr 1\n");
  machine.write("/proc/pressure/memory", "some avg10=0.00 avg60=0.12 avg300=0.00 total=2500000\nfull avg10=0.00 total=1\n");
  machine.write("/proc/loadavg", "1.25 1.00 0.50 2/100 4242\n");
  const MachineState state = read_machine_state(machine.root);
  const double tick_s = 1.0 / static_cast<double>(::sysconf(_SC_CLK_TCK));
  CHECK(state.processors == 2);
  REQUIRE((state.busy_s && state.stolen_s && state.memory_stall_s && state.load));
  CHECK(*state.busy_s == Approx(163 * tick_s));  // neither idle nor waiting, nor guests, who are users already
  CHECK(*state.stolen_s == Approx(80 * tick_s));
  CHECK(*state.memory_stall_s == Approx(2.5));
  CHECK(*state.load == 1.25);
}

TEST_CASE("what proc does not tell is no number") {
  const Machine machine;
  machine.write("/proc/stat", "cpu  many\n");
  machine.write("/proc/pressure/memory", "some avg10=0.00 total=\n");
  const MachineState state = read_machine_state(machine.root);
  CHECK((!state.busy_s && !state.stolen_s && !state.memory_stall_s && !state.load));
  CHECK(disturbance(state, state) == "");
  CHECK(busy_before(state) == "");
}

TEST_CASE("a quiet machine disturbs nothing, and the cell's own work is no disturbance") {
  MachineState after = at(10);
  after.busy_s = 19.5;
  after.own_cpu_s = 19.4;
  CHECK(disturbance(at(0), after) == "");
}

TEST_CASE("others, the hypervisor and short memory disturb, each in words") {
  MachineState after = at(10);
  after.busy_s = 5.0;
  CHECK(disturbance(at(0), after) == "others used 0.50 processors");
  after = at(10);
  after.stolen_s = 1.0;
  CHECK(disturbance(at(0), after) == "the hypervisor took 0.10 processors");
  after.memory_stall_s = 0.5;
  CHECK(disturbance(at(0), after) == "the hypervisor took 0.10 processors; memory was short for 5 % of the time");
}

// Of 10 s on two processors, and of 0.1 s, where the ticks that the kernel counts in would be more.
TEST_CASE("each disturbance begins where it is more than its share of the time, and than a tick") {
  const auto said = [](double elapsed_s, std::optional<double> MachineState::*counter, double seconds) {
    MachineState before = at(0), after = at(elapsed_s);
    before.*counter = 5.0;
    after.*counter = 5.0 + seconds;
    return !disturbance(before, after).empty();
  };
  struct Threshold {
    std::optional<double> MachineState::*counter;
    double of_10_s, of_a_tenth;
  };
  for (const Threshold& t : {Threshold{&MachineState::busy_s, 1.0, 0.05},
                             {&MachineState::stolen_s, 0.4, 0.02},
                             {&MachineState::memory_stall_s, 0.1, 0.005},
                             {&MachineState::throttled_s, 0.1, 0.005}}) {
    INFO("above " << t.of_10_s << " s of 10");
    CHECK_FALSE(said(10, t.counter, 0.99 * t.of_10_s));
    CHECK(said(10, t.counter, 1.01 * t.of_10_s));
    CHECK_FALSE(said(0.1, t.counter, 0.99 * t.of_a_tenth));
    CHECK(said(0.1, t.counter, 1.01 * t.of_a_tenth));
  }
  MachineState after = at(10);
  after.busy_s = 3.0, after.own_cpu_s = 1.9;
  CHECK(disturbance(at(0), after) == "others used 0.11 processors");
}

TEST_CASE("a short cell is not disturbed by a few ticks of the counter") {
  MachineState after = at(0.1);
  after.busy_s = 0.04;
  CHECK(disturbance(at(0), after) == "");
}

TEST_CASE("a clock that has fallen disturbs, one that has risen does not") {
  CHECK(clock_disturbance(50, 100) == "the clock ran at 0.50 of its speed at the start");
  CHECK(clock_disturbance(96, 100) == "");
  CHECK((clock_disturbance(84.9, 100) != "" && clock_disturbance(85.1, 100) == ""));
  CHECK((clock_disturbance(50, 0) == "" && clock_disturbance(-1, 100) == ""));
  CHECK(clock_disturbance(130, 100) == "");
  CHECK(clock_disturbance(0, 100) == "");
}

TEST_CASE("a loaded machine is named before the sweep") {
  MachineState state = at(0);
  state.load = 0.4;
  CHECK(busy_before(state) == "");
  state.load = 0.5;
  CHECK(busy_before(state) == "");
  state.load = 0.51;
  CHECK(busy_before(state) != "");
  state.load = 3;
  CHECK(busy_before(state).find("3.00 on 2 processors") != std::string::npos);
}

TEST_CASE("the doctor finds nothing to improve on a quiet machine of its own") {
  const Machine machine;
  machine.write("/proc/stat", "cpu  100 0 0 4000 0 0 0 0 0 0\ncpu0 100 0 0 4000 0 0 0 0 0 0\n");
  machine.write("/proc/loadavg", "0.01 0.02 0.03 1/100 1\n");
  machine.write("/proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n");
  machine.write("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n");
  machine.write("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0\n");
  machine.write("/sys/devices/system/cpu/intel_pstate/no_turbo", "1\n");
  machine.write("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
  machine.write("/sys/fs/cgroup/cpu.max", "max 100000\n");
  machine.write("/sys/devices/system/cpu/online", "0\n");
  machine.write("/proc/self/status", "Cpus_allowed_list:\t0\n");
  machine.write("/proc/meminfo", "MemAvailable: 8388608 kB\n");
  for (const Advice& advice : examine(machine.root)) {
    INFO(advice.topic << ": " << advice.found);
    CHECK(advice.verdict == Advice::Verdict::fine);
  }
}

TEST_CASE("the doctor says of each trouble what was found, why it matters and what to do") {
  const Machine machine;
  machine.write("/proc/stat", "cpu  900 0 0 4000 0 0 0 100 0 0\ncpu0 1 1 1 1 1 1 1 1\ncpu1 1 1 1 1 1 1 1 1\n");
  machine.write("/proc/loadavg", "7.50 2 3 1/100 1\n");
  machine.write("/proc/pressure/memory", "some avg10=0.00 avg60=3.50 avg300=0.00 total=0\n");
  for (const char* cpu : {"cpu0", "cpu1"}) {
    machine.write(std::string("/sys/devices/system/cpu/") + cpu + "/cpufreq/scaling_governor", "powersave\n");
    machine.write(std::string("/sys/devices/system/cpu/") + cpu + "/topology/thread_siblings_list", "0-1\n");
  }
  machine.write("/sys/devices/system/cpu/cpufreq/boost", "1\n");
  machine.write("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
  machine.write("/sys/fs/cgroup/cpu.max", "150000 100000\n");
  machine.write("/sys/devices/system/cpu/online", "0-63\n");
  machine.write("/proc/self/status", "Cpus_allowed_list:\t0,32\n");
  machine.write("/proc/meminfo", "MemAvailable: 524288 kB\n");
  ::setenv("GOMP_CPU_AFFINITY", "0-3", 1);
  ::setenv("OMP_WAIT_POLICY", "active", 1);
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"load", "7.50"},
      {"steal time", "10.00 %"},
      {"memory pressure", "3.50 %"},
      {"governor", "powersave on 2 processors"},
      {"turbo", "on"},
      {"SMT siblings", "2 of 2"},
      {"cgroup quota", "1.5 processors, by /sys/fs/cgroup/cpu.max"},
      {"processors", "2 of 64 allowed, by the affinity mask"},
      {"memory", "0.50 GiB available, by MemAvailable of /proc/meminfo"},
      {"OpenMP binding", "GOMP_CPU_AFFINITY=0-3"},
      {"huge pages", "never"},
      {"spinning OpenMP threads", "OMP_WAIT_POLICY=active"}};
  for (const auto& [topic, found] : expected) {
    const Advice advice = about(topic, machine);
    INFO(topic << ": " << advice.found);
    CHECK(advice.verdict == Advice::Verdict::improve);
    CHECK(advice.found.find(found) != std::string::npos);
    CHECK((!advice.why.empty() && !advice.todo.empty()));
  }
  ::unsetenv("OMP_WAIT_POLICY");
  ::unsetenv("GOMP_CPU_AFFINITY");
}

TEST_CASE("what the doctor cannot read is unsupported, with the file it looked for") {
  const Machine machine;
  int unsupported = 0;
  for (const Advice& advice : examine(machine.root)) {
    if (advice.verdict != Advice::Verdict::unsupported) continue;
    ++unsupported;
    CHECK(advice.found.find("unsupported: cannot read /") == 0);
  }
  CHECK(unsupported == 9);
  CHECK(about("/proc", machine).found == "there is no /proc/self/status");
}

TEST_CASE("a quota of version 1 is read as well") {
  const Machine machine;
  machine.write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");
  machine.write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  CHECK(about("cgroup quota", machine).found == "0.5 processors, by /sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  CHECK(about("cgroup quota", machine).todo == "lift the quota of the container: one thread alone uses it up");
  machine.write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  CHECK(about("cgroup quota", machine).found == "none");
}

TEST_CASE("a quota of one processor is to be measured with one thread, not with fewer") {
  const Machine machine;
  machine.write("/sys/devices/system/cpu/online", "0-7\n");
  machine.write("/proc/self/status", "Cpus_allowed_list:\t0-7\n");
  machine.write("/sys/fs/cgroup/cpu.max", "100000 100000\n");
  CHECK(about("cgroup quota", machine).found == "1 processor, by /sys/fs/cgroup/cpu.max");
  CHECK(about("cgroup quota", machine).todo == "measure with --threads up to 1, or lift the quota of the container");
}

TEST_CASE("a quota that nobody can read is said, not taken for none") {
  const Machine machine;
  machine.write("/sys/fs/cgroup/cpu.max", "many\n");
  CHECK(about("cgroup quota", machine).found == "unsupported: /sys/fs/cgroup/cpu.max says 'many', which is no limit");
}

TEST_CASE("a quota that held threads still disturbs") {
  MachineState before = at(0), after = at(10);
  before.throttled_s = 1.0;
  after.throttled_s = 3.5;
  CHECK(disturbance(before, after) == "a quota held its threads still for 25 % of the time");
  after.throttled_s = 1.05;
  CHECK(disturbance(before, after) == "");
}
