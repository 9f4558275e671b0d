#include "attn/program/manual.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <string_view>
#include <vector>

#include "attn/core/text.hpp"
#include "attn/record/sink.hpp"
#include "attn/record/terminal.hpp"

namespace attn {

namespace {

struct Flag {
  std::string names;               // "-q, --quiet"
  std::vector<std::string> longs;  // "--quiet"
  std::string value;               // of what kind; empty: a switch
  std::vector<std::string> words;  // that it accepts, where they are few
  std::string doc, group;
};

// "{none,rows,full}" of a type's name, as CLI11 prints a set.
std::vector<std::string> words_of(const std::string& type) {
  const auto begin = type.find('{'), end = type.find('}');
  if (begin == std::string::npos || end == std::string::npos) return {};
  std::vector<std::string> words;
  for (const auto word : split(std::string_view(type).substr(begin + 1, end - begin - 1), ',')) words.emplace_back(word);
  return words;
}

bool takes_variants(const Flag& flag) {
  static const std::vector<std::string> names{"--variants", "--variant", "--against", "--baseline", "--explain", "--list"};
  return std::ranges::any_of(flag.longs, [](const std::string& name) { return std::ranges::find(names, name) != names.end(); });
}

Flag flag_of(const CLI::Option& option) {
  Flag flag{.doc = option.get_description(), .group = option.get_group()};
  for (const auto& name : option.get_snames()) flag.names += (flag.names.empty() ? "-" : ", -") + name;
  for (const auto& name : option.get_lnames()) {
    flag.longs.push_back("--" + name);
    flag.names += (flag.names.empty() ? "--" : ", --") + name;
  }
  if (option.get_items_expected_max() > 0) {
    const std::string type = option.get_type_name();
    flag.words = words_of(type);
    flag.value = !flag.words.empty()                                   ? "WORD"
                 : type.starts_with("INT") || type.starts_with("UINT") ? "N"
                 : type.starts_with("FLOAT")                           ? "X"
                                                                       : "TEXT";
    const std::string usual = option.get_default_str();
    if (!flag.words.empty() && flag.doc.find(flag.words.front()) == std::string::npos) flag.doc += ": " + join(flag.words, ", ");
    if (!usual.empty() && usual != "\"\"" && flag.doc.find("default:") == std::string::npos) flag.doc += " [" + usual + "]";
  }
  return flag;
}

std::vector<Flag> flags_of(const CLI::App& app) {
  std::vector<Flag> flags;
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_group().empty()) flags.push_back(flag_of(*option));
  }
  return flags;
}

// In the order in which they were declared, but the one of --help, which CLI11 declares first, last.
std::vector<std::string> groups_of(const std::vector<Flag>& flags) {
  std::vector<std::string> groups;
  for (const Flag& flag : flags) {
    if (std::ranges::find(groups, flag.group) == groups.end()) groups.push_back(flag.group);
  }
  std::rotate(groups.begin(), groups.begin() + (groups.size() > 1 && flags.front().longs.front() == "--help" ? 1 : 0),
              groups.end());
  return groups;
}

std::string head_of(const Flag& flag) { return flag.names + (flag.value.empty() ? "" : " " + flag.value); }

std::string quoted(std::string text, std::string_view special, const std::string& before) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (special.find(text[i]) != std::string_view::npos) text.insert(i, before), i += before.size();
  }
  return text;
}

// roff reads '\' and '-' itself, and a '.' or ''' that begins a line.
std::string roff(const std::string& text) {
  const std::string escaped = quoted(text, "\\-", "\\");
  return escaped.starts_with('.') || escaped.starts_with('\'') ? "\\&" + escaped : escaped;
}

}  // namespace

std::string help_text(const CLI::App& app, std::size_t columns) {
  constexpr std::size_t beside = 24;  // where docs begin
  std::string text = app.get_name() + " [FLAGS]\n";
  for (const auto& line : wrapped(app.get_description(), columns)) text += line + "\n";
  const auto flags = flags_of(app);
  for (const std::string& group : groups_of(flags)) {
    text += "\n";
    for (const auto& line : wrapped(group, columns)) text += line + "\n";
    for (const Flag& flag : flags) {
      if (flag.group != group) continue;
      const std::string head = "  " + head_of(flag);
      auto lines = wrapped(flag.doc, columns - beside);
      if (lines.empty()) lines.emplace_back();
      const bool fits = head.size() + 2 <= beside;
      text += fits ? fmt::format("{:<{}}{}\n", head, beside, lines.front()) : head + "\n";
      for (std::size_t i = fits ? 1 : 0; i < lines.size(); ++i) text += std::string(beside, ' ') + lines[i] + "\n";
    }
  }
  return text + (app.get_footer().empty() ? "" : "\n" + app.get_footer() + "\n");
}

std::string man_page(const CLI::App& app, const std::string& version) {
  std::string upper = app.get_name();
  std::ranges::transform(upper, upper.begin(),
                         [](char c) { return static_cast<char>(std::toupper(static_cast<unsigned char>(c))); });
  std::string text =
      fmt::format(".TH {} 1 \"\" \"{}\" \"attnbench\"\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n.B {}\n[FLAGS]\n.SH FLAGS\n", upper,
                  version, roff(app.get_name()), roff(app.get_description()), roff(app.get_name()));
  const auto flags = flags_of(app);
  for (const std::string& group : groups_of(flags)) {
    text += ".SS " + roff(group) + "\n";
    for (const Flag& flag : flags) {
      if (flag.group == group) text += ".TP\n.B " + roff(head_of(flag)) + "\n" + roff(flag.doc) + "\n";
    }
  }
  text += ".SH NOTES\n.nf\n";
  const std::string footer = app.get_footer();
  for (const auto line : split(footer, '\n')) text += roff(std::string(line)) + "\n";
  return text + ".fi\n";
}

std::string bash_completion(const CLI::App& app) {
  std::vector<std::string> all, texts;
  std::string cases;
  for (const Flag& flag : flags_of(app)) {
    all.insert(all.end(), flag.longs.begin(), flag.longs.end());
    if (flag.value.empty()) continue;
    if (takes_variants(flag)) {
      cases += fmt::format(
          "    {}) COMPREPLY=($(compgen -P \"${{cur%\"${{cur##*,}}\"}}\" -W \"{}$(attn_sweep --list=ids 2>/dev/null)\" -- "
          "\"${{cur##*,}}\")); return ;;\n",
          join(flag.longs, "|"), flag.words.empty() ? "" : join(flag.words, " ") + " ");
    } else if (!flag.words.empty()) {
      cases += fmt::format("    {}) COMPREPLY=($(compgen -W '{}' -- \"$cur\")); return ;;\n", join(flag.longs, "|"),
                           join(flag.words, " "));
    } else {
      texts.insert(texts.end(), flag.longs.begin(), flag.longs.end());
    }
  }
  if (!texts.empty()) cases += "    " + join(texts, "|") + ") return ;;\n";
  return fmt::format(
      "# bash completion of {0}, from its flags\n_{0}() {{\n  local cur=${{COMP_WORDS[COMP_CWORD]}} "
      "prev=${{COMP_WORDS[COMP_CWORD-1]}}\n"
      "  COMPREPLY=()\n  case $prev in\n{1}  esac\n  COMPREPLY=($(compgen -W '{2}' -- \"$cur\"))\n}}\ncomplete -o default -F _{0} "
      "{0}\n",
      app.get_name(), cases, join(all, " "));
}

std::string zsh_completion(const CLI::App& app) {
  std::string specs;
  for (const Flag& flag : flags_of(app)) {
    for (const std::string& name : flag.longs) {
      const std::string doc = quoted(quoted(flag.doc, "\\[]:", "\\"), "'", "'\\'");
      std::string action;
      if (!flag.value.empty())
        action = takes_variants(flag) ? ":variant:_attn_variants"
                 : flag.words.empty() ? ":value:_files"
                                      : ":word:(" + join(flag.words, " ") + ")";
      specs += fmt::format(" \\\n    '*{}[{}]{}'", name, doc, action);
    }
  }
  return fmt::format(
      "#compdef {0}\n# zsh completion of {0}, from its flags\n_attn_variants() {{\n  local -a ids\n"
      "  ids=(${{(f)\"$(attn_sweep --list=ids 2>/dev/null)\"}})\n  _sequence compadd - $ids\n}}\n_{0}() {{\n  "
      "_arguments{1}\n}}\n_{0} \"$@\"\n",
      app.get_name(), specs);
}

Status write_manual(const CLI::App& app, const std::string& version, const std::string& folder) {
  const std::filesystem::path share(folder);
  const std::string& name = app.get_name();
  for (const auto& [place, text] : {std::pair{share / "man/man1" / (name + ".1"), man_page(app, version)},
                                    std::pair{share / "bash-completion/completions" / name, bash_completion(app)},
                                    std::pair{share / "zsh/site-functions" / ("_" + name), zsh_completion(app)}}) {
    std::error_code failed;
    std::filesystem::create_directories(place.parent_path(), failed);
    if (failed) return refuse("making '" + place.parent_path().string() + "' failed: " + failed.message());
    if (Status status = write_file(place.string(), text); !status) return status;
  }
  return {};
}

}  // namespace attn
