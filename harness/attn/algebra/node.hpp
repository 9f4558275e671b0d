// How a tensor was made, for the reverse mode. Internal to this floor: operations call record() and edge().
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "attn/algebra/tensor.hpp"

namespace attn::detail {

// The gradient of one node, summed up from the nodes made from it.
template <class T>
class Adjoint {
 public:
  explicit Adjoint(Shape shape) : shape_(std::move(shape)) {}

  void add(const Tensor<T>& gradient);
  T* sum();  // to add to, element by element: what was added so far, or zeros
  Tensor<T> value() const { return empty_ ? zeros<T>(shape_) : Tensor<T>(sum_); }

 private:
  Shape shape_;
  Elements<T> sum_;
  bool empty_ = true;
  bool shared_ = false;  // sum_ is the only gradient added so far, which others may hold
};

template <class T>
struct Edge {
  std::shared_ptr<Node<T>> parent;
  std::function<void(const Tensor<T>& gradient, Adjoint<T>& into)> pull;
};

template <class T>
struct Node {
  Node(Shape of, std::vector<Edge<T>> from);
  ~Node();

  std::uint64_t id;  // grows with time: a node is younger than its parents
  Shape shape;
  std::vector<Edge<T>> edges;
};

// The edge to `parent` with its vector-Jacobian product: either gradient -> tensor, or (gradient, adjoint) that adds to it.
// What `pull` captures must be detached, or the graph would hold itself.
template <class T, class F>
Edge<T> edge(const Tensor<T>& parent, F pull) {
  if (!parent.requires_gradient()) return {};
  if constexpr (std::is_invocable_v<F&, const Tensor<T>&>) {
    return {parent.node(), [pull](const Tensor<T>& gradient, Adjoint<T>& into) { into.add(pull(gradient)); }};
  } else {
    return {parent.node(), pull};
  }
}

template <class T>
Tensor<T> record(Elements<T> value, std::vector<Edge<T>> edges);

extern template class Adjoint<float>;
extern template class Adjoint<double>;
extern template struct Node<float>;
extern template struct Node<double>;

}  // namespace attn::detail
