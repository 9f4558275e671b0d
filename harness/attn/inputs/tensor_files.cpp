#include "attn/inputs/tensor_files.hpp"

#include <cmath>
#include <span>

#include "attn/core/text.hpp"
#include "attn/exec/arena.hpp"

namespace attn {

namespace {

using Extents = std::array<index_t, 4>;  // batch, heads, tokens, dim

// Leaves `array` with four axes.
Status to_four_axes(NamedArray& named, std::optional<index_t> layer) {
  Array& array = named.array;
  if (layer) {
    if (array.shape.size() != 4 || *layer >= array.shape[0]) {
      return refuse(named.label + " has shape " + shape_text(array.shape) + ": layer=" + std::to_string(*layer) +
                    " needs [L,H,N,d] with more layers");
    }
    array.shape[0] = 1;
    const std::size_t bytes = *array_bytes(array.element, array.shape);
    array.data = array.data.subspan(static_cast<std::size_t>(*layer) * bytes, bytes);
  }
  if (array.shape.size() < 2 || array.shape.size() > 4) {
    return refuse(named.label + " has shape " + shape_text(array.shape) + "; accepted: [N,d], [H,N,d], [B,H,N,d]");
  }
  array.shape.insert(array.shape.begin(), 4 - array.shape.size(), 1);
  return {};
}

class TensorFiles final : public Input {
 public:
  TensorFiles(std::string name, std::vector<MappedFile> files, std::array<NamedArray, 3> qkv, const Problem& shape)
      : Input(std::move(name)), files_(std::move(files)), qkv_(std::move(qkv)), shape_(shape) {}

  std::optional<Problem> shape() const override { return shape_; }

  Result<Problem> adapt(const Problem& wish) const override {
    Problem p = shape_;
    p.causal = wish.causal;
    p.dtype = wish.dtype;
    p.q_len = wish.q_len;
    p.kv_len = wish.kv_len;
    if (p.q_len > shape_.q_len || p.kv_len > shape_.kv_len) {
      return refuse("input " + name() + " holds " + std::to_string(shape_.q_len) + " queries and " + std::to_string(shape_.kv_len) +
                    " keys, not the " + std::to_string(p.q_len) + " and " + std::to_string(p.kv_len) + " asked for");
    }
    if (Status fine = check_shape(p); !fine) return fine.refusal();
    return p;
  }

 protected:
  Status fill(const Problem&, std::uint64_t, const Tensors& tensors) const override {
    const std::array<View<float, 4>, 3> to{tensors.q, tensors.k, tensors.v};
    for (std::size_t t = 0; t < 3; ++t) {
      if (Status copied = copy(qkv_[t], to[t]); !copied) return copied;
    }
    return {};
  }

 private:
  static Status copy(const NamedArray& from, const View<float, 4>& to) {
    const index_t rows = from.array.shape[2];
    for (index_t task = 0; task < to.extent(0) * to.extent(1); ++task) {
      const auto head = to[task / to.extent(1)][task % to.extent(1)];
      const index_t first = task * rows * head.extent(1);
      const std::span out(head.data_handle(), static_cast<std::size_t>(head.size()));
      read_floats(from.array, first, out);
      for (std::size_t i = 0; i < out.size(); ++i) {
        if (!std::isfinite(out[i])) {
          return refuse(from.label + ": element " + std::to_string(first + static_cast<index_t>(i)) + " is not a finite float");
        }
      }
    }
    return {};
  }

  std::vector<MappedFile> files_;
  std::array<NamedArray, 3> qkv_;
  Problem shape_;
};

}  // namespace

Result<std::unique_ptr<Input>> open_tensors(std::string name, std::vector<MappedFile> files, std::array<NamedArray, 3> qkv,
                                            std::optional<index_t> layer) {
  for (auto& named : qkv) {
    if (Status fine = to_four_axes(named, layer); !fine) return fine.refusal();
  }
  const auto& [q, k, v] = qkv;
  const auto agree = [](const NamedArray& a, const NamedArray& b, std::size_t axis, const char* what) -> Status {
    if (a.array.shape[axis] == b.array.shape[axis]) return {};
    return refuse(a.label + " " + shape_text(a.array.shape) + " and " + b.label + " " + shape_text(b.array.shape) + " differ in " +
                  what);
  };
  for (const Status& status : {agree(q, k, 0, "batch"), agree(k, v, 0, "batch"), agree(k, v, 1, "heads"), agree(k, v, 2, "tokens"),
                               agree(q, k, 3, "head_dim")}) {
    if (!status) return status.refusal();
  }
  Problem shape;
  shape.batch = q.array.shape[0];
  shape.heads = q.array.shape[1];
  shape.kv_heads = k.array.shape[1];
  shape.q_len = q.array.shape[2];
  shape.kv_len = k.array.shape[2];
  shape.head_dim = q.array.shape[3];
  shape.value_dim = v.array.shape[3];
  if (Status fine = check_shape(shape); !fine) return refuse(name + ": " + fine.reason());
  return std::unique_ptr<Input>(new TensorFiles(std::move(name), std::move(files), std::move(qkv), shape));
}

Result<TensorArguments> parse_tensor_arguments(std::string_view kind, std::string_view text, std::size_t paths) {
  TensorArguments arguments;
  arguments.text = text;
  for (const auto part : split(text, ',')) {
    if (part.starts_with("layer=")) {
      const auto layer = parse_integer(part.substr(6));
      if (!layer || *layer < 0)
        return refuse("input " + std::string(kind) + ": '" + std::string(part) + "' is no layer; accepted: layer=0, 1, ...");
      arguments.layer = *layer;
    } else if (!part.empty()) {
      arguments.paths.emplace_back(part);
    }
  }
  if (arguments.paths.size() != paths) {
    return refuse("input " + std::string(kind) + " takes " + std::to_string(paths) + (paths == 1 ? " file" : " files") + ", not " +
                  std::to_string(arguments.paths.size()));
  }
  return arguments;
}

}  // namespace attn
