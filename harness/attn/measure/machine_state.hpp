// What goes on beside a measurement: other processes, a hypervisor that takes time away, memory that is short.
#pragma once

#include <optional>
#include <string>

namespace attn {

// Counters since some start, read at one moment. Empty: this kernel does not tell.
struct MachineState {
  double at_s = 0;                       // monotonic
  double own_cpu_s = 0;                  // processor time of this process and of the workers that it has waited for
  std::optional<double> busy_s;          // processor time of everybody, all processors
  std::optional<double> stolen_s;        // taken by the hypervisor, all processors
  std::optional<double> memory_stall_s;  // some process waited for memory
  std::optional<double> throttled_s;     // a quota held this process's control groups still
  std::optional<double> load;            // processes that ran or wanted to, mean of the last minute
  int processors = 1;
};

// From proc/stat, proc/pressure/memory, proc/loadavg and the control groups' cpu.stat under `root`.
MachineState read_machine_state(const std::string& root = "/");

// What between two states spoils a time, as a sentence; empty: nothing.
std::string disturbance(const MachineState& before, const MachineState& after);

// The same for the clock beside a cell: `gflops` of its FMA probe, `usual_gflops` at the start of the sweep.
std::string clock_disturbance(double gflops, double usual_gflops);

// What speaks against starting now; empty: nothing.
std::string busy_before(const MachineState& state);

}  // namespace attn
