// Learned tensors and random tables of a variant: declared by name and shape, filled from a seed or fitted to Q, K and V, handed
// to the definition and to the fast path alike.
#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "attn/algebra/algebra.hpp"
#include "attn/core/array.hpp"
#include "attn/core/result.hpp"
#include "attn/core/rng.hpp"
#include "attn/core/view.hpp"

namespace attn {

// Fills a row-major tensor of the declared shape. Index tables hold whole numbers, exact in float up to 2^24.
using Init = std::function<void(std::span<float> values, const Shape& shape, const Rng& rng)>;
// Likewise, from the Q, K and V that a run is about to read. The same values for any number of threads.
using Fit = std::function<void(std::span<float> values, const Shape& shape, const FloatArrays& in)>;
// Whether values that a user gives, finite ones, can be this tensor; what is wrong with which element.
using Check = std::function<Status(std::span<const float> values)>;

namespace init {
Init zeros();
Init constant(double value);
Init normal(double std);
Init uniform(double bound);                            // [-bound, bound]
Init xavier_uniform(index_t fan_in, index_t fan_out);  // Glorot & Bengio 2010: bound sqrt(6/(fan_in+fan_out))
Init identity();                                       // ones on the diagonal of the last two axes
}  // namespace init

Check whole_numbers(index_t least, index_t most);  // of an index table

struct ParameterSpec {
  std::string name;
  Shape shape;
  Init init;
  bool trainable = true;  // false: a random table that training leaves alone
  Fit fit = nullptr;      // replaces what `init` gives, where there are inputs before a run: not in a layer
  Check check = nullptr;  // null: any numbers will do
  // For people: what each axis counts, by the words of Problem and of options, such as "heads, head_dim, 2 window - 1", where L is
  // max_len or, where that is 0, q_len; which way round it is read, and in what order.
  std::string axes = {}, doc = {};
};

using Parameters = std::vector<ParameterSpec>;

template <class T>
class ParameterSet {
 public:
  // The parameter must have been declared.
  const Tensor<T>& operator[](std::string_view name) const {
    const auto found = tensors_.find(name);
    ATTN_ASSERT(found != tensors_.end());
    return found->second;
  }
  template <std::size_t R>
  View<const T, R> view(std::string_view name) const {
    const Tensor<T>& tensor = (*this)[name];
    ATTN_ASSERT(tensor.shape().size() == R);
    std::array<index_t, R> extents{};
    for (std::size_t r = 0; r < R; ++r) extents[r] = tensor.shape()[r];
    return {tensor.data(), extents};
  }
  void set(std::string name, Tensor<T> tensor) { tensors_.insert_or_assign(std::move(name), std::move(tensor)); }
  const std::map<std::string, Tensor<T>, std::less<>>& all() const { return tensors_; }

 private:
  std::map<std::string, Tensor<T>, std::less<>> tensors_;
};

// Where a backward pass writes the gradients of the trainable parameters: every element, zeros where a parameter was not used.
class ParameterGradients {
 public:
  explicit ParameterGradients(const Parameters& specs);

  // The parameter must be trainable.
  template <std::size_t R>
  View<float, R> view(std::string_view name) const {
    const auto found = arrays_.find(name);
    ATTN_ASSERT(found != arrays_.end() && found->second.shape().size() == R);
    std::array<index_t, R> extents{};
    std::copy_n(found->second.shape().begin(), R, extents.begin());
    return {found->second.data, extents};
  }
  Tensor<float> operator[](std::string_view name) const;  // shares the elements: copy it to keep it beyond the next pass

 private:
  struct Entry {
    Elements<float> array;
    float* data;
    const Shape& shape() const { return array.shape(); }
  };
  std::map<std::string, Entry, std::less<>> arrays_;
};

// The tensors that a variant fits, and only those, fitted to `in`, on the threads of the caller's arena. Takes seconds on long
// sequences.
ParameterSet<float> fit_parameters(const Parameters& specs, const Arrays& in);
// Each tensor draws from its own stream of `seed`, named after it; those in `fitted` are copied from there.
ParameterSet<float> make_parameters(const Parameters& specs, std::uint64_t seed, const ParameterSet<float>& fitted = {});
ParameterSet<double> widen(const ParameterSet<float>& parameters);
index_t parameter_bytes(const Parameters& specs);

}  // namespace attn
