// text:FILE, the bytes of any file as tokens: byte -> seeded embedding [256, width] -> projection.hpp.
// Batch item b reads the bytes from b * length on; a sequence that reaches the end of the file goes on at its start, and
// the note says so.
#include <cstring>
#include <vector>

#include "attn/core/rng.hpp"
#include "attn/inputs/file.hpp"
#include "attn/inputs/kinds.hpp"
#include "attn/inputs/projection.hpp"

namespace attn {

namespace {

constexpr char own_text[] =
#include "attn/inputs/own_text.inc"
    ;

// A letter as it is, any other byte by its number: half of a letter of UTF-8 is none.
std::string word_of(unsigned char byte) {
  if (byte == '\n' || (byte >= ' ' && byte <= '~')) return {static_cast<char>(byte)};
  constexpr std::string_view digits = "0123456789abcdef";
  return {'\\', 'x', digits[byte / 16U], digits[byte % 16U]};
}

class Text final : public Input {
 public:
  Text() : Input("text") {}
  explicit Text(MappedFile file) : Input("text:" + file.path()), file_(std::move(file)) {}

  std::string note(const Problem& p) const override {
    const index_t needed = p.batch * sequence_length(p);
    if (needed <= size()) return {};
    return "a text of " + std::to_string(size()) + " bytes is repeated to make " + std::to_string(needed);
  }

  TokenPicture picture(const Problem& p, const std::vector<InputSpec>&, std::uint64_t) const override {
    TokenPicture picture;
    const index_t first = sequence_length(p) - p.kv_len;
    for (index_t j = 0; j < p.kv_len; ++j)
      picture.words.push_back(word_of(std::to_integer<unsigned char>(bytes()[static_cast<std::size_t>((first + j) % size())])));
    return picture;
  }

 protected:
  Status fill(const Problem& p, std::uint64_t seed, const Tensors& tensors) const override {
    const index_t width = model_width(p);
    std::vector<float> table(static_cast<std::size_t>(256 * width));
    Rng(seed, "text embedding").normals(table);
    const auto embed = [&](index_t batch, index_t first, index_t count, float* x) {
      for (index_t i = 0; i < count; ++i) {
        const auto byte =
            static_cast<index_t>(bytes()[static_cast<std::size_t>((batch * sequence_length(p) + first + i) % size())]);
        std::memcpy(x + i * width, &table[static_cast<std::size_t>(byte * width)], static_cast<std::size_t>(width) * sizeof(float));
      }
    };
    project(p, seed, embed, tensors);
    return {};
  }

 private:
  std::span<const std::byte> bytes() const {
    return file_ ? file_->bytes() : std::as_bytes(std::span(own_text).first(sizeof own_text - 1));
  }
  index_t size() const { return static_cast<index_t>(bytes().size()); }

  std::optional<MappedFile> file_;
};

Result<std::unique_ptr<Input>> open(std::string_view path) {
  if (path.empty()) return std::unique_ptr<Input>(new Text());
  auto file = MappedFile::open(std::string(path));
  if (!file) return refuse("input text: " + file.reason());
  if (file->bytes().empty())
    return refuse("input text: '" + std::string(path) + "' is empty; any file of one byte or more is accepted");
  return std::unique_ptr<Input>(new Text(std::move(file).value()));
}

}  // namespace

InputKind text_input() {
  return {{"text", "text[:FILE]", "bytes of FILE, or of a text that attnbench carries, embedded and projected per head"}, open};
}

}  // namespace attn
