// One entry a kind of input: its page for --list and how to open it. Each kind's own file defines its entry.
#pragma once

#include <functional>

#include "attn/inputs/input.hpp"

namespace attn {

struct InputKind {
  InputDoc doc;
  std::function<Result<std::unique_ptr<Input>>(std::string_view arguments)> open;  // what follows "kind:"; may be empty
};

InputKind text_input();
InputKind wav_input();
InputKind image_input();
InputKind graph_input();
InputKind model_input();
std::vector<InputKind> container_inputs();
std::vector<InputKind> distribution_inputs();

}  // namespace attn
