// Which variables of the environment attnbench knows.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cctype>
#include <string>
#include <string_view>
#include <vector>

#include "attn/cell/axes.hpp"
#include "attn/core/text.hpp"
#include "attn/program/flags.hpp"
#include "attn/record/sink.hpp"

namespace attn {

namespace {

constexpr std::string_view prefix = "ATTN_";

// What scripts, tests and guests read, without the prefix, and flags that attn_sweep has and attn_train has not, or the other way round.
constexpr std::array elsewhere = {
    "ANCHOR", "APPLY", "APPROVE", "BUILD", "CLONE", "FACTS", "FAULTY", "GUEST_FOLDER", "GUEST_THREADS", "HALF", "LOCK_DIR",
    "MUTATE_COPY", "NEW_PAGE", "NODE", "NOISE_FLOOR", "ONEDNN_GRAPH", "PYTHON", "README_PAGE", "SANITIZE", "SKIP_SETUP",
    "SOAK_MARK", "SOURCE", "SWEEP", "TABLES", "TOY_LEVEL", "TRAIN", "TREES_MEAN_V", "WHEEL_BUILD", "LECTURE",
    // attn_apply
    "VARIANT", "Q", "K", "V", "PARAMETERS", "STATE", "COMPARE", "MAP", "TOKENS",
    // attn_train
    "TASK", "RATE", "WIDTH", "LAYERS", "MLP", "CONV", "POSITIONS", "STEPS", "TEST_SAMPLES", "JOBS", "BODY", "BEAM", "EXTRAPOLATE",
    "STATE_BYTES",
    // attn_sweep, but for its axes
    "LAUNCHER", "GUEST", "SAMPLES", "ROUNDS", "SAMPLE_TIME", "BUDGET", "PIN", "NO_PIN", "MACHINE_ROOT", "ORDER_SEED", "FIDELITY",
    "FIDELITY_SEEDS", "ISO_ERROR", "ISO_SKILL", "AGAINST", "JSONL", "SAVE_OUTPUT", "BASELINE", "TABLE", "EXPLAIN", "DOCTOR",
    "VERIFY", "PROPERTY", "FORMAT", "SCALING", "BANDWIDTH", "STEADY", "PEAKS"};

std::string variable_of(const std::string& flag) {
  std::string name(prefix);
  for (const char c : flag) name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

}  // namespace

void tell_of_unknown_variables(const CLI::App& app) {
  std::vector<std::string> known;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& flag : option->get_lnames()) known.push_back(variable_of(flag));
  }
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::string name(text.substr(0, text.find('=')));
    if (!name.starts_with(prefix) || std::find(known.begin(), known.end(), name) != known.end()) continue;
    if (std::find(elsewhere.begin(), elsewhere.end(), name.substr(prefix.size())) != elsewhere.end()) continue;
    if (std::ranges::any_of(axes(), [&](const Axis& axis) { return variable_of(axis.flag) == name; })) continue;
    const std::string close = nearest(name, known);
    tell(stderr, app.get_name() + ": " + name + " is set and no flag has it" +
                     (close.empty() ? "" : ", did you mean " + close + "?") + " It changes nothing\n");
  }
}

}  // namespace attn
