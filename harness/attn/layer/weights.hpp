// The parameters of a model by part: "layer0.mixer.E" is E of the mixer of layer 0.
#pragma once

#include <string>
#include <string_view>

#include "attn/variant/parameters.hpp"

namespace attn {

inline std::string numbered(const std::string& part, index_t i) { return part + std::to_string(i); }

// What a part declares, under the part's name.
inline void declare(Parameters& all, const std::string& part, Parameters own) {
  for (ParameterSpec& spec : own) {
    spec.name = part + "." + spec.name;
    all.push_back(std::move(spec));
  }
}

// A part's view of all parameters, by its own names. The set must outlive it.
template <class T>
class Weights {
 public:
  explicit Weights(const ParameterSet<T>& all, std::string prefix = "") : all_(&all), prefix_(std::move(prefix)) {}

  const Tensor<T>& operator[](std::string_view name) const { return (*all_)[prefix_ + std::string(name)]; }
  Weights of(const std::string& part) const { return Weights(*all_, prefix_ + part + "."); }

  ParameterSet<T> set() const {
    ParameterSet<T> own;
    for (auto i = all_->all().lower_bound(prefix_); i != all_->all().end() && i->first.rfind(prefix_, 0) == 0; ++i) {
      own.set(i->first.substr(prefix_.size()), i->second);
    }
    return own;
  }

 private:
  const ParameterSet<T>* all_;
  std::string prefix_;
};

}  // namespace attn
