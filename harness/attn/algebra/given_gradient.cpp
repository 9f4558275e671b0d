#include "attn/algebra/given_gradient.hpp"

#include <algorithm>
#include <memory>
#include <utility>

#include "attn/algebra/node.hpp"

namespace attn {

template <class T>
Tensor<T> with_gradient(const Tensor<T>& value, const std::vector<Tensor<T>>& from, Pull<T> pull) {
  // gradients() asks for the edges of a node one after the other: the first makes the gradients of all.
  struct Shared {
    Pull<T> pull;
    std::size_t edges;
    std::vector<Tensor<T>> gradients = {};
    std::size_t left = 0;
  };
  const auto variables = std::count_if(from.begin(), from.end(), [](const Tensor<T>& x) { return x.requires_gradient(); });
  const auto shared = std::make_shared<Shared>(Shared{std::move(pull), static_cast<std::size_t>(variables)});
  std::vector<detail::Edge<T>> edges;
  for (std::size_t i = 0; i < from.size(); ++i) {
    edges.push_back(detail::edge(from[i], [shared, i, count = from.size()](const Tensor<T>& gradient) {
      if (shared->left == 0) {
        shared->gradients = shared->pull(gradient);
        shared->left = shared->edges;
        ATTN_ASSERT(shared->gradients.size() == count);
      }
      Tensor<T> own = shared->gradients[i];
      if (--shared->left == 0) shared->gradients.clear();
      return own;
    }));
  }
  return detail::record(value.array(), std::move(edges));
}

template Tensor<float> with_gradient(const Tensor<float>&, const std::vector<Tensor<float>>&, Pull<float>);
template Tensor<double> with_gradient(const Tensor<double>&, const std::vector<Tensor<double>>&, Pull<double>);

}  // namespace attn
