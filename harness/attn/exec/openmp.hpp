// OpenMP's say in where threads run, taken away. oneDNN may bring an OpenMP runtime along, which reads OMP_PLACES, OMP_PROC_BIND and
// GOMP_CPU_AFFINITY as it is loaded and binds the process's first thread to one place; all threads of the arena and all workers would
// inherit its mask, and --threads 2 would be two threads on one processor.
#pragma once

#include <string>
#include <vector>

namespace attn {

// Those variables of this process that were taken away, NAME=VALUE.
std::vector<std::string> dropped_openmp_binding();

}  // namespace attn

extern "C" {
// Takes these variables out of `environment`, which ends with a null pointer. To be called before any library's constructor runs, from
// an executable's .preinit_array (harness/apps/preinit.cpp): nothing is initialised then, so it calls nothing.
void attn_drop_openmp_binding(char** environment) noexcept;
}
