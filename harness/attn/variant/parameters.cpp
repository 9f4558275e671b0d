#include "attn/variant/parameters.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace attn {

namespace init {

namespace {

template <class F>
Init each(F value) {
  return [value](std::span<float> values, const Shape&, const Rng& rng) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(value(rng, static_cast<index_t>(i)));
  };
}

}  // namespace

Init zeros() { return constant(0); }

Init constant(double value) {
  return each([value](const Rng&, index_t) { return value; });
}

Init normal(double std) {
  return each([std](const Rng& rng, index_t i) { return std * rng.normal(i); });
}

Init uniform(double bound) {
  return each([bound](const Rng& rng, index_t i) { return bound * (2 * rng.uniform(i) - 1); });
}

Init xavier_uniform(index_t fan_in, index_t fan_out) { return uniform(std::sqrt(6.0 / static_cast<double>(fan_in + fan_out))); }

Init identity() {
  return [](std::span<float> values, const Shape& shape, const Rng&) {
    ATTN_ASSERT(shape.size() >= 2);
    const index_t columns = shape.back();
    const index_t rows = shape[shape.size() - 2];
    for (std::size_t i = 0; i < values.size(); ++i) {
      const index_t cell = static_cast<index_t>(i) % (rows * columns);
      values[i] = cell / columns == cell % columns ? 1.0f : 0.0f;
    }
  };
}

}  // namespace init

Check whole_numbers(index_t least, index_t most) {
  return [=](std::span<const float> values) -> Status {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float x = values[i];
      if (x >= static_cast<float>(least) && x <= static_cast<float>(most) && x == std::floor(x)) continue;
      return refuse("element " + std::to_string(i) + " is no whole number from " + std::to_string(least) + " to " +
                    std::to_string(most));
    }
    return {};
  };
}

ParameterGradients::ParameterGradients(const Parameters& specs) {
  for (const auto& spec : specs) {
    if (!spec.trainable) continue;
    Elements<float> array(spec.shape);
    float* const data = array.writable();
    std::fill_n(data, array.size(), std::numeric_limits<float>::quiet_NaN());  // what a pass forgets to write shows
    arrays_.emplace(spec.name, Entry{std::move(array), data});
  }
}

Tensor<float> ParameterGradients::operator[](std::string_view name) const {
  const auto found = arrays_.find(name);
  ATTN_ASSERT(found != arrays_.end());
  return Tensor<float>(found->second.array);
}

ParameterSet<float> fit_parameters(const Parameters& specs, const Arrays& in) {
  ParameterSet<float> set;
  if (std::ranges::none_of(specs, [](const ParameterSpec& spec) { return spec.fit != nullptr; })) return set;
  const AsFloats floats(in);
  for (const auto& spec : specs) {
    if (!spec.fit) continue;
    Elements<float> values(spec.shape);
    spec.fit({values.writable(), static_cast<std::size_t>(values.size())}, spec.shape, floats.views());
    set.set(spec.name, Tensor<float>(std::move(values)));
  }
  return set;
}

ParameterSet<float> make_parameters(const Parameters& specs, std::uint64_t seed, const ParameterSet<float>& fitted) {
  ParameterSet<float> set;
  for (const auto& spec : specs) {
    Elements<float> values(spec.shape);
    const std::span<float> to(values.writable(), static_cast<std::size_t>(values.size()));
    if (const auto found = fitted.all().find(spec.name); found != fitted.all().end()) {
      std::ranges::copy(found->second.values(), to.begin());
    } else {
      spec.init(to, spec.shape, Rng(seed, "parameter " + spec.name));
    }
    set.set(spec.name, Tensor<float>(std::move(values)));
  }
  return set;
}

ParameterSet<double> widen(const ParameterSet<float>& parameters) {
  ParameterSet<double> wide;
  for (const auto& [name, tensor] : parameters.all()) wide.set(name, cast<double>(tensor));
  return wide;
}

index_t parameter_bytes(const Parameters& specs) {
  index_t bytes = 0;
  for (const auto& spec : specs) bytes += bytes_of(DType::f32, volume(spec.shape));
  return bytes;
}

}  // namespace attn
