#include "attn/measure/meters.hpp"

#include <unistd.h>

#include <atomic>

#include "../machine_of_files.hpp"
#include "catch.hpp"

using namespace attn;

namespace {

struct Rapl : Machine {
  Rapl() {
    zone("intel-rapl:0", "package-0", 1'000'000, 5'000'000);
    zone("intel-rapl:1", "package-1", 2'000'000, 5'000'000);
    zone("intel-rapl:0:0", "core", 0, 5'000'000);
    zone("intel-rapl:2", "psys", 0, 5'000'000);
    zone("dtpm", "package-9", 0, 5'000'000);
  }
  void zone(const std::string& folder, const std::string& name, int energy_uj, int range_uj) const {
    write("/sys/class/powercap/" + folder + "/name", name + "\n");
    write("/sys/class/powercap/" + folder + "/max_energy_range_uj", std::to_string(range_uj) + "\n");
    energy(folder, energy_uj);
  }
  void energy(const std::string& folder, int energy_uj) const {
    write("/sys/class/powercap/" + folder + "/energy_uj", std::to_string(energy_uj) + "\n");
  }
};

}  // namespace

TEST_CASE("energy is that of whole packages, once around where a counter began anew") {
  const Rapl machine;
  EnergyMeter meter(machine.root);
  REQUIRE(meter.unsupported() == "");
  meter.start();
  CHECK(meter.joules() == 0);
  machine.energy("intel-rapl:0", 1'500'000);
  machine.energy("intel-rapl:1", 1'000'000);  // 2 J, up to 5 J, and 1 J
  machine.energy("intel-rapl:0:0", 400'000);
  machine.energy("intel-rapl:2", 400'000);
  CHECK(meter.joules() == Approx(0.5 + 4.0));
  meter.start();
  CHECK(meter.joules() == 0);
}

TEST_CASE("without packages, or where one cannot be understood, it is said why there is no energy") {
  const Machine none;
  CHECK(EnergyMeter(none.root).unsupported() == "/sys/class/powercap has no intel-rapl package (a virtual machine?)");
  const Rapl machine;
  machine.write("/sys/class/powercap/intel-rapl:1/energy_uj", "\n");
  const std::string why = EnergyMeter(machine.root).unsupported();
  CHECK(why.starts_with("/sys/class/powercap/intel-rapl:1/energy_uj cannot be read"));
}

TEST_CASE("where the kernel shows no counters it is said which file told") {
  const Machine machine;
  CHECK(EventMeter(machine.root).unsupported() == "there is no /proc/sys/kernel/perf_event_paranoid");
  machine.write("/proc/sys/kernel/perf_event_paranoid", "some\n");
  CHECK(EventMeter(machine.root).unsupported() == "/proc/sys/kernel/perf_event_paranoid says 'some'");
  machine.write("/proc/sys/kernel/perf_event_paranoid", "2\n");
  machine.write("/sys/bus/event_source/devices/software/type", "1\n");
  CHECK(EventMeter(machine.root).unsupported() == "/sys/bus/event_source/devices names no processor's (a virtual machine?)");
  machine.write("/proc/sys/kernel/perf_event_paranoid", "4\n");
  if (::geteuid() != 0)
    CHECK(EventMeter(machine.root).unsupported() == "/proc/sys/kernel/perf_event_paranoid is 4, at most 2 lets a user count");
}

TEST_CASE("counters of this machine count a loop, or say why they cannot") {
  const EventMeter meter;
  if (!meter.unsupported().empty()) {
    CHECK(meter.cycles() < 0);
    return;
  }
  std::atomic<int> sink;
  const auto counted = [&](int times) {
    meter.start();
    for (int i = 0; i < times; ++i) sink.store(i, std::memory_order_relaxed);
    meter.stop();
    return meter.instructions();
  };
  CHECK(counted(2'000'000) > counted(1'000'000) + 1e6);
}

TEST_CASE("a run is metered by as many as the meters need, and by none where there is no meter") {
  const Machine none;
  const RunMeters nothing = Meters(none.root).of([] { FAIL("there is nothing to meter"); });
  CHECK(nothing.cycles < 0);
  CHECK(nothing.joules < 0);
  CHECK(nothing.unsupported ==
        "unsupported: counters: there is no /proc/sys/kernel/perf_event_paranoid; "
        "energy: /sys/class/powercap has no intel-rapl package (a virtual machine?)");
  const Rapl machine;
  int runs = 0;
  const RunMeters m = Meters(machine.root).of([&] {
    ++runs;
    machine.energy("intel-rapl:0", 1'000'000 + 1000 * runs);
  });
  CHECK(runs > 1);
  CHECK(m.joules == Approx(1e-3));
  CHECK(m.unsupported == "unsupported: counters: there is no /proc/sys/kernel/perf_event_paranoid");
}
