// What a sweep was begun with, kept in the context beside its CSV: --resume goes on with that and with nothing else.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "attn/cell/grid.hpp"
#include "attn/core/result.hpp"

namespace attn {

struct SweepOptions;

struct Begun {
  std::map<std::string, std::vector<std::string>, std::less<>>
      axes;                           // values, by the axis's name; those that were asked for, variants always
  std::string variants;               // as they were asked for, such as a family
  std::vector<std::string> settings;  // flags: plugins, samples, outputs, ...

  // Flags that ask for the same again.
  std::vector<std::string> arguments() const;
};

// Of options that make_grid took.
Begun begun_with(const SweepOptions& options, const Registry& registry);

// As JSON for the context file, and from there. None where the CSV holds nothing, or its context does not tell.
std::string to_json(const Begun& begun);
std::optional<Begun> read_begun(const std::string& csv);

// With --resume: refuses axes that were given and differ from those that the CSV was begun with, both named, and a call that names no
// axis where nothing else says what to measure. Variants asked for by the same words are those of the beginning; `note` then says which
// ones a family has got since.
Status go_on_as_begun(SweepOptions& options, const Registry& registry, std::string& note);

// The command that goes on with the sweep, as a shell takes it. `program`: as it was started.
std::string resume_command(const std::string& program, const std::string& out);

}  // namespace attn
