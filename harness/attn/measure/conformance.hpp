// Properties that every variant must have, tried on problems of awkward shapes. The tests run this over the whole
// registry; a plugin's author can run it on theirs.
#pragma once

#include <string>
#include <vector>

#include "attn/variant/registry.hpp"

namespace attn {

struct Property {
  std::string name;     // as a sentence
  index_t cases = 0;    // tried; 0: nothing to try, the variant supports no such problem
  std::string failure;  // first case that failed, and how; empty: none
};

struct ConformanceOptions {
  int threads = 2;
  bool thorough = false;  // more shapes
  bool gradient = true;   // of the definition, which knows no instruction set: false when trying another of those
  // Allocations by this process so far; null where nobody counts. run() must leave it as it was.
  index_t (*allocations)() = nullptr;
};

// Writes outside the given arrays, and writes to inputs, end the process: they hit protected pages.
std::vector<Property> check_conformance(const Variant& variant, const ConformanceOptions& options);

// The problems that the properties are tried on, supported or not.
std::vector<Problem> awkward_problems(bool thorough);

}  // namespace attn
