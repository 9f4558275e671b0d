#include "attn/inputs/features.hpp"

#include <algorithm>
#include <cmath>

#include "attn/core/rng.hpp"
#include "attn/inputs/projection.hpp"

namespace attn {

namespace {

class FeatureInput final : public Input {
 public:
  FeatureInput(std::string name, Features features) : Input(std::move(name)), features_(std::move(features)) {}

  std::string note(const Problem& p) const override {
    const index_t needed = p.batch * sequence_length(p);
    if (needed <= features_.count) return {};
    return std::to_string(features_.count) + " " + features_.noun + " are repeated to make " + std::to_string(needed);
  }

  TokenPicture picture(const Problem& p, const std::vector<InputSpec>&, std::uint64_t) const override {
    TokenPicture picture{.columns = features_.columns};
    const index_t first = sequence_length(p) - p.kv_len;
    for (index_t j = 0; features_.columns > 0 && j < p.kv_len; ++j) {
      const auto colour = features_.colours.begin() + (first + j) % features_.count * 3;
      picture.colours.insert(picture.colours.end(), colour, colour + 3);
    }
    return picture;
  }

 protected:
  Status fill(const Problem& p, std::uint64_t seed, const Tensors& tensors) const override {
    const PackedMatrix weights = xavier(features_.size, model_width(p), Rng(seed, "feature embedding"));
    const auto embed = [&](index_t batch, index_t first, index_t count, float* x) {
      std::vector<float> rows(static_cast<std::size_t>(count * features_.size));
      for (index_t i = 0; i < count; ++i) {
        const index_t row = (batch * sequence_length(p) + first + i) % features_.count;
        std::copy_n(&features_.values[static_cast<std::size_t>(row * features_.size)], features_.size,
                    &rows[static_cast<std::size_t>(i * features_.size)]);
      }
      weights.multiply(rows.data(), count, x);
    };
    project(p, seed, embed, tensors);
    return {};
  }

 private:
  Features features_;
};

}  // namespace

void standardise(std::vector<float>& values) {
  const auto count = static_cast<double>(values.size());
  double sum = 0;
  double square = 0;
  for (const float x : values) sum += static_cast<double>(x);
  const double mean = sum / count;
  for (const float x : values) square += (static_cast<double>(x) - mean) * (static_cast<double>(x) - mean);
  const double scale = square / count > 1e-12 * mean * mean ? 1 / std::sqrt(square / count) : 0;  // less is rounding
  for (float& x : values) x = static_cast<float>((static_cast<double>(x) - mean) * scale);
}

std::unique_ptr<Input> feature_input(std::string name, Features features) {
  ATTN_ASSERT(features.count >= 1 && features.size >= 1);
  return std::make_unique<FeatureInput>(std::move(name), std::move(features));
}

}  // namespace attn
