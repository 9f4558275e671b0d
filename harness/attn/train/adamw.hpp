// AdamW: Loshchilov & Hutter 2017, arXiv:1711.05101, algorithm 2; with the gradient clipped by its norm over all parameters.
#pragma once

#include <vector>

#include "attn/layer/weights.hpp"

namespace attn {

struct AdamWSettings {
  double beta1 = 0.9, beta2 = 0.98, eps = 1e-8;
  double decay = 0.01;  // of matrices, not of vectors
  double clip = 1;      // largest norm of the gradient
};

class AdamW {
 public:
  explicit AdamW(AdamWSettings settings = {}) : settings_(settings) {}

  // One step: new values of the parameters, in the order of the gradients. Returns the norm before clipping.
  double step(std::vector<Tensor<float>>& parameters, const std::vector<Tensor<float>>& gradients, double rate);

 private:
  AdamWSettings settings_;
  index_t steps_ = 0;
  std::vector<std::vector<float>> mean_, square_;
};

// Linear warm-up over max(50, 5 %) of the steps, but no more than half of them, then a cosine to 0. Factor on the rate, step from
// 0.
double schedule(index_t step, index_t steps);

}  // namespace attn
