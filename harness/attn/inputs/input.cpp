#include "attn/inputs/input.hpp"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "attn/core/text.hpp"
#include "attn/inputs/archive.hpp"
#include "attn/inputs/kinds.hpp"
#include "attn/inputs/tensor_files.hpp"

namespace attn {

namespace {

const std::vector<InputKind>& kinds() {
  static const std::vector<InputKind> all = [] {
    std::vector<InputKind> list{text_input(), wav_input(), image_input(), graph_input(), model_input()};
    for (const auto& more : {distribution_inputs(), container_inputs()}) list.insert(list.end(), more.begin(), more.end());
    return list;
  }();
  return all;
}

// By how a file's name ends; empty: none.
std::string kind_of_file(std::string_view path, const std::vector<std::string>& kinds_known) {
  const std::string ending(path.substr(std::min(path.rfind('.'), path.size() - 1) + 1));
  for (const auto& [kind, endings] :
       {std::pair("image", " png jpg jpeg pgm ppm "), {"wav", " flac ogg aiff aif "}, {"text", " txt md "}}) {
    if (!ending.empty() && std::string_view(endings).find(" " + ending + " ") != std::string_view::npos) return kind;
  }
  return std::ranges::find(kinds_known, ending) != kinds_known.end() ? ending : "";
}

}  // namespace

Result<Problem> Input::adapt(const Problem& wish) const {
  if (Status fine = check_shape(wish); !fine) return fine.refusal();
  return wish;
}

Result<Tensors> Input::make(const Problem& p, std::uint64_t seed) const {
  const auto served = adapt(p);
  if (!served) return served.refusal();
  if (*served != p) return refuse("input " + name_ + " serves " + to_string(*served) + ", not " + to_string(p));
  Tensors tensors = Tensors::allocate(p);
  if (Status filled = fill(p, seed, tensors); !filled) return filled.refusal();
  return tensors;
}

Result<NamedTensors> Input::make_named(const Problem& p, const std::vector<InputSpec>& specs, std::uint64_t seed) const {
  NamedTensors named;
  for (const InputSpec& spec : specs) {
    const std::span<float> to = named.add(spec.name, spec.extents);
    const Result<bool> filled = fill_named(p, spec, seed, to);
    if (!filled) return filled.refusal();
    if (!*filled) draw(spec, seed, to);
  }
  return named;
}

Result<std::unique_ptr<Input>> parse_input(std::string_view name) {
  const std::string_view text = trim(name);
  const auto colon = text.find(':');
  const auto given = text.substr(0, colon);
  std::vector<std::string> names;
  for (const auto& kind : kinds()) {
    if (kind.doc.name == given) return kind.open(colon == std::string_view::npos ? "" : text.substr(colon + 1));
    names.push_back(kind.doc.name);
  }
  if (Status pickle = no_pickle(std::string(text), "npz"); !pickle) return pickle.refusal();
  const std::string kind = kind_of_file(text, names);  // a.npz for npz:a.npz
  const std::string close = kind.empty() ? nearest(given, names) : kind + ":" + std::string(text);
  return refuse("unknown input '" + std::string(given) + "'" + (close.empty() ? "" : ", did you mean '" + close + "'?") +
                "; accepted: " + join(names, ", "));
}

Result<std::vector<std::string>> expand_input(std::string_view name) {
  const std::string_view text = trim(name);
  if (const std::string_view model = "model:"; text.starts_with(model)) {
    if (auto layers = layers_of_model(text.substr(model.size())); !layers.empty()) return layers;
  }
  const std::string kind = "npz:";
  if (!text.starts_with(kind)) return std::vector{std::string(text)};
  const std::size_t comma = std::min(text.find(','), text.size());
  const std::string path(text.substr(kind.size(), comma - kind.size()));
  std::error_code failed;
  if (!std::filesystem::is_directory(path, failed)) return std::vector{std::string(text)};
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(path, failed)) {
    if (entry.path().extension() == ".npz") files.push_back((std::filesystem::path(path) / entry.path().filename()).string());
  }
  if (failed) return refuse("input npz: reading the folder '" + path + "' failed: " + failed.message());
  if (files.empty()) return refuse("input npz: the folder '" + path + "' has no .npz file");
  std::ranges::sort(files);
  for (std::string& file : files) file = kind + file + std::string(text.substr(comma));
  return files;
}

std::vector<InputDoc> input_docs() {
  std::vector<InputDoc> docs;
  for (const auto& kind : kinds()) docs.push_back(kind.doc);
  return docs;
}

}  // namespace attn
