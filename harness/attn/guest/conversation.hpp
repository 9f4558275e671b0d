// The questions that a guest answers (scripts/guests/README.md), typed.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "attn/core/array.hpp"
#include "attn/guest/folder.hpp"
#include "attn/guest/process.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// A tensor at the door: row-major elements of one of NumPy's types, '<f4', '<f8', '<f2', or '<u2' for the bits of bf16.
struct GuestTensor {
  std::string name, descr, dtype;
  std::vector<index_t> shape;
  std::string bytes = {};
};
GuestTensor guest_tensor(std::string name, const Array& array);  // densely, whatever the strides
template <class T>
GuestTensor guest_tensor(std::string name, const Tensor<T>& tensor) {
  const auto values = std::as_bytes(tensor.values());
  return {std::move(name), sizeof(T) == 8 ? "<f8" : "<f4", sizeof(T) == 8 ? "f64" : "f32", tensor.shape(),
          std::string(reinterpret_cast<const char*>(values.data()), values.size())};
}

// With one process, until it fails. Every question may throw RemoteError.
class Conversation {
 public:
  Conversation(const std::string& command, const GuestPlace& place) : process_(command, place) {}

  // Of the variant with these options; what the guest says of it, for the reader.
  std::string plan(const VariantName& name, const Problem& p);
  // What runs read from here on, and their parameters.
  void load(const std::vector<GuestTensor>& inputs, const ParameterSet<float>& parameters);
  // So many runs: seconds by the guest's clock.
  double run(index_t times);
  // Of the last run, into [B,H,N,Dv].
  void output(const View<float, 4>& out);
  // The variant's definition of these, in the type that they have.
  template <class T>
  Tensor<T> reference(const std::vector<GuestTensor>& inputs, const ParameterSet<T>& parameters, const Shape& shape);

  struct Description {
    Cost cost;
    struct Learned {
      std::string name;
      Shape shape;
      double std;
    };
    std::vector<Learned> parameters;
  };
  Description describe(const VariantName& name, const Problem& p);

  const GuestProcess& process() const { return process_; }
  bool failed() const { return failed_; }

 private:
  std::string written(const std::vector<GuestTensor>& tensors, std::string_view prefix);
  std::string file_of_answer(const std::string& question, const std::string& what, std::string_view descr,
                             std::span<const index_t> shape);
  std::string ask(const std::string& question, const std::string& what);

  GuestFolder folder_;
  GuestProcess process_;
  bool failed_ = false;
};

}  // namespace attn
