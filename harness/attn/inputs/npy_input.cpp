// npy:q.npy,k.npy,v.npy
#include "attn/inputs/kinds.hpp"
#include "attn/inputs/npy.hpp"
#include "attn/inputs/tensor_files.hpp"

namespace attn {

namespace {

Result<std::unique_ptr<Input>> open(std::string_view text) {
  const auto arguments = parse_tensor_arguments("npy", text, 3);
  if (!arguments) return arguments.refusal();
  std::vector<MappedFile> files;
  std::array<NamedArray, 3> qkv;
  for (std::size_t t = 0; t < 3; ++t) {
    auto file = MappedFile::open(arguments->paths[t]);
    if (!file) return refuse("input npy: " + file.reason());
    auto array = parse_npy(file->bytes());
    if (!array) return refuse("input npy: '" + file->path() + "': " + array.reason());
    qkv[t] = {"'" + file->path() + "'", std::move(array).value()};
    files.push_back(std::move(file).value());
  }
  return open_tensors("npy:" + arguments->text, std::move(files), std::move(qkv), arguments->layer);
}

}  // namespace

InputKind npy_input() {
  return {{"npy", "npy:Q.npy,K.npy,V.npy[,layer=i]", "float arrays [N,d], [H,N,d] or [B,H,N,d] in C order"}, open};
}

}  // namespace attn
