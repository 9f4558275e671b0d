// attn_apply --state: a causal sequence that goes on, call after call, from a state in a file.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "attn/exec/arena.hpp"
#include "attn/inputs/input.hpp"
#include "attn/variant/decode.hpp"

namespace attn {

struct ContinuationOptions {
  std::string state;       // file; where there is none the sequence begins
  index_t context = 0;     // the longest sequence that a state which folds tokens is for; 0: as the file says, else these tokens
  std::string parameters;  // folder
  std::uint64_t seed = 1;
  int threads = 1;
  bool pin = true;
};

class Continuation {
 public:
  // `shape` is that of the input, whose tokens follow those of the state. Refuses what does not fit them, and a state of another variant,
  // of other options, number types or parameters, and of another build.
  static Result<std::unique_ptr<Continuation>> open(std::unique_ptr<Variant> variant, std::unique_ptr<Input> input,
                                                    const Problem& shape, const ContinuationOptions& options);

  // The outputs of the new tokens, which are in the state from here on.
  View<float, 4> run();
  // The state, in the place of the file.
  Status save() const;
  // So many tokens it holds, the new ones too.
  index_t tokens() const { return p_.kv_len; }

 private:
  Continuation(std::unique_ptr<Variant> variant, std::unique_ptr<Input> input, ContinuationOptions options)
      : variant_(std::move(variant)), input_(std::move(input)), options_(std::move(options)) {}

  Status place(const Problem& shape, index_t length, index_t made_for);
  Status make_tensors(const Problem& shape);
  Status equip();
  std::string description(index_t length) const;
  Status load(std::span<const std::byte> file, index_t length);

  std::unique_ptr<Variant> variant_;
  std::unique_ptr<Input> input_;
  ContinuationOptions options_;
  Problem p_;  // the step's
  Tensors tensors_;
  NamedTensors named_;
  Buffer output_;
  std::optional<Planned> planned_;
  std::optional<State> state_;
};

}  // namespace attn
