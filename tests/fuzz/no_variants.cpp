// The programs call the registration that is generated beside the variants. Its parsers need none of them.
#include "attn/variant/registry.hpp"

void attn::register_builtin_variants(Registry&) {}
