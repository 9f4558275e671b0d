#include "attn/program/flags.hpp"

#include <fmt/format.h>
#include <toml++/toml.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "attn/cell/values.hpp"
#include "attn/core/text.hpp"
#include "attn/measure/memory.hpp"
#include "attn/program/manual.hpp"
#include "attn/record/sink.hpp"
#include "attn/record/terminal.hpp"

namespace attn {

namespace {

std::string variable_name(const std::string& flag) {
  std::string name = "ATTN_";
  for (const char c : flag) name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

bool holds(const std::vector<std::string>& list, const std::string& name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

// `--name=`, for whose value CLI11 would take the next argument, or `--name ''`.
bool lacks_value(const std::vector<std::string>& arguments, std::size_t at) {
  const std::string& flag = arguments[at];
  const bool before_nothing = at + 1 < arguments.size() && arguments[at + 1].empty() && flag.find('=') == std::string::npos;
  return flag.starts_with("--") && (before_nothing || flag.find('=') == flag.size() - 1);
}

// What a variable holds, or null where it is not set or empty.
const char* variable(const std::string& flag) {
  const char* value = std::getenv(variable_name(flag).c_str());
  return value != nullptr && *value != '\0' ? value : nullptr;
}

// --name=value for everything that a variable sets.
std::vector<std::string> from_environment(const CLI::App& app) {
  std::vector<std::string> arguments;
  for (const CLI::Option* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) {
      if (name == "help" || name == "config") continue;
      if (const char* value = variable(name)) arguments.push_back(fmt::format("--{}={}", name, value));
    }
  }
  return arguments;
}

Result<std::string> as_text(const toml::node& node, const std::string& key) {
  if (const auto* s = node.as_string()) return s->get();
  if (const auto* i = node.as_integer()) return std::to_string(i->get());
  if (const auto* f = node.as_floating_point()) return format_number(f->get());
  if (const auto* b = node.as_boolean()) return std::string(b->get() ? "true" : "false");
  return refuse("config key '" + key + "' is neither text, number, truth value nor a list of these");
}

std::vector<std::string> names_of_flags(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) names.push_back(name);
  }
  return names;
}

std::string without_value(const std::string& argument) { return argument.substr(0, argument.find('=')); }

std::string closest_flag(const CLI::App& app, const std::string& given) {
  std::vector<std::string> names = names_of_flags(app);
  for (std::string& name : names) name.insert(0, "--");
  return nearest(without_value(given), names);
}

// --head_dim as --head-dim, where there is such a flag.
std::string with_dashes(const CLI::App& app, const std::string& argument) {
  std::string flag = without_value(argument);
  if (!flag.starts_with("--") || flag.find('_') == std::string::npos) return argument;
  std::replace(flag.begin(), flag.end(), '_', '-');
  return app.get_option_no_throw(flag) == nullptr ? argument : flag + argument.substr(flag.size());
}

// Keys that no flag has: CLI11 would name the flag, which the user did not write.
Status known_keys(const CLI::App& app, const std::vector<std::string>& arguments, const std::string& path) {
  for (const std::string& argument : arguments) {
    const std::string flag = without_value(with_dashes(app, argument));
    if (app.get_option_no_throw(flag) != nullptr) continue;
    const std::string close = closest_flag(app, flag);
    return refuse("config key '" + flag.substr(2) + "' of '" + path + "' is no flag" +
                  (close.empty() ? "" : ", did you mean '" + close.substr(2) + "'?") + " (--help names them all)");
  }
  return {};
}

Result<std::vector<std::string>> from_config(const CLI::App& app, const std::string& path,
                                             const std::vector<std::string>& repeatable) {
  const auto text = read_file(path);
  if (!text) return refuse("config file: " + text.reason());
  auto arguments = config_arguments(*text, path, repeatable);
  if (!arguments) return arguments;
  if (Status known = known_keys(app, *arguments, path); !known) return known.refusal();
  return arguments;
}

// 80, and less on a terminal that is narrower.
std::size_t help_columns() {
  const std::size_t columns = terminal_columns(STDOUT_FILENO);
  return columns == any_width ? 80 : std::clamp<std::size_t>(columns, 48, 80);
}

FlagsEnd usage(const CLI::App& app, const std::string& reason) { return {true, 2, app.get_name() + ": " + reason + "\n"}; }

// What this line of a config holds that flags do not need, or null. toml++ 3.3 must not see it: a table's header without a name
// is an assertion there, a letter beyond ASCII outside quotes is undefined behaviour.
const char* beyond_a_flat_list(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (trim(line).starts_with('[')) return "a table";
  if (std::any_of(line.begin(), line.end(), [](char c) { return c != '\t' && static_cast<unsigned char>(c) < ' '; }))
    return "a control character";
  char quote = 0;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quote != 0) {
      if (c == '\\' && quote == '"') ++i;
      if (c == quote) quote = 0;
    } else if (c == '#') {
      break;
    } else if (c == '"' || c == '\'') {
      if (line.substr(i, 3) == std::string(3, c)) return "a text of several lines";
      quote = c;
    } else if (static_cast<unsigned char>(c) >= 0x80) {
      return "a letter beyond ASCII outside quotes";
    }
  }
  return nullptr;
}

}  // namespace

Result<std::vector<std::string>> config_arguments(std::string_view text, const std::string& path,
                                                  const std::vector<std::string>& repeatable) {
  const auto lines = split(text, '\n');
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (const char* what = beyond_a_flat_list(lines[i]); what != nullptr) {
      return refuse("config file '" + path + "' has " + what + " in line " + std::to_string(i + 1) + "; accepted: key = value");
    }
  }
  std::vector<std::string> arguments;
  try {
    const toml::table file = toml::parse(text);
    for (const auto& [key, node] : file) {
      const std::string name(key.str());
      std::vector<std::string> values;
      if (const auto* list = node.as_array()) {
        for (const auto& element : *list) {
          auto value = as_text(element, name);
          if (!value) return value.refusal();
          values.push_back(*std::move(value));
        }
      } else {
        auto value = as_text(node, name);
        if (!value) return value.refusal();
        values.push_back(*std::move(value));
      }
      if (name == "config") return refuse("config file '" + path + "' names another config file");
      if (!holds(repeatable, name)) values = {join(values, ",")};
      for (const auto& value : values) {
        if (value.empty())
          return refuse(fmt::format("config key '{}' of '{}' is empty; without the key its default stands", name, path));
        arguments.push_back(fmt::format("--{}={}", name, value));
      }
    }
  } catch (const toml::parse_error& e) {
    return refuse("config file '" + path + "' cannot be read: " + std::string(e.description()) + " (line " +
                  std::to_string(e.source().begin.line) + ")");
  }
  return arguments;
}

void add_text(CLI::App& app, const char* name, std::string& value, const char* doc, const char* group) {
  app.add_option(std::string("--") + name, value, doc)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
      ->group(group)
      ->capture_default_str();
}

void add_texts(CLI::App& app, const char* name, std::vector<std::string>& values, const char* doc, const char* group) {
  app.add_option(std::string("--") + name, values, doc)
      ->group(group)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void add_switch(CLI::App& app, const char* names, bool& value, const char* doc, const char* group) {
  app.add_flag(names, value, doc)->group(group)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

void add_yes_or_text(CLI::App& app, const std::string& name, const std::function<void(const std::string&)>& take,
                     const std::string& doc, const char* group) {
  app.add_option_function<std::string>("--" + name, take, doc)
      ->expected(0, 1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
      ->group(group)
      ->default_str("yes");  // which CLI11 hands over where no text follows
}

void add_prefer(CLI::App& app, std::string& prefer, const char* group) {
  app.add_option("--prefer", prefer, "plugin: where a plugin and the tree have a variant of one id, the plugin's stands")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
      ->check(CLI::IsMember({"plugin"}))
      ->group(group);
}

Prefer prefer_from(const std::string& prefer) { return prefer == "plugin" ? Prefer::plugin : Prefer::neither; }

void accept_from_to(CLI::Option& option, double least, double most) {
  const std::string accepted = format_number(least) + " to " + format_number(most);
  const auto refusal = [=](const std::string& text) {
    const auto value = parse_number(text);
    return value && *value >= least && *value <= most ? "" : "'" + text + "' is given, a number from " + accepted + " is accepted";
  };
  option.check(refusal, accepted);
}

// Tried: the loader of a worker dies below 1M, its libraries find no memory in 4M, --verify runs a small variant in 16M.
constexpr index_t least_memory_limit_bytes = index_t{16} << 20;

Result<index_t> read_memory_limit(const std::string& given, int workers) {
  if (given.empty()) return default_memory_limit_bytes() / workers;
  const auto bytes = parse_bytes(given);
  if (!bytes) return refuse("--memory-limit: " + bytes.reason());
  if (*bytes < least_memory_limit_bytes) return refuse("--memory-limit: '" + given + "' is given, 16M and more is accepted");
  return *bytes;
}

FlagsEnd read_flags(CLI::App& app, const std::vector<std::string>& given, const std::vector<std::string>& repeatable,
                    const std::vector<std::string>& beneath) {
  std::string config;
  app.add_option("--config", config, "TOML file with the same names")->group("Output");
  for (std::size_t i = 0; i < given.size(); ++i) {
    if (lacks_value(given, i)) return usage(app, given[i] + " has no value; left out, its default stands");
  }
  std::string manual;
  app.add_option("--manual", manual, "folder for man page and completion")->group("");
  app.footer(app.get_footer() + (app.get_footer().empty() ? "" : "\n\n") +
             "Every flag is also a variable (--head-dim: ATTN_HEAD_DIM) and a key of the\n--config file; the flag wins, then the "
             "variable.");

  // A flag given further right wins: file, then variables, then the command line itself. Repeatable flags do not mix:
  // the rightmost source that names one is the only one heard.
  std::vector<std::vector<std::string>> sources{beneath};
  for (std::size_t i = 0; i < given.size(); ++i) {
    std::string path;
    if (given[i].rfind("--config=", 0) == 0) path = given[i].substr(9);
    if (given[i] == "--config" && i + 1 < given.size()) path = given[i + 1];
    if (path.empty()) continue;
    auto arguments = from_config(app, path, repeatable);
    if (!arguments) return usage(app, arguments.reason());
    sources.push_back(*std::move(arguments));
  }
  if (const char* path = variable("config"); path != nullptr && sources.size() == 1) {
    auto arguments = from_config(app, path, repeatable);
    if (!arguments) return usage(app, arguments.reason());
    sources.push_back(*std::move(arguments));
  }
  sources.push_back(from_environment(app));
  sources.push_back(given);
  for (auto& source : sources) {
    for (auto& argument : source) argument = with_dashes(app, argument);
  }
  std::vector<std::string> arguments;
  for (auto source = sources.begin(); source != sources.end(); ++source) {
    for (const auto& argument : *source) {
      const std::string flag = argument.substr(0, argument.find('='));
      const bool overruled = flag.rfind("--", 0) == 0 && holds(repeatable, flag.substr(2)) &&
                             std::any_of(source + 1, sources.end(), [&](const auto& later) {
                               return std::any_of(later.begin(), later.end(), [&](const auto& other) {
                                 return other == flag || other.rfind(flag + "=", 0) == 0;
                               });
                             });
      if (!overruled) arguments.push_back(argument);
    }
  }

  tell_of_unknown_variables(app);
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes the vector from its back
  try {
    app.parse(arguments);
  } catch (const CLI::CallForHelp&) {
    return {true, 0, help_text(app, help_columns())};
  } catch (const CLI::ExtrasError& e) {
    for (const auto& argument : given) {
      const std::string close = closest_flag(app, argument);
      if (argument.rfind("--", 0) == 0 && app.get_option_no_throw(argument.substr(0, argument.find('='))) == nullptr) {
        return usage(
            app, "unknown flag " + argument + (close.empty() ? "" : ", did you mean " + close + "?") + " (--help names them all)");
      }
    }
    return usage(app, std::string(e.what()) + " (--help names all flags)");
  } catch (const CLI::ParseError& e) {
    return usage(app, e.what());
  }
  if (manual.empty()) return {};
  const Status written = write_manual(app, "attnbench " ATTN_VERSION, manual);
  return written ? FlagsEnd{true, 0, ""} : usage(app, "--manual: " + written.reason());
}

}  // namespace attn
