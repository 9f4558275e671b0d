// What `attn_sweep --list`, `--list ID` and `--columns` print.
#pragma once

#include <cstddef>
#include <string>

#include "attn/variant/registry.hpp"

namespace attn {

// An entry for each variant: id, title, cost and options, in lines of at most `columns` letters (0: any).
std::string list_text(const Registry& registry, std::size_t columns = 0);
// All of the variants that these names stand for: what --explain tells, options with ranges and docs, implementations.
Result<std::string> list_whole(const std::string& names, const Registry& registry, std::size_t columns = 0);
std::string list_ids(const Registry& registry);       // one a line, with those of implementations
std::string list_markdown(const Registry& registry);  // the family table of variants/README.md
std::string list_json(const Registry& registry);
// Lines that are longer go on below, a little to the right of where they begin.
std::string fitted(const std::string& text, std::size_t columns);
std::string shapes_text();  // the models of --shape
std::string columns_text();

}  // namespace attn
