#include "attn/inputs/tensor_files.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "attn/core/text.hpp"
#include "attn/exec/arena.hpp"

namespace attn {

namespace {

using Extents = std::array<index_t, 4>;  // batch, heads, tokens, dim

// One of the first axis.
StoredArray layer_of(StoredArray array, index_t layer) {
  array.shape.erase(array.shape.begin());
  const std::size_t bytes = *array_bytes(array.element, array.shape);
  array.data = array.data.subspan(static_cast<std::size_t>(layer) * bytes, bytes);
  return array;
}

// Leaves `array` with four axes.
Status to_four_axes(NamedArray& named, std::optional<index_t> layer) {
  StoredArray& array = named.array;
  if (array.element == Element::boolean) return refuse(named.label + " is of booleans; accepted of a mask alone");
  if (layer) {
    if (array.shape.size() < 4 || array.shape.size() > 5 || *layer >= array.shape[0]) {
      return refuse(named.label + " has shape " + shape_text(array.shape) + ": layer=" + std::to_string(*layer) +
                    " needs [L,H,N,d] or [L,B,H,N,d] with L > " + std::to_string(*layer));
    }
    array = layer_of(array, *layer);
  }
  if (array.shape.size() < 2 || array.shape.size() > 4) {
    return refuse(named.label + " has shape " + shape_text(array.shape) +
                  "; accepted: [N,d], [H,N,d], [B,H,N,d], and [L,H,N,d] or [L,B,H,N,d] with layer=i");
  }
  array.shape.insert(array.shape.begin(), 4 - array.shape.size(), 1);
  return {};
}

// Leaves the mask with four axes, [B,H,N,M], each the problem's or 1.
Status to_mask(NamedArray& named, const Problem& p, std::optional<index_t> layer) {
  if (named.array.element == Element::q8) return refuse(named.label + " is of q8 blocks; accepted of q, k and v alone");
  std::vector<index_t>& shape = named.array.shape;
  const std::string given = named.label + " has shape " + shape_text(shape);
  if (layer && (shape.empty() || *layer >= shape[0])) return refuse(given + ": no layer " + std::to_string(*layer));
  if (layer) named.array = layer_of(named.array, *layer);
  if (shape.size() == 2 && shape[0] == p.batch && p.batch == p.q_len && p.batch > 1)
    return refuse(given + ", which is [B,M] and [N,M] alike; accepted: [B,1,1,M] or [1,1,N,M]");
  if (shape.size() == 2 && shape[0] == p.batch) shape.insert(shape.begin() + 1, 2, 1);
  if (shape.size() < 4) shape.insert(shape.begin(), 4 - shape.size(), 1);
  const std::vector<index_t> whole{p.batch, p.heads, p.q_len, p.kv_len};
  bool fits = shape.size() == whole.size();
  for (std::size_t axis = 0; fits && axis < whole.size(); ++axis) fits = shape[axis] == 1 || shape[axis] == whole[axis];
  if (fits) return {};
  return refuse(given + "; accepted: [M] or [B,M] of keys, [N,M], [H,N,M], [B,H,N,M], or 1 along an axis; here [B,H,N,M] is " +
                shape_text(whole));
}

struct TensorsOfFile {
  std::array<NamedArray, 3> qkv;
  std::optional<NamedArray> mask = {};
  bool mask_left_out = false;
};

class TensorFiles final : public Input {
 public:
  TensorFiles(std::string name, std::vector<MappedFile> files, TensorsOfFile tensors, const Problem& shape, FindArray find,
              std::optional<index_t> layer)
      : Input(std::move(name)),
        files_(std::move(files)),
        qkv_(std::move(tensors.qkv)),
        mask_(std::move(tensors.mask)),
        mask_left_out_(tensors.mask_left_out),
        shape_(shape),
        find_(std::move(find)),
        layer_(layer) {}

  std::optional<Problem> shape() const override { return shape_; }

  // [B,N,H,d], as some libraries have it, reads as a few tokens of many heads.
  std::string note(const Problem&) const override {
    if (mask_left_out_) return "its mask is left out: variants see the causal one alone";
    if (mask_) return "its mask " + shape_text(mask_->array.shape) + " is added to the logits";
    if (shape_.heads <= shape_.kv_len) return {};
    return std::to_string(shape_.heads) + " heads of " + std::to_string(shape_.kv_len) + " tokens: axes are read as [B,H,N,d]";
  }

  Result<Problem> adapt(const Problem& wish) const override {
    Problem p = shape_;
    p.causal = wish.causal || shape_.causal;
    p.dtype = wish.dtype;
    p.kv_dtype = wish.kv_dtype;
    p.pass = wish.pass;
    p.ragged = wish.ragged;
    p.page_rows = wish.page_rows;
    if (shape_.self_attention()) {
      p.kv_len = std::clamp<index_t>(wish.kv_len, 1, shape_.kv_len);
      p.q_len = std::clamp<index_t>(wish.q_len, 1, p.kv_len);
      if (p.mask.rows > 1) p.mask.rows = p.q_len;
    }
    return p;
  }

 protected:
  Status fill(const Problem& p, std::uint64_t, const Tensors& tensors) const override {
    const index_t first_query = shape_.self_attention() ? p.kv_len - p.q_len : 0;
    if (Status copied = copy(qkv_[0], first_query, tensors.q); !copied) return copied;
    if (Status copied = copy(qkv_[1], 0, tensors.k); !copied) return copied;
    return copy(qkv_[2], 0, tensors.v);
  }

  // Missing axes on the left are 1; of the tokens the first kv_len are served, as of k.
  Result<bool> fill_named(const Problem& p, const InputSpec& spec, std::uint64_t, std::span<float> to) const override {
    if (mask_ && spec.name == "mask") return fill_mask(p, spec, to);
    if (!find_) return false;
    auto found = find_(spec.name);
    if (!found) return found.refusal();
    if (!*found) return false;
    NamedArray& named = **found;
    if (named.array.element == Element::q8) return refuse(named.label + " is of q8 blocks; accepted of q, k and v alone");
    if (named.array.element == Element::boolean) return refuse(named.label + " is of booleans; accepted of a mask alone");
    std::vector<index_t> whole = spec.extents;
    if (whole.size() > 2 && whole[2] == p.kv_len) whole[2] = shape_.kv_len;
    if (layer_) {
      if (named.array.shape.empty() || *layer_ >= named.array.shape[0])
        return refuse(named.label + " has shape " + shape_text(named.array.shape) + ": no layer " + std::to_string(*layer_));
      named.array = layer_of(named.array, *layer_);
    }
    std::vector<index_t>& shape = named.array.shape;
    const std::string given = shape_text(shape);
    if (shape.size() < whole.size()) shape.insert(shape.begin(), whole.size() - shape.size(), 1);
    if (shape != whole) return refuse(named.label + " has shape " + given + "; the variant reads " + shape_text(whole));
    return fill_tokens(named, spec, to);
  }

 private:
  // Of every row over the tokens the first ones.
  static Result<bool> fill_tokens(const NamedArray& from, const InputSpec& spec, std::span<float> to) {
    const auto product = [](std::span<const index_t> extents) {
      index_t count = 1;
      for (const index_t extent : extents) count *= extent;
      return count;
    };
    const std::span<const index_t> there = from.array.shape, here = spec.extents;
    const std::size_t outer = std::min<std::size_t>(2, here.size());
    const index_t stretch = product(here.subspan(outer)), apart = product(there.subspan(outer));
    for (index_t r = 0; r < product(here.first(outer)); ++r) {
      const auto out = to.subspan(static_cast<std::size_t>(r * stretch), static_cast<std::size_t>(stretch));
      read_floats(from.array, r * apart, out);
      for (std::size_t i = 0; i < out.size(); ++i) {
        const auto x = static_cast<double>(out[i]);
        if (x >= spec.low && x <= spec.high && !(spec.whole && x != std::floor(x))) continue;
        return refuse(from.label + ": element " + std::to_string(r * apart + static_cast<index_t>(i)) + " is " + three_digits(x) +
                      "; accepted: " + (spec.whole ? "whole numbers " : "") + three_digits(spec.low) + ".." +
                      three_digits(spec.high));
      }
    }
    return true;
  }

  // The rows of the queries that are served, over the first keys.
  Result<bool> fill_mask(const Problem& p, const InputSpec& spec, std::span<float> to) const {
    const std::vector<index_t>& shape = mask_->array.shape;
    const index_t rows = spec.extents[2], keys = spec.extents[3], stored = shape[3] == 1 ? 1 : keys;
    const index_t first_row = shape[2] > 1 && shape_.self_attention() ? p.kv_len - p.q_len : 0;
    for (index_t r = 0; r < std::ssize(to) / keys; ++r) {
      const index_t first = (r / rows * shape[2] + first_row + r % rows) * shape[3];
      const auto row = to.subspan(static_cast<std::size_t>(r * keys), static_cast<std::size_t>(keys));
      read_floats(mask_->array, first, row.first(static_cast<std::size_t>(stored)));
      for (std::size_t j = 0; j < static_cast<std::size_t>(stored); ++j) {
        const auto x = static_cast<double>(row[j]);
        if (!(x <= spec.high))
          return refuse(mask_->label + ": element " + std::to_string(first + static_cast<index_t>(j)) + " is " + three_digits(x) +
                        "; accepted: numbers up to " + three_digits(spec.high) + ", and -inf or what is below -" +
                        three_digits(spec.high) + " to hide a key");
        const bool hides = mask_->array.element == Element::boolean ? x == 0 : x <= -spec.high;
        if (hides || mask_->array.element == Element::boolean) row[j] = hides ? static_cast<float>(spec.low) : 0.0f;
      }
      if (stored < keys) std::fill(row.begin() + 1, row.end(), row[0]);
    }
    return true;
  }

  // Rows from `first_row` on of every head.
  static Status copy(const NamedArray& from, index_t first_row, const View<float, 4>& to) {
    for (index_t task = 0; task < to.extent(0) * to.extent(1); ++task) {
      const auto head = to[task / to.extent(1)][task % to.extent(1)];
      const index_t first = (task * from.array.shape[2] + first_row) * head.extent(1);
      const std::span out(head.data_handle(), static_cast<std::size_t>(head.size()));
      read_floats(from.array, first, out);
      for (std::size_t i = 0; i < out.size(); ++i) {
        if (std::isfinite(out[i])) continue;
        const index_t element = first + static_cast<index_t>(i);
        if (from.array.element != Element::q8)
          return refuse(from.label + ": element " + std::to_string(element) + " is not a finite float");
        const index_t block = element / q8::count, before = block * static_cast<index_t>(sizeof(q8));
        return refuse(from.label + ": byte " + std::to_string(static_cast<index_t>(from.array.at_byte) + before) + ": block " +
                      std::to_string(block) + " has a scale that is not finite");
      }
    }
    return {};
  }

  std::vector<MappedFile> files_;
  std::array<NamedArray, 3> qkv_;
  std::optional<NamedArray> mask_;
  bool mask_left_out_;
  Problem shape_;
  FindArray find_;
  std::optional<index_t> layer_;
};

}  // namespace

Result<std::unique_ptr<Input>> open_tensors(std::string name, std::vector<MappedFile> files, std::array<NamedArray, 3> qkv,
                                            std::optional<index_t> layer, FindArray find, bool masked) {
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
  if (find) {
    const auto causal = find("causal");
    if (!causal) return causal.refusal();
    if (*causal) {
      const StoredArray& array = (*causal)->array;
      std::array<float, 1> says{};
      if (std::ranges::any_of(array.shape, [](index_t extent) { return extent != 1; }))
        return refuse((*causal)->label + " has shape " + shape_text(array.shape) + "; accepted: one number, 0 or 1");
      read_floats(array, 0, says);
      shape.causal = says[0] != 0;
    }
  }
  if (Status fine = check_shape(shape); !fine) return refuse(name + ": " + fine.reason());
  TensorsOfFile tensors{.qkv = std::move(qkv)};
  if (find) {
    auto mask = find("mask");
    if (!mask) return mask.refusal();
    tensors.mask_left_out = *mask && !masked;
    if (*mask && masked) tensors.mask = **std::move(mask);
  }
  if (tensors.mask) {
    if (Status fits = to_mask(*tensors.mask, shape, layer); !fits) return fits.refusal();
    const std::vector<index_t>& extents = tensors.mask->array.shape;
    shape.mask = {extents[0], extents[1], extents[2]};
  }
  return std::unique_ptr<Input>(
      new TensorFiles(std::move(name), std::move(files), std::move(tensors), shape, std::move(find), layer));
}

Result<TensorArguments> parse_tensor_arguments(std::string_view kind, std::string_view text, std::size_t paths) {
  TensorArguments arguments;
  arguments.text = text;
  bool prefixed = false;
  const auto twice = [&](const char* name) { return refuse("input " + std::string(kind) + ": " + name + " is given twice"); };
  for (const auto part : split(text, ',')) {
    if (part.starts_with("layer=")) {
      if (arguments.layer) return twice("layer");
      const auto layer = parse_integer(part.substr(6));
      if (!layer || *layer < 0)
        return refuse("input " + std::string(kind) + ": '" + std::string(part) + "' is no layer; accepted: layer=0, 1, ...");
      arguments.layer = *layer;
    } else if (paths == 1 && part.starts_with("prefix=")) {
      if (std::exchange(prefixed, true)) return twice("prefix");
      arguments.prefix = part.substr(7);
    } else if (paths == 1 && part.starts_with("mask=")) {
      if (part != "mask=none") return refuse("input " + std::string(kind) + ": '" + std::string(part) + "'; accepted: mask=none");
      if (!std::exchange(arguments.masked, false)) return twice("mask");
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

Status no_pickle(const std::string& path, std::string_view kind) {
  const auto dot = path.rfind('.');
  const std::string ending = dot == std::string::npos ? "" : path.substr(dot);
  if (ending != ".pt" && ending != ".pth" && ending != ".ckpt") return {};
  const std::string stem = path.substr(0, dot);
  return refuse("'" + path +
                "' is a pickle of PyTorch's, which may run programs; two lines of Python convert it:\n  import numpy, torch; t = " +
                "torch.load('" + path + "', map_location='cpu', weights_only=True)\n  " +
                (kind == "npy" ? "numpy.save('" + stem + ".npy', t.float().numpy())"
                               : "numpy.savez('" + stem + ".npz', **{name: t[name].float().numpy() for name in 'qkv'})"));
}

}  // namespace attn
