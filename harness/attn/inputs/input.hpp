// Where Q, K and V come from. An input is named by kind and arguments, "iid:1", "text:README.md", "npy:q.npy,k.npy,v.npy";
// the name is canonical and parses back.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "attn/core/input_spec.hpp"
#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"
#include "attn/inputs/stored.hpp"
#include "attn/inputs/tensors.hpp"

namespace attn {

// What a user is told about one kind.
struct InputDoc {
  std::string name, syntax, doc;
};

// What the tokens of a sequence are, for those who draw them. Empty where they are numbers only, of a file of tensors or a distribution.
struct TokenPicture {
  std::vector<std::string> words;                  // one a token, as a reader would see it; of bytes that are no letter a name
  index_t columns = 0;                             // of a picture, whose tokens are its patches in raster order
  std::vector<float> colours;                      // of these [tokens, 3]: the mean red, green and blue, 0..1
  std::vector<std::pair<index_t, index_t>> edges;  // of a graph, whose tokens are its nodes
};

// A source, opened and checked: what can be refused without knowing the problem has been.
class Input {
 public:
  virtual ~Input() = default;

  const std::string& name() const { return name_; }

  // The whole of what a file of tensors holds; nothing for inputs that take any shape.
  virtual std::optional<Problem> shape() const { return {}; }

  // The problem this input serves for a wish. A file of tensors decides batch, heads and dims. Of its tokens the first
  // kv_len are served, and of their queries the last q_len, as far as there are that many; queries and keys of different
  // sequences are served whole. Every other input takes the wish or refuses it.
  virtual Result<Problem> adapt(const Problem& wish) const;

  // What a reader of results must know of this problem's tensors, such as a text that was repeated; mostly empty.
  virtual std::string note(const Problem&) const { return {}; }

  // The kv_len tokens of the problem's first sequence. `named`: what the variant reads beside them, which says how many edges a node has.
  virtual TokenPicture picture(const Problem&, const std::vector<InputSpec>& /*named*/, std::uint64_t /*seed*/) const { return {}; }

  // Q, K and V of a problem that adapt() returned: a pure function of name, problem and seed, whatever the number of
  // threads. Runs in the caller's arena. Files of tensors ignore the seed. Floats: store() rounds them to the
  // problem's number types.
  Result<Tensors> make(const Problem& p, std::uint64_t seed) const;

  // What a variant reads beside them: from the source where it has an array of the name, else drawn from the seed.
  Result<NamedTensors> make_named(const Problem& p, const std::vector<InputSpec>& specs, std::uint64_t seed) const;

 protected:
  explicit Input(std::string name) : name_(std::move(name)) {}

  // Writes every element.
  virtual Status fill(const Problem& p, std::uint64_t seed, const Tensors& tensors) const = 0;

  // Fills `to`, row-major, of the spec's extents; false: the source has no array of that name. Files ignore the seed.
  virtual Result<bool> fill_named(const Problem&, const InputSpec&, std::uint64_t /*seed*/, std::span<float>) const {
    return false;
  }

 private:
  std::string name_;
};

// Opens and checks the source. "text" alone is the text that attnbench carries.
Result<std::unique_ptr<Input>> parse_input(std::string_view name);

// The inputs that a name stands for: of a folder of .npz files, "npz:captured/", each of them in the order of their names, of a carried model,
// "model:ocr", each of its layers; else itself.
Result<std::vector<std::string>> expand_input(std::string_view name);

// Every kind, in the order of --list.
std::vector<InputDoc> input_docs();

}  // namespace attn
