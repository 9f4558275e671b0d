// Q, K and V in one archive of arrays by name.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "attn/inputs/input.hpp"
#include "attn/inputs/tensor_files.hpp"

namespace attn {

struct ArchiveBytes {
  std::string input;  // its canonical name
  std::string label;  // of the file, for refusals
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner = nullptr;  // of the bytes, where they do not last
};

// Arrays q, k, v and what goes with them (open_tensors), each after `prefix`.
struct ArchiveParts {
  std::string prefix = {};
  std::optional<index_t> layer = {};
  bool masked = true;
};

Result<std::unique_ptr<Input>> open_npz(const ArchiveBytes&, const ArchiveParts&);

// The inputs that model:NAME stands for, one a layer; none where there is no such model.
std::vector<std::string> layers_of_model(std::string_view name);

}  // namespace attn
