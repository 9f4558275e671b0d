// What `attn_sweep --list` and `--columns` print.
#pragma once

#include <string>

#include "attn/variant/registry.hpp"

namespace attn {

std::string list_text(const Registry& registry);
std::string list_markdown(const Registry& registry);  // the family table of variants/README.md
std::string list_json(const Registry& registry);
std::string shapes_text();  // the models of --shape
std::string columns_text();

}  // namespace attn
