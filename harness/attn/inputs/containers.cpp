// npy:Q,K,V  npz:FILE  safetensors:FILE
#include <algorithm>
#include <functional>
#include <memory>

#include "attn/inputs/archive.hpp"
#include "attn/inputs/kinds.hpp"
#include "attn/inputs/npy.hpp"
#include "attn/inputs/npz.hpp"
#include "attn/inputs/safetensors.hpp"
#include "attn/inputs/tensor_files.hpp"

namespace attn {

namespace {

Result<std::unique_ptr<Input>> open_npy(std::string_view text) {
  const auto arguments = parse_tensor_arguments("npy", text, 3);
  if (!arguments) return arguments.refusal();
  std::vector<MappedFile> files;
  std::array<NamedArray, 3> qkv;
  for (std::size_t t = 0; t < 3; ++t) {
    if (Status pickle = no_pickle(arguments->paths[t], "npy"); !pickle) return pickle.refusal();
    auto file = MappedFile::open(arguments->paths[t]);
    if (!file) return refuse("input npy: " + file.reason());
    auto array = parse_npy(file->bytes());
    if (!array) return refuse("input npy: '" + file->path() + "': " + array.reason());
    qkv[t] = {"'" + file->path() + "'", std::move(array).value()};
    files.push_back(std::move(file).value());
  }
  return open_tensors("npy:" + arguments->text, std::move(files), std::move(qkv), arguments->layer);
}

struct Archive {
  const char* kind;
  Result<StoredArray> (*parse)(std::span<const std::byte> file, std::string_view name);
  Result<std::vector<std::string>> (*names)(std::span<const std::byte> file);
};
constexpr Archive npz{"npz", parse_npz, names_in_npz}, safetensors{"safetensors", parse_safetensors, names_in_safetensors};

Result<NamedArray> member(const Archive& archive, const ArchiveBytes& file, const std::string& name) {
  auto array = archive.parse(file.bytes, name);
  if (!array) return refuse(std::string("input ") + archive.kind + ": " + file.label + ": " + array.reason());
  return NamedArray{name + " of " + file.label, std::move(array).value()};
}

Result<std::unique_ptr<Input>> open_archive(const Archive& archive, const ArchiveBytes& file, const ArchiveParts& parts) {
  std::array<NamedArray, 3> qkv;
  constexpr std::array<const char*, 3> names{"q", "k", "v"};
  for (std::size_t t = 0; t < 3; ++t) {
    auto array = member(archive, file, parts.prefix + names[t]);
    if (!array) return array.refusal();
    qkv[t] = std::move(array).value();
  }
  const FindArray find = [archive, file, prefix = parts.prefix](const std::string& name) -> Result<std::optional<NamedArray>> {
    const auto there = archive.names(file.bytes);
    if (!there) return there.refusal();
    if (std::ranges::find(*there, prefix + name) == there->end()) return std::optional<NamedArray>();
    auto array = member(archive, file, prefix + name);
    if (!array) return array.refusal();
    return std::optional(std::move(array).value());
  };
  return open_tensors(file.input, {}, std::move(qkv), parts.layer, find, parts.masked);
}

// One file that holds arrays named q, k and v, after a prefix.
Result<std::unique_ptr<Input>> open_file(const Archive& archive, std::string_view text) {
  const std::string kind = archive.kind;
  const auto arguments = parse_tensor_arguments(kind, text, 1);
  if (!arguments) return arguments.refusal();
  if (Status pickle = no_pickle(arguments->paths[0], kind); !pickle) return pickle.refusal();
  auto file = MappedFile::open(arguments->paths[0]);
  if (!file) return refuse("input " + kind + ": " + file.reason());
  const auto mapped = std::make_shared<const MappedFile>(std::move(file).value());
  return open_archive(
      archive,
      {.input = kind + ":" + arguments->text, .label = "'" + mapped->path() + "'", .bytes = mapped->bytes(), .owner = mapped},
      {arguments->prefix, arguments->layer, arguments->masked});
}

}  // namespace

Result<std::unique_ptr<Input>> open_npz(const ArchiveBytes& file, const ArchiveParts& parts) {
  return open_archive(npz, file, parts);
}

std::vector<InputKind> container_inputs() {
  return {
      {{"npy", "npy:Q.npy,K.npy,V.npy[,layer=i]",
        "float arrays [N,d], [H,N,d] or [B,H,N,d] in C order; with layer=i, one of [L,H,N,d] or [L,B,H,N,d]"},
       open_npy},
      {{"npz", "npz:FILE[,prefix=P][,layer=i][,mask=none]",
        "arrays Pq, Pk and Pv of a numpy.savez or savez_compressed file; others, such as Pgate, where a variant reads them; "
        "Pcausal = 1: keys behind a query are hidden; Pmask [B,M], [H,N,M], ...: added to the logits, or booleans, true where a "
        "key is "
        "seen, unless mask=none; of a folder, every .npz file"},
       [](std::string_view text) { return open_file(npz, text); }},
      {{"safetensors", "safetensors:FILE[,prefix=P][,layer=i][,mask=none]",
        "tensors Pq, Pk and Pv, such as layers.3.q with prefix=layers.3.: F16, BF16, F32 or F64"},
       [](std::string_view text) { return open_file(safetensors, text); }},
  };
}

}  // namespace attn
