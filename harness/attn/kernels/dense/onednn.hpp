// oneDNN, single-threaded: the matrix product of a layer's projections and of unfused attention; attn_micro clocks it beside ours.
#pragma once

#include <string>

#include "attn/core/problem.hpp"

namespace attn::kernels {

enum class Transposed : bool { no, yes };

// c[m,n] = alpha * op(a) op(b) + beta * c, row-major, on the calling thread alone.
void sgemm(Transposed ta, Transposed tb, index_t m, index_t n, index_t k, float alpha, const float* a, index_t a_stride,
           const float* b, index_t b_stride, float beta, float* c, index_t c_stride);

// Has oneDNN generate its code now (about 7 MB), so that no run pays for it: for the plan of whoever calls sgemm.
void prepare_sgemm();

// The best instruction set that oneDNN may use, in its words: "sse41", "avx2", "avx512_core". What is chosen before the first product
// (core/isa.hpp) holds for the life of the process.
std::string onednn_isa();

std::string onednn_version();  // "2.6.3"
std::string onednn_runtime();  // "openmp", "tbb", "sequential" or "threadpool"

}  // namespace attn::kernels
