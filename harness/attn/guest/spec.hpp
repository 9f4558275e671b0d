// What a guest says of itself: its answer to "hello", or the file of that form that stands for it (scripts/guests/*.json).
#pragma once

#include <string>
#include <vector>

#include "attn/core/dtype.hpp"
#include "attn/core/result.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// What it computes: a variant of the registry or, where there is none of that name, one of its own.
struct GuestVariant {
  std::string id;
  VariantInfo info = {};                // of its own
  std::vector<OptionDoc> options = {};  // of its own
  bool reference = false;               // of its own: answers "reference"
  bool describes = false;               // of its own: answers "describe"
};

struct GuestSpec {
  std::string name;     // of the implementation: full@NAME
  std::string title;    // for people
  std::string command;  // of a shell
  std::vector<DType> dtypes = {DType::f32};
  std::vector<GuestVariant> variants;
  std::string text;  // what it was read from: JSON, on one line
};

Result<GuestSpec> read_guest_spec(const std::string& text);

// Starts `command`, a user's --guest, asks it and ends it. A Python file that only defines functions is served by attnguest.py.
Result<GuestSpec> greet_guest(const std::string& command, double timeout_s);

// Those of the folder, in the order of their files' names. What cannot be read is refused.
Result<std::vector<GuestSpec>> shipped_guests();

}  // namespace attn
