#include "attn/inputs/npy.hpp"

#include <algorithm>
#include <optional>
#include <ostream>
#include <string_view>
#include <vector>

#include "attn/core/text.hpp"
#include "attn/inputs/file.hpp"

namespace attn {

namespace {

// Reads the header's Python dictionary: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
class HeaderReader {
 public:
  HeaderReader(std::string_view text, std::size_t file_offset) : text_(text), file_offset_(file_offset) {}

  std::size_t offset() const { return file_offset_ + at_; }
  bool end() const { return at_ == text_.size(); }

  void skip_space() {
    while (!end() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r')) ++at_;
  }

  bool take(std::string_view token) {
    skip_space();
    if (text_.substr(at_, token.size()) != token) return false;
    at_ += token.size();
    return true;
  }

  // 'text' or "text", without escapes
  std::optional<std::string_view> quoted() {
    skip_space();
    if (end() || (text_[at_] != '\'' && text_[at_] != '"')) return {};
    const auto close = text_.find(text_[at_], at_ + 1);
    if (close == std::string_view::npos) return {};
    const auto inside = text_.substr(at_ + 1, close - at_ - 1);
    at_ = close + 1;
    return inside;
  }

  // (), (3,), (3, 4), (3, 4, ); Python 2 wrote 3L
  std::optional<std::vector<index_t>> tuple() {
    std::vector<index_t> values;
    if (!take("(")) return {};
    while (!take(")")) {
      skip_space();
      const auto stop = std::min(text_.find_first_not_of("0123456789", at_), text_.size());
      const auto value = parse_integer(text_.substr(at_, stop - at_));
      if (!value) return {};
      values.push_back(*value);
      at_ = stop;
      take("L");
      if (!take(",") && (end() || text_[at_] != ')')) return {};
    }
    return values;
  }

 private:
  std::string_view text_;
  std::size_t file_offset_;
  std::size_t at_ = 0;
};

const std::string accepted_types = "'<f2', '<f4', '<f8', '<V2' (bfloat16), '|V34' (blocks of q8_0), '|b1' (of a mask)";

Refusal at_byte(std::size_t offset, const std::string& what) { return refuse("byte " + std::to_string(offset) + ": " + what); }

Result<Element> element_of(std::string_view descr, std::size_t offset) {
  if (descr == "<f2") return Element::f16;
  if (descr == "<f4") return Element::f32;
  if (descr == "<f8") return Element::f64;
  // Types that NumPy does not know are so many bytes: bfloat16, as ml_dtypes saves it, and blocks of q8_0.
  if (descr == "<V2" || descr == "|V2") return Element::bf16;
  if (descr == "|V34") return Element::q8;
  if (descr == "|b1") return Element::boolean;
  std::string kind = "is not supported";
  if (descr.starts_with('>')) kind = "is big-endian";
  if (descr.find('O') != std::string_view::npos) kind = "holds Python objects";
  return at_byte(offset, "descr '" + std::string(descr) + "' " + kind + "; accepted: " + accepted_types);
}

}  // namespace

Result<StoredArray> parse_npy(std::span<const std::byte> file) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  const auto byte = [&file](std::size_t i) { return std::to_integer<std::size_t>(file[i]); };
  if (text.starts_with("PK\3\4")) {
    return at_byte(0,
                   "magic is a zip archive's: numpy.savez writes one, which npz:FILE reads, and so does torch.save: accepted is "
                   "what numpy.save(file, tensor.float().numpy()) writes");
  }
  if (!text.starts_with("\x93NUMPY")) return at_byte(0, "magic is not \\x93NUMPY: no .npy file");
  if (file.size() < 10) return at_byte(file.size(), "the file ends within its header of at least 10 bytes");
  const std::size_t version = byte(6);
  if (version < 1 || version > 3) return at_byte(6, "version " + std::to_string(version) + "; accepted: 1, 2, 3");
  const std::size_t begin = version == 1 ? 10 : 12;
  if (file.size() < begin) return at_byte(file.size(), "the file ends within its header length");
  std::size_t length = byte(8) | byte(9) << 8;
  if (version > 1) length |= byte(10) << 16 | byte(11) << 24;
  if (length > file.size() - begin) {
    return at_byte(8, "header length " + std::to_string(length) + " runs past the end of the file of " +
                          std::to_string(file.size()) + " bytes");
  }

  HeaderReader header(text.substr(begin, length), begin);
  std::optional<Element> element;
  std::optional<std::vector<index_t>> shape;
  bool order = false;
  std::size_t shape_offset = begin;
  if (!header.take("{")) return at_byte(header.offset(), "header is no dictionary");
  while (!header.take("}")) {
    header.skip_space();
    const std::size_t offset = header.offset();
    const auto key = header.quoted();
    if (!key || !header.take(":")) return at_byte(offset, "header has no key here; accepted: 'descr', 'fortran_order', 'shape'");
    header.skip_space();
    const std::size_t value_offset = header.offset();
    if ((*key == "descr" && element) || (*key == "fortran_order" && order) || (*key == "shape" && shape))
      return at_byte(offset, "header key '" + std::string(*key) + "' is given twice");
    if (*key == "descr") {
      const auto descr = header.quoted();
      if (!descr) return at_byte(value_offset, "descr is a structure of fields; accepted: " + accepted_types);
      const auto found = element_of(*descr, value_offset);
      if (!found) return found.refusal();
      element = *found;
    } else if (*key == "fortran_order") {
      if (header.take("True")) return at_byte(value_offset, "fortran_order is True; accepted: C order, numpy.ascontiguousarray(a)");
      if (!header.take("False")) return at_byte(value_offset, "fortran_order is neither True nor False");
      order = true;
    } else if (*key == "shape") {
      shape = header.tuple();
      shape_offset = value_offset;
      if (!shape) return at_byte(value_offset, "shape is no tuple of whole numbers");
    } else {
      return at_byte(offset, "unknown header key '" + std::string(*key) + "'; accepted: 'descr', 'fortran_order', 'shape'");
    }
    header.take(",");
  }
  header.skip_space();
  if (!header.end()) return at_byte(header.offset(), "header goes on behind its dictionary; accepted: spaces up to its end");
  if (!element || !shape || !order) return at_byte(begin, "header lacks one of 'descr', 'fortran_order', 'shape'");

  const auto data = file.subspan(begin + length);
  const std::string given = shape_text(*shape);
  if (*element == Element::q8 && !shape->empty() && shape->back() < index_t{1} << 40) shape->back() *= q8::count;
  const auto bytes = array_bytes(*element, *shape);
  if (!bytes || *bytes != data.size()) {
    return at_byte(shape_offset, "shape " + given + " needs " + (bytes ? std::to_string(*bytes) : "too many") +
                                     " bytes of data, the file holds " + std::to_string(data.size()));
  }
  return StoredArray{*element, std::move(*shape), data, begin + length};
}

std::string npy_header(std::span<const index_t> shape, std::string_view descr) {
  std::vector<std::string> extents;
  for (const index_t extent : shape) extents.push_back(std::to_string(extent) + ",");
  std::string header = "{'descr': '" + std::string(descr) + "', 'fortran_order': False, 'shape': (" + join(extents, " ") + "), }";
  header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 11, ' ');  // data begin at a multiple of 64
  header += '\n';
  ATTN_ASSERT(header.size() <= 0xffff);
  const std::string magic{
      '\x93', 'N', 'U', 'M', 'P', 'Y', 1, 0, static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
  return magic + header;
}

Status write_npy(const std::string& path, std::span<const index_t> shape, std::span<const float> values) {
  ATTN_ASSERT(array_bytes(Element::f32, shape) == values.size_bytes());
  return write_whole(path, [&](std::ostream& file) {
    file << npy_header(shape);
    file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size_bytes()));
  });
}

}  // namespace attn
