#include "attn/algebra/gradient.hpp"

#include <atomic>
#include <functional>
#include <map>

#include "attn/algebra/node.hpp"

namespace attn {
namespace detail {
namespace {

std::uint64_t next_id() {
  static std::atomic<std::uint64_t> counter = 0;
  return counter++;
}

}  // namespace

template <class T>
void Adjoint<T>::add(const Tensor<T>& gradient) {
  ATTN_ASSERT(gradient.shape() == shape_);
  if (empty_) {
    sum_ = gradient.array();
    empty_ = false;
    shared_ = true;
    return;
  }
  T* total = sum();
  const T* term = gradient.data();
  for (index_t i = 0; i < gradient.size(); ++i) total[i] += term[i];
}

template <class T>
T* Adjoint<T>::sum() {
  if (empty_ || shared_) {
    Elements<T> own(shape_);
    if (empty_) {
      std::fill_n(own.writable(), own.size(), T{0});
    } else {
      std::copy(sum_.data(), sum_.data() + sum_.size(), own.writable());
    }
    sum_ = std::move(own);
    empty_ = shared_ = false;
  }
  return sum_.writable();
}

template <class T>
Node<T>::Node(Shape of, std::vector<Edge<T>> from) : id(next_id()), shape(std::move(of)), edges(std::move(from)) {}

// A recurrence makes chains of 10^5 nodes: freeing them by recursion would overflow the stack.
template <class T>
Node<T>::~Node() {
  std::vector<Edge<T>> doomed = std::move(edges);
  while (!doomed.empty()) {
    const Edge<T> edge = std::move(doomed.back());
    doomed.pop_back();
    if (edge.parent.use_count() > 1) continue;
    for (Edge<T>& next : edge.parent->edges) doomed.push_back(std::move(next));
    edge.parent->edges.clear();
  }
}

template <class T>
Tensor<T> record(Elements<T> value, std::vector<Edge<T>> edges) {
  std::erase_if(edges, [](const Edge<T>& edge) { return edge.parent == nullptr; });
  if (edges.empty()) return Tensor<T>(std::move(value));
  auto node = std::make_shared<Node<T>>(value.shape(), std::move(edges));
  return Tensor<T>(std::move(value), std::move(node));
}

template class Adjoint<float>;
template class Adjoint<double>;
template struct Node<float>;
template struct Node<double>;
template Tensor<float> record(Elements<float>, std::vector<Edge<float>>);
template Tensor<double> record(Elements<double>, std::vector<Edge<double>>);

}  // namespace detail

template <class T>
Tensor<T> variable(const Tensor<T>& value) {
  return Tensor<T>(value.array(), std::make_shared<detail::Node<T>>(value.shape(), std::vector<detail::Edge<T>>{}));
}

template <class T>
std::vector<Tensor<T>> gradients(const Tensor<T>& output, const std::vector<Tensor<T>>& leaves) {
  ATTN_ASSERT(output.size() == 1);
  struct Pending {
    detail::Node<T>* node;
    detail::Adjoint<T> adjoint;
  };
  // Youngest first: when a node's turn comes, everything made from it has been visited.
  std::map<std::uint64_t, Pending, std::greater<>> pending;
  const auto reach = [&](detail::Node<T>* node) -> Pending& {
    return pending.try_emplace(node->id, Pending{node, detail::Adjoint<T>(node->shape)}).first->second;
  };

  std::vector<Tensor<T>> results;
  for (const Tensor<T>& leaf : leaves) {
    ATTN_ASSERT(leaf.requires_gradient());
    results.push_back(zeros<T>(leaf.shape()));
  }
  if (!output.requires_gradient()) return results;

  reach(output.node().get()).adjoint.add(ones<T>(output.shape()));
  while (!pending.empty()) {
    const auto turn = pending.extract(pending.begin());
    detail::Node<T>* node = turn.mapped().node;
    const Tensor<T> gradient = turn.mapped().adjoint.value();
    for (const auto& edge : node->edges) edge.pull(gradient, reach(edge.parent.get()).adjoint);
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      if (leaves[i].node().get() == node) results[i] = gradient;
    }
  }
  return results;
}

template Tensor<float> variable(const Tensor<float>&);
template Tensor<double> variable(const Tensor<double>&);
template std::vector<Tensor<float>> gradients(const Tensor<float>&, const std::vector<Tensor<float>>&);
template std::vector<Tensor<double>> gradients(const Tensor<double>&, const std::vector<Tensor<double>>&);

}  // namespace attn
