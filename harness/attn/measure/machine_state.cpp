#include "attn/measure/machine_state.hpp"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <vector>

#include "attn/core/time.hpp"
#include "attn/exec/limits.hpp"

namespace attn {

namespace {

// A tenth of a processor moves the median of a cell on all cores by more than its usual spread of some per cent. /proc/stat
// counts in hundredths of a second, a whole number for each processor: hence the floor.
constexpr double others_above = 0.10, others_floor_s = 0.05;
constexpr double stolen_above = 0.02, stolen_floor_s = 0.02;
constexpr double stalled_above = 0.01, stalled_floor_s = 0.005;
constexpr double throttled_above = 0.01, throttled_floor_s = 0.005;
constexpr double clock_below = 0.85;  // the probe beside a quiet cell stays within 5 % of that at the start
constexpr double load_above = 0.25;   // of the processors

double seconds_of(const timeval& t) { return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec); }

double cpu_s(int who) {
  rusage usage{};
  ::getrusage(who, &usage);
  return seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
}

// proc/stat: "cpu user nice system idle iowait irq softirq steal guest guest_nice"; guest time is part of user time.
void read_processors(const std::string& path, MachineState& state) {
  std::ifstream file(path);
  const double tick_s = 1.0 / static_cast<double>(::sysconf(_SC_CLK_TCK));
  int processors = 0;
  for (std::string word; file >> word; std::getline(file, word)) {
    if (word.rfind("cpu", 0) != 0) break;
    if (word != "cpu") {
      ++processors;
      continue;
    }
    std::vector<double> ticks;
    for (double value = 0; ticks.size() < 8 && file >> value;) ticks.push_back(value);
    if (ticks.size() >= 7) state.busy_s = tick_s * (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]);
    if (ticks.size() >= 8) state.stolen_s = tick_s * ticks[7];
    file.clear();
  }
  state.processors = std::max(1, processors);
}

// proc/pressure/memory: "some avg10=0.00 avg60=0.00 avg300=0.00 total=MICROSECONDS"
std::optional<double> stall_s(const std::string& path) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const auto total = line.find("total=");
    if (line.rfind("some ", 0) != 0 || total == std::string::npos) continue;
    const std::string digits = line.substr(total + 6);
    if (!digits.empty() && digits.find_first_not_of("0123456789") == std::string::npos) return 1e-6 * std::stod(digits);
  }
  return std::nullopt;
}

std::optional<double> first_number(const std::string& path) {
  std::ifstream file(path);
  double value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

void add(std::string& text, const std::string& part) { text += (text.empty() ? "" : "; ") + part; }

}  // namespace

MachineState read_machine_state(const std::string& root) {
  MachineState state;
  state.at_s = monotonic_s();
  state.own_cpu_s = cpu_s(RUSAGE_SELF) + cpu_s(RUSAGE_CHILDREN);
  read_processors(root + "/proc/stat", state);
  state.memory_stall_s = stall_s(root + "/proc/pressure/memory");
  state.throttled_s = throttled_s(root);
  state.load = first_number(root + "/proc/loadavg");
  return state;
}

std::string disturbance(const MachineState& before, const MachineState& after) {
  std::string text;
  const double elapsed_s = after.at_s - before.at_s;
  const auto spent = [](const std::optional<double>& a, const std::optional<double>& b) { return a && b ? *b - *a : 0.0; };
  const double others_s = spent(before.busy_s, after.busy_s) - (after.own_cpu_s - before.own_cpu_s);
  if (others_s > std::max(others_floor_s, others_above * elapsed_s))
    add(text, fmt::format("others used {:.2f} processors", others_s / elapsed_s));
  const double stolen_s = spent(before.stolen_s, after.stolen_s);
  if (stolen_s > std::max(stolen_floor_s, stolen_above * elapsed_s * after.processors))
    add(text, fmt::format("the hypervisor took {:.2f} processors", stolen_s / elapsed_s));
  const double stalled_s = spent(before.memory_stall_s, after.memory_stall_s);
  if (stalled_s > std::max(stalled_floor_s, stalled_above * elapsed_s))
    add(text, fmt::format("memory was short for {:.0f} % of the time", 100 * stalled_s / elapsed_s));
  const double throttled = spent(before.throttled_s, after.throttled_s);
  if (throttled > std::max(throttled_floor_s, throttled_above * elapsed_s))
    add(text, fmt::format("a quota held its threads still for {:.0f} % of the time", 100 * throttled / elapsed_s));
  return text;
}

std::string clock_disturbance(double gflops, double usual_gflops) {
  if (!(gflops > 0 && usual_gflops > 0) || gflops >= clock_below * usual_gflops) return "";
  return fmt::format("the clock ran at {:.2f} of its speed at the start", gflops / usual_gflops);
}

std::string busy_before(const MachineState& state) {
  if (!state.load || *state.load <= load_above * state.processors) return "";
  return fmt::format("the load is {:.2f} on {} processors: others run here, and times will tell of them too", *state.load,
                     state.processors);
}

}  // namespace attn
