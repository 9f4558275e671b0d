// How every program reads its options: flags, ATTN_* variables and a TOML file under the same names.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"
#include "attn/variant/plugin.hpp"

namespace CLI {  // NOLINT(readability-identifier-naming): the library's
class App;
class Option;
}  // namespace CLI

namespace attn {

struct FlagsEnd {
  bool exit = false;  // instead of running
  int exit_code = 0;
  std::string text;  // what to print before an exit: help to stdout (code 0), a refusal to stderr
};

// Adds --config, then fills what `app` declares. Precedence: flag, then variable, then --config file, then `beneath` (flags too), then
// default. Flags of the names `repeatable` may be given several times; sources that name one do not mix. A variable without text is
// none; --head_dim and a key head_dim are --head-dim.
FlagsEnd read_flags(CLI::App& app, const std::vector<std::string>& given, const std::vector<std::string>& repeatable,
                    const std::vector<std::string>& beneath = {});

// Tells on stderr of variables that begin with ATTN_ and that neither a flag of `app` nor anything else of attnbench reads.
void tell_of_unknown_variables(const CLI::App& app);

// --NAME TEXT, of which the last counts; --NAME TEXT that may be given several times; --NAME, of which the last counts.
void add_text(CLI::App& app, const char* name, std::string& value, const char* doc, const char* group);
void add_texts(CLI::App& app, const char* name, std::vector<std::string>& values, const char* doc, const char* group);
void add_switch(CLI::App& app, const char* names, bool& value, const char* doc, const char* group);

// --NAME, which alone says yes, or --NAME TEXT; of several the last counts.
void add_yes_or_text(CLI::App& app, const std::string& name, const std::function<void(const std::string&)>& take,
                     const std::string& doc, const char* group);

// --prefer plugin: whether a plugin's variant stands for the tree's of the same id.
void add_prefer(CLI::App& app, std::string& prefer, const char* group);
Prefer prefer_from(const std::string& prefer);  // as that flag takes it, or empty

// Values of `option` are numbers from `least` to `most`. CLI::Range would let nan pass.
void accept_from_to(CLI::Option& option, double least, double most);

// The least --timeout, a millisecond: no worker starts in less, and none is a limit that lets nothing run.
inline constexpr double least_timeout_s = 1e-3;

// Bytes that --memory-limit grants a worker, at least 16M. Without one (""), the workers that run at a time share four fifths of what
// is available.
Result<index_t> read_memory_limit(const std::string& given, int workers = 1);

// The text of a TOML file as flags, "--name=value". A list is joined by commas, except where a flag may be given several times.
// Refusals name `path`.
Result<std::vector<std::string>> config_arguments(std::string_view text, const std::string& path,
                                                  const std::vector<std::string>& repeatable);

}  // namespace attn
