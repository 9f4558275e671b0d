// The machine's own meters of a run: what its processors count, and the energy that their packages take.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "attn/cell/cell.hpp"
#include "attn/exec/arena.hpp"

namespace attn {

// RAPL's counters of whole packages, sys/class/powercap under a root.
class EnergyMeter {
 public:
  explicit EnergyMeter(const std::string& root = "/");

  const std::string& unsupported() const { return unsupported_; }  // a sentence without a stop; empty: it is there
  void start();
  // Since start(). A counter that began anew meanwhile did so once: they last a minute at least.
  double joules() const;

 private:
  struct Package {
    std::string file;
    std::uint64_t range_uj, at_start_uj;
  };
  std::vector<Package> packages_;
  std::string unsupported_;
};

// Cycles, instructions and misses of the last-level cache in user space: of the thread that makes it, and of those begun by it later.
class EventMeter {
 public:
  // What the kernel offers is looked up in proc and sys under the root; the events are this machine's.
  explicit EventMeter(const std::string& root = "/");
  ~EventMeter();
  EventMeter(const EventMeter&) = delete;
  EventMeter& operator=(const EventMeter&) = delete;

  const std::string& unsupported() const { return unsupported_; }
  void start() const;
  void stop() const;
  // Between the two, events that shared a counter with others scaled up; below zero: this one is not counted here.
  double cycles() const { return count(0); }
  double instructions() const { return count(1); }
  double cache_misses() const { return count(2); }

 private:
  double count(std::size_t event) const;
  std::vector<int> files_;
  std::string unsupported_;
};

class Meters {
 public:
  // Before the threads are begun that shall be counted.
  explicit Meters(const std::string& root = "/") : energy_(root), events_(root) {}
  // Of a run, by as many as the meters need. Without any meter, `run` is not called.
  RunMeters of(FunctionRef<void()> run);

 private:
  EnergyMeter energy_;
  EventMeter events_;
};

}  // namespace attn
