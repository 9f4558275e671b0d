#include "attn/train/adamw.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace attn {

double AdamW::step(std::vector<Tensor<float>>& parameters, const std::vector<Tensor<float>>& gradients, double rate) {
  ATTN_ASSERT(parameters.size() == gradients.size());
  if (mean_.empty()) {
    for (const auto& p : parameters) {
      mean_.emplace_back(static_cast<std::size_t>(p.size()), 0.0f);
      square_.emplace_back(static_cast<std::size_t>(p.size()), 0.0f);
    }
  }
  ++steps_;
  double square_norm = 0;
  for (const auto& g : gradients) {
    for (const float value : g.values()) square_norm += static_cast<double>(value) * static_cast<double>(value);
  }
  const double norm = std::sqrt(square_norm);
  const auto scale = static_cast<float>(norm > settings_.clip ? settings_.clip / norm : 1);
  const auto beta1 = static_cast<float>(settings_.beta1), beta2 = static_cast<float>(settings_.beta2);
  const auto t = static_cast<double>(steps_);
  const auto rate1 = static_cast<float>(rate / (1 - std::pow(settings_.beta1, t)));
  const auto correction2 = static_cast<float>(1 / (1 - std::pow(settings_.beta2, t)));
  const auto eps = static_cast<float>(settings_.eps);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Tensor<float>& p = parameters[i];
    const float* g = gradients[i].data();
    float* m = mean_[i].data();
    float* s = square_[i].data();
    const auto keep = static_cast<float>(1 - rate * (p.rank() >= 2 ? settings_.decay : 0));
    Elements<float> next(p.shape());
    float* out = next.writable();
    for (index_t j = 0; j < p.size(); ++j) {
      const float gradient = scale * g[j];
      m[j] = beta1 * m[j] + (1 - beta1) * gradient;
      s[j] = beta2 * s[j] + (1 - beta2) * gradient * gradient;
      out[j] = keep * p.data()[j] - rate1 * m[j] / (std::sqrt(s[j] * correction2) + eps);
    }
    parameters[i] = Tensor<float>(std::move(next));
  }
  return norm;
}

double schedule(index_t step, index_t steps) {
  const auto warm = static_cast<double>(std::min(std::max<index_t>(50, steps / 20), steps / 2));
  const auto at = static_cast<double>(step) + 1;
  if (at < warm) return at / warm;
  return 0.5 * (1 + std::cos(std::numbers::pi * (at - warm) / (static_cast<double>(steps) - warm + 1)));
}

}  // namespace attn
