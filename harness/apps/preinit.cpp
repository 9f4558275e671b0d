// Before any shared library of the process is initialised.
#include "attn/exec/openmp.hpp"

namespace {

using Preinit = void (*)(int, char**, char**);

[[gnu::section(".preinit_array"), gnu::used]] constinit const Preinit drop_openmp_binding = [](int, char**, char** environment) {
  attn_drop_openmp_binding(environment);
};

}  // namespace
