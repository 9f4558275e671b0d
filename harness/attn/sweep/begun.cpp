#include "attn/sweep/begun.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "attn/core/text.hpp"
#include "attn/record/context.hpp"
#include "attn/record/sink.hpp"
#include "attn/sweep/grid.hpp"
#include "attn/sweep/options.hpp"

namespace attn {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Begun, axes, variants, settings)

namespace {

using nlohmann::json;

constexpr const char* variant_axis = "variant";

std::vector<std::string> texts_of(const std::vector<AxisValue>& values) {
  std::vector<std::string> texts;
  for (const AxisValue& value : values) texts.push_back(to_string(value));
  return texts;
}

std::string told(const Axis& axis, const std::vector<std::string>& texts) {
  return texts.empty() ? "no --" + axis.flag : "--" + axis.flag + " " + join(texts, ",");
}

bool same_values(std::vector<std::string> a, std::vector<std::string> b) {
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  return a == b;
}

Status refuse_others(const SweepOptions& o, const GridLine& line) {
  const auto said = o.said.find(line.axis->name);
  if (said == o.said.end() || said->second.empty()) return {};
  const auto begun = o.begun->axes.find(line.axis->name);
  std::vector<std::string> then;
  if (begun != o.begun->axes.end()) {
    then = begun->second;
  } else if (!line.axis->usual.empty()) {
    then = {line.axis->usual};
    const auto usual = line.axis->parse(line.axis->usual, Registry());
    if (usual) then = texts_of(*usual);
  }
  if (same_values(texts_of(line.values), then)) return {};
  return refuse(fmt::format("--resume: {} is given, '{}' was begun with {}; accepted: no --{}, or another --out",
                            told(*line.axis, said->second), o.out, told(*line.axis, then), line.axis->flag));
}

// A race is for one error or one skill.
Status same_goal(const SweepOptions& o) {
  const auto goal_in = [](const std::vector<std::string>& settings) {
    std::string goal;
    for (std::size_t i = 0; i + 1 < settings.size(); ++i) {
      if (settings[i] == "--iso-error" || settings[i] == "--iso-skill") goal = settings[i] + " " + settings[i + 1];
    }
    return goal.empty() ? std::string("no --iso-error and no --iso-skill") : goal;
  };
  const std::string then = goal_in(o.begun->settings), given = goal_in(sweep_arguments(o));
  if (given == then) return {};
  return refuse(
      fmt::format("--resume: {} is given, '{}' was begun with {}; accepted: the same, or another --out", given, o.out, then));
}

std::string grown(const std::string& words, const std::string& out, const std::vector<std::string>& then,
                  const std::vector<std::string>& today) {
  std::vector<std::string> more;
  for (const std::string& name : today) {
    if (std::find(then.begin(), then.end(), name) == then.end()) more.push_back(name);
  }
  if (more.empty()) return "";
  return fmt::format("'{}' has got {} since {} was begun: not measured here, but with --variants {} and another --out", words,
                     join(more, ","), out, join(more, ","));
}

}  // namespace

std::vector<std::string> Begun::arguments() const {
  std::vector<std::string> list;
  for (const auto& [name, values] : axes) {
    const auto axis = std::find_if(attn::axes().begin(), attn::axes().end(), [&](const Axis& a) { return a.name == name; });
    if (axis == attn::axes().end()) continue;  // of another release
    const std::vector<std::string> joined{join(values, ",")};
    for (const std::string& value : axis->repeatable ? values : joined) list.push_back("--" + axis->flag + "=" + value);
  }
  for (std::size_t i = 0; i < settings.size(); ++i) {
    const bool has_value = i + 1 < settings.size() && !settings[i + 1].starts_with("--");
    list.push_back(settings[i] + (has_value ? "=" + settings[i + 1] : ""));
    i += has_value;
  }
  return list;
}

Begun begun_with(const SweepOptions& o, const Registry& registry) {
  Begun begun;
  const auto grid = parse_grid(o.axes, registry);
  ATTN_ASSERT(grid);
  for (const GridLine& line : *grid) {
    const std::string& name = line.axis->name;
    // What another machine would have others of, and a later build.
    const bool varies = name == variant_axis || name == "threads" || name == "isa";
    if (line.asked || varies) begun.axes[name] = texts_of(line.values);
  }
  begun.variants = o.begun ? o.begun->variants : o.asked(variant_axis).value_or(axis_of(variant_axis).usual);
  begun.settings = sweep_arguments(o);
  if (!o.jsonl.empty()) begun.settings.insert(begun.settings.end(), {"--jsonl", o.jsonl});
  if (!o.save_output.empty()) begun.settings.insert(begun.settings.end(), {"--save-output", o.save_output});
  return begun;
}

std::string to_json(const Begun& begun) { return json(begun).dump(-1, ' ', false, json::error_handler_t::replace); }

std::optional<Begun> read_begun(const std::string& csv) {
  std::error_code none;
  const auto bytes = std::filesystem::file_size(csv, none);
  if (none || bytes == 0) return {};
  const auto text = read_file(context_path(csv));
  if (!text) return {};
  try {
    return json::parse(*text).at("asked").get<Begun>();
  } catch (const std::exception&) {  // of a release that did not tell, or torn
    return {};
  }
}

Status go_on_as_begun(SweepOptions& o, const Registry& registry, std::string& note) {
  if (!o.begun) {
    const bool names_any = std::any_of(o.axes.begin(), o.axes.end(), [](const auto& axis) { return !axis.second.empty(); });
    if (names_any) return {};
    return refuse(
        fmt::format("--resume: neither '{}' nor '{}' says what to measure; accepted: axes, such as --variants and --n, or no "
                    "--resume for the default sweep",
                    o.out, context_path(o.out)));
  }
  const std::vector<std::string>& then = o.begun->axes[variant_axis];
  const auto said = o.said.find(variant_axis);
  const bool same_words = said == o.said.end() || said->second.empty() || said->second.front() == o.begun->variants;
  if (same_words) {
    if (const auto today = registry.configure_list(o.begun->variants)) {
      std::vector<std::string> names;
      for (const auto& variant : *today) names.push_back(variant->name().text());
      note = grown(o.begun->variants, o.out, then, names);
    }
    o.said.erase(variant_axis);
    o.axes[variant_axis] = {join(then, ",")};
  }
  if (Status same = same_goal(o); !same) return same;
  const auto grid = parse_grid(o.axes, registry);
  if (!grid) return grid.refusal();
  for (const GridLine& line : *grid) {
    if (Status same = refuse_others(o, line); !same) return same;
  }
  return {};
}

std::string resume_command(const std::string& program, const std::string& out) {
  return shell_quoted({program, "--out", out, "--resume"});
}

}  // namespace attn
