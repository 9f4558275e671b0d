#include "attn/kernels/dense/onednn.hpp"

#include <dnnl.h>
#include <dnnl_debug.h>

#include <vector>

#include "attn/core/assert.hpp"
#include "attn/core/isa.hpp"

// Present when oneDNN runs on OpenMP.
extern "C" __attribute__((weak)) void omp_set_num_threads(int);

namespace attn::kernels {

namespace {

// OpenMP keeps its number of threads for each calling thread, so each has to be told once: no team of its own.
void stay_alone() {
  thread_local const bool told = [] {
    if (omp_set_num_threads != nullptr) omp_set_num_threads(1);
    return true;
  }();
  static_cast<void>(told);
}

// oneDNN takes a limit before its first product only. Its least is SSE4.1; where it can be limited to nothing (ARM, builds without
// the choice) it says so, and does as it likes.
void obey_isa() {
  [[maybe_unused]] static const dnnl_status_t once = [] {
    switch (chosen_isa()) {
      case Isa::scalar: return dnnl_set_max_cpu_isa(dnnl_cpu_isa_sse41);
      case Isa::avx2: return dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2);
      default: return dnnl_success;
    }
  }();
}

}  // namespace

void sgemm(Transposed ta, Transposed tb, index_t m, index_t n, index_t k, float alpha, const float* a, index_t a_stride,
           const float* b, index_t b_stride, float beta, float* c, index_t c_stride) {
  stay_alone();
  obey_isa();
  const auto letter = [](Transposed t) { return t == Transposed::yes ? 'T' : 'N'; };
  const auto status = dnnl_sgemm(letter(ta), letter(tb), m, n, k, alpha, a, a_stride, b, b_stride, beta, c, c_stride);
  ATTN_ASSERT(status == dnnl_success);
}

void prepare_sgemm() {
  constexpr index_t n = 64;
  std::vector<float> a(n * n), b(n * n), c(n * n);
  for (const Transposed tb : {Transposed::no, Transposed::yes}) {
    sgemm(Transposed::no, tb, n, n, n, 1, a.data(), n, b.data(), n, 0, c.data(), n);
  }
}

std::string onednn_isa() {
  obey_isa();
  const std::string name = dnnl_cpu_isa2str(dnnl_get_effective_cpu_isa());
  const std::string prefix = "cpu_isa_";
  return name.starts_with(prefix) ? name.substr(prefix.size()) : name;
}

std::string onednn_version() {
  const auto* v = dnnl_version();
  return std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
}

std::string onednn_runtime() {
  switch (dnnl_version()->cpu_runtime) {
    case DNNL_RUNTIME_SEQ: return "sequential";
    case DNNL_RUNTIME_OMP: return "openmp";
    case DNNL_RUNTIME_TBB: return "tbb";
    case DNNL_RUNTIME_THREADPOOL: return "threadpool";
    default: return "unknown";
  }
}

}  // namespace attn::kernels
