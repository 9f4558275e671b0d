// Properties that every variant must have, tried on problems of awkward shapes: the tests run them over the whole registry,
// attn_sweep --verify over anyone's plugin.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "attn/core/result.hpp"
#include "attn/prove/call_meter.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

struct Property {
  std::string id;      // one word
  std::string holds;   // what every variant does
  bool timed = false;  // reads the clock: wants the machine for itself
  bool by_isa = true;  // may hold on one instruction set and not on another; else it is about code that all of them share
};
const std::vector<Property>& properties();

// "all", or ids joined by commas. Unknown ids are refused with the nearest one.
Result<std::vector<Property>> chosen_properties(std::string_view ids);

// One property tried on one variant.
struct Finding {
  std::string property;  // its id
  index_t cases = 0;     // tried
  std::string none;      // why none was, when cases is 0
  std::string note;      // figures that a reader may want
  std::string failure;   // the first case that failed, and how; empty: none did
};

struct ConformanceOptions {
  int threads = 2;           // where a property does not vary them
  bool thorough = false;     // more shapes
  bool gradient = true;      // of the definition: false where differences cross its jumps
  bool another_isa = false;  // than the one that everything was tried on: no property that does not depend on it
  // Null where the program counts no calls: what needs it is then not tried.
  CallMeter* meter = nullptr;
  // Told what is tried next. A variant may end the process, and whoever watches it then knows where.
  std::function<void(const std::string&)> before = nullptr;
};

// Call outside an arena, with no other arena alive: TBB grants all arenas the smallest number of threads that any asks for.
// `bounds` ends the process where a variant leaves its arrays: it hits protected pages.
Finding check_property(const Variant& variant, const Property& property, const ConformanceOptions& options);

// All that read no clock and that the options ask for.
std::vector<Finding> check_conformance(const Variant& variant, const ConformanceOptions& options);

// The problems that most properties are tried on, supported or not.
std::vector<Problem> awkward_problems(bool thorough);

}  // namespace attn
