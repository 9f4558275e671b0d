#include "attn/measure/meters.hpp"

#include <fmt/format.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>

#include "attn/core/text.hpp"
#include "attn/core/time.hpp"

namespace attn {

namespace {

std::optional<std::string> first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return {};
  return std::string(trim(line));
}

std::optional<std::uint64_t> number(const std::string& path) {
  const auto line = first_line(path);
  if (!line) return {};
  const auto value = parse_integer(*line);
  if (!value || *value < 0) return {};
  return static_cast<std::uint64_t>(*value);
}

std::string under(const std::string& root, const std::string& path) { return (root == "/" ? "" : root) + path; }

constexpr const char *powercap = "/sys/class/powercap", *devices = "/sys/bus/event_source/devices",
                     *paranoid = "/proc/sys/kernel/perf_event_paranoid";

// "intel-rapl:0" is a package, of AMD's too; "intel-rapl:0:0" a part of it.
bool is_zone(const std::string& name) { return name.starts_with("intel-rapl:") && std::ranges::count(name, ':') == 1; }

constexpr std::array events = {PERF_COUNT_HW_CPU_CYCLES, PERF_COUNT_HW_INSTRUCTIONS, PERF_COUNT_HW_CACHE_MISSES};

int open_event(std::uint64_t event) {
  perf_event_attr attributes{};
  attributes.size = sizeof attributes;
  attributes.type = PERF_TYPE_HARDWARE;
  attributes.config = event;
  attributes.disabled = 1;
  attributes.inherit = 1;
  attributes.exclude_kernel = 1;
  attributes.exclude_hv = 1;
  attributes.read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING;
  return static_cast<int>(::syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC));
}

// Why no event can be counted, as far as files tell.
std::string no_events(const std::string& root) {
  const auto level = first_line(under(root, paranoid));
  if (!level) return fmt::format("there is no {}", paranoid);
  const auto value = parse_integer(*level);
  if (!value) return fmt::format("{} says '{}'", paranoid, *level);
  if (*value > 2 && ::geteuid() != 0) return fmt::format("{} is {}, at most 2 lets a user count", paranoid, *value);
  for (const char* unit : {"cpu", "cpu_core", "armv8_pmuv3_0"}) {
    if (std::filesystem::exists(under(root, std::string(devices) + "/" + unit))) return "";
  }
  return fmt::format("{} names no processor's (a virtual machine?)", devices);
}

}  // namespace

EnergyMeter::EnergyMeter(const std::string& root) {
  std::error_code none;
  std::vector<std::string> zones;
  for (const auto& entry : std::filesystem::directory_iterator(under(root, powercap), none)) {
    const std::string name = entry.path().filename();
    if (is_zone(name) && first_line(entry.path() / "name").value_or("").starts_with("package")) zones.push_back(entry.path());
  }
  std::ranges::sort(zones);
  for (const std::string& zone : zones) {
    const std::string energy = zone + "/energy_uj", range = zone + "/max_energy_range_uj";
    const auto now = number(energy), most = number(range);
    if (!now || !most) {
      const std::string file = (now ? range : energy).substr(under(root, "").size());
      unsupported_ = fmt::format("{} cannot be read{}", file, ::geteuid() == 0 ? "" : " (by root alone, mostly)");
      packages_.clear();
      return;
    }
    packages_.push_back({energy, *most, *now});
  }
  if (packages_.empty()) unsupported_ = fmt::format("{} has no intel-rapl package (a virtual machine?)", powercap);
}

void EnergyMeter::start() {
  for (Package& package : packages_) package.at_start_uj = number(package.file).value_or(0);
}

double EnergyMeter::joules() const {
  double microjoules = 0;
  for (const Package& package : packages_) {
    const std::uint64_t now_uj = number(package.file).value_or(package.at_start_uj);
    const std::uint64_t around = now_uj < package.at_start_uj ? package.range_uj : 0;
    microjoules += static_cast<double>(now_uj + around - package.at_start_uj);
  }
  return 1e-6 * microjoules;
}

EventMeter::EventMeter(const std::string& root) : unsupported_(no_events(root)) {
  if (!unsupported_.empty()) return;
  for (const auto event : events) {
    files_.push_back(open_event(event));
    if (files_.back() < 0 && unsupported_.empty()) unsupported_ = fmt::format("perf_event_open says {}", std::strerror(errno));
  }
  if (files_.front() >= 0) unsupported_.clear();  // a machine without one of the others shows what it has
}

EventMeter::~EventMeter() {
  for (const int file : files_) {
    if (file >= 0) ::close(file);
  }
}

void EventMeter::start() const {
  for (const int file : files_) {
    ::ioctl(file, PERF_EVENT_IOC_RESET, 0);
    ::ioctl(file, PERF_EVENT_IOC_ENABLE, 0);
  }
}

void EventMeter::stop() const {
  for (const int file : files_) ::ioctl(file, PERF_EVENT_IOC_DISABLE, 0);
}

double EventMeter::count(std::size_t event) const {
  struct {
    std::uint64_t value, enabled, running;
  } read{};
  if (event >= files_.size() || ::read(files_[event], &read, sizeof read) != sizeof read || read.running == 0) return -1;
  return static_cast<double>(read.value) * static_cast<double>(read.enabled) / static_cast<double>(read.running);
}

RunMeters Meters::of(FunctionRef<void()> run) {
  RunMeters m;
  const bool energy = energy_.unsupported().empty(), counters = events_.unsupported().empty();
  if (!counters) m.unsupported = "counters: " + events_.unsupported();
  if (!energy) m.unsupported += (counters ? "energy: " : "; energy: ") + energy_.unsupported();
  if (!m.unsupported.empty()) m.unsupported.insert(0, "unsupported: ");
  if (!energy && !counters) return m;
  // RAPL counts anew each millisecond.
  const double least_s = energy ? 0.1 : 0.01;
  energy_.start();
  events_.start();
  const double begin_s = monotonic_s();
  double runs = 0;
  do {
    run();
    ++runs;
  } while (monotonic_s() - begin_s < least_s);
  events_.stop();
  const auto each = [&](double sum) { return sum < 0 ? -1 : sum / runs; };
  if (energy) m.joules = energy_.joules() / runs;
  if (counters)
    m.cycles = each(events_.cycles()), m.instructions = each(events_.instructions()), m.cache_misses = each(events_.cache_misses());
  return m;
}

}  // namespace attn
