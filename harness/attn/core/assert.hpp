// Bugs assert; refusals are values (result.hpp). ATTN_ASSERT stays on in every build type: it guards plan-time and
// per-task code only, never a vector loop.
#pragma once

#include <cstdio>
#include <cstdlib>

#define ATTN_ASSERT(condition)        \
  ((condition) ? static_cast<void>(0) \
               : (std::fprintf(stderr, "%s:%d: assertion failed: %s\n", __FILE__, __LINE__, #condition), std::abort()))
