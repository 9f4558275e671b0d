// model:NAME,layer=i: captures that attnbench carries, as npz: reads them. How they were made: captures/NAME/README.md.
#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "attn/core/text.hpp"
#include "attn/inputs/archive.hpp"
#include "attn/inputs/kinds.hpp"

// The files of captures/, as they are.
#define ATTN_CARRY(symbol, file)                                                                         \
  asm(".pushsection .rodata\n.balign 64\n" #symbol ":\n.incbin \"" ATTN_CAPTURES "/" file "\"\n" #symbol \
      "_end:\n.byte 0\n.popsection\n.globl " #symbol "\n.globl " #symbol                                 \
      "_end\n"                                                                                           \
      ".hidden " #symbol "\n.hidden " #symbol "_end\n");                                                 \
  extern "C" const std::byte symbol[], symbol##_end[];

ATTN_CARRY(attn_capture_ocr0, "ocr/layer0.npz")
ATTN_CARRY(attn_capture_ocr1, "ocr/layer1.npz")

namespace attn {

namespace {

struct Carried {
  std::string_view name;
  std::vector<std::span<const std::byte>> layers;
};

const std::vector<Carried>& all_carried() {
  static const std::vector<Carried> all{
      {"ocr", {{attn_capture_ocr0, attn_capture_ocr0_end}, {attn_capture_ocr1, attn_capture_ocr1_end}}}};
  return all;
}

Result<const Carried*> find_carried(std::string_view name) {
  std::vector<std::string> names;
  for (const Carried& carried : all_carried()) {
    if (carried.name == name) return &carried;
    names.emplace_back(carried.name);
  }
  return refuse("input model: '" + std::string(name) + "' is no capture that attnbench carries; accepted: " + join(names, ", "));
}

std::string layer_name(const Carried& carried, std::size_t layer) {
  return "model:" + std::string(carried.name) + ",layer=" + std::to_string(layer);
}

Result<std::unique_ptr<Input>> open(std::string_view text) {
  const auto arguments = parse_tensor_arguments("model", text, 1);
  if (!arguments) return arguments.refusal();
  const auto found = find_carried(arguments->paths[0]);
  if (!found) return found.refusal();
  const Carried& carried = **found;
  const index_t layers = std::ssize(carried.layers);
  if (!arguments->prefix.empty() || !arguments->layer || *arguments->layer >= layers)
    return refuse("input model:" + std::string(text) + ": " + std::string(carried.name) + " has " + std::to_string(layers) +
                  " layers; accepted: layer=0 to layer=" + std::to_string(layers - 1));
  const auto layer = static_cast<std::size_t>(*arguments->layer);
  const std::string name = layer_name(carried, layer);
  return open_npz({.input = name, .label = "'" + name + "'", .bytes = carried.layers[layer]}, {});
}

}  // namespace

std::vector<std::string> layers_of_model(std::string_view name) {
  std::vector<std::string> names;
  if (const auto found = find_carried(name)) {
    for (std::size_t layer = 0; layer < (*found)->layers.size(); ++layer) names.push_back(layer_name(**found, layer));
  }
  return names;
}

InputKind model_input() {
  return {{"model", "model:NAME[,layer=i]",
           "what a trained model's attention was given, which attnbench carries: ocr, a recogniser of text, two layers of 8 heads "
           "of 15, "
           "N=1024; without a layer, each"},
          open};
}

}  // namespace attn
