// Q, K and V that someone captured, whatever the container: axes, layers and how the three must fit each other.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "attn/inputs/array.hpp"
#include "attn/inputs/file.hpp"
#include "attn/inputs/input.hpp"

namespace attn {

struct NamedArray {
  std::string label;  // for refusals: "'q.npy'", "'a.npz' member q"
  StoredArray array;
};

// Axes from the right: dim, tokens, heads, batch; missing ones are 1. With a layer, the first axis of [L,H,N,d] or
// [L,B,H,N,d] counts layers and one of them is taken. q, k and v must agree in batch; k and v in heads and tokens; q and k in dim.
// The arrays point into `files`, which live as long as the input. `find` gives what a variant declares beside them, by name; where its array
// `causal` is not 0, the input serves causal problems only. Its array `mask`, unless it is left out, is the problem's (Problem::mask): [M] or
// [B,M] of keys, [N,M], [H,N,M] or [B,H,N,M], of numbers that are added to logits, -inf or below -1e9 to hide a key, or of booleans, true
// where a key is seen.
using FindArray = std::function<Result<std::optional<NamedArray>>(const std::string& name)>;
Result<std::unique_ptr<Input>> open_tensors(std::string name, std::vector<MappedFile> files, std::array<NamedArray, 3> qkv,
                                            std::optional<index_t> layer, FindArray find = nullptr, bool masked = true);

// "a,b,layer=3" -> files {a, b} and layer 3; refuses another number of files. One file may have a prefix, and its mask left out by mask=none.
struct TensorArguments {
  std::vector<std::string> paths;
  std::string prefix;  // of the names of tensors
  std::optional<index_t> layer;
  bool masked = true;  // no mask=none
  std::string text;    // canonical
};
Result<TensorArguments> parse_tensor_arguments(std::string_view kind, std::string_view text, std::size_t paths);

// Refuses files that torch.save wrote, by their names, with the Python that converts them to `kind` (npy: one tensor; else q, k and v).
Status no_pickle(const std::string& path, std::string_view kind);

}  // namespace attn
