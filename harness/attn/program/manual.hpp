// What a program says of its flags, from their one declaration: --help, the man page, and what shells complete.
#pragma once

#include <cstddef>
#include <string>

#include "attn/core/result.hpp"

namespace CLI {  // NOLINT(readability-identifier-naming): the library's
class App;
}  // namespace CLI

namespace attn {

// Flags by group, docs wrapped, lines of at most `columns` letters; then the app's footer as it stands. A group without a name is hidden.
std::string help_text(const CLI::App& app, std::size_t columns = 80);

// For man(1), section 1; --help in other clothes.
std::string man_page(const CLI::App& app, const std::string& version);

// What bash, or zsh, loads to complete the flags and the words that a flag accepts; ids of variants are asked of attn_sweep.
std::string bash_completion(const CLI::App& app);
std::string zsh_completion(const CLI::App& app);

// The three in a folder as `share` below a prefix has them.
Status write_manual(const CLI::App& app, const std::string& version, const std::string& folder);

}  // namespace attn
