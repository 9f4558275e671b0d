#include "attn/inputs/safetensors.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "attn/core/text.hpp"

namespace attn {

namespace {

using Json = nlohmann::json;

Refusal at_byte(std::size_t offset, const std::string& what) { return refuse("byte " + std::to_string(offset) + ": " + what); }

// A list of whole numbers from 0 up.
std::optional<std::vector<index_t>> extents(const Json& entry, const char* key) {
  const auto found = entry.find(key);
  if (found == entry.end() || !found->is_array()) return {};
  std::vector<index_t> values;
  for (const Json& value : *found) {
    if (!value.is_number_unsigned()) return {};
    const auto number = value.get<std::uint64_t>();
    if (number > static_cast<std::uint64_t>(std::numeric_limits<index_t>::max())) return {};
    values.push_back(static_cast<index_t>(number));
  }
  return values;
}

// The header, and the file up to its end.
struct Header {
  Json json;
  std::string_view text;

  // The parsed header no longer knows where a field stood; the tensor's key is where to look. Of strings that look like it, it is
  // the one that an object follows.
  std::size_t at(const std::string& tensor) const {
    const std::string key = '"' + tensor + '"';
    for (std::size_t at = 0; (at = text.find(key, at)) != std::string_view::npos; ++at) {
      const std::size_t colon = text.find_first_not_of(" \t\r\n", at + key.size());
      if (colon == std::string_view::npos || text[colon] != ':') continue;
      const std::size_t value = text.find_first_not_of(" \t\r\n", colon + 1);
      if (value != std::string_view::npos && text[value] == '{') return at;
    }
    const std::size_t first = text.find(key);
    return first != std::string_view::npos ? first : 8;  // the header's start for a key with escapes
  }
};

// `text` is the file up to the header's end.
Result<Header> parse_header(std::string_view text) {
  const std::string_view json = text.substr(sizeof(std::uint64_t));
  std::set<std::string> tensors, fields;  // so far; fields of the last tensor
  std::string tensor, twice_in, twice;
  const auto note_twice = [&](int depth, Json::parse_event_t event, const Json& value) {
    if (event != Json::parse_event_t::key || depth > 2) return true;
    const auto& key = value.get_ref<const std::string&>();
    if (depth == 1) {
      tensor = key;
      fields.clear();
    }
    if (!(depth == 1 ? tensors : fields).insert(key).second && twice.empty()) {
      twice_in = tensor;
      twice = depth == 1 ? "tensor " + key : tensor + "." + key;
    }
    return true;
  };
  try {
    Header header{Json::parse(json.begin(), json.end(), note_twice), text};
    if (!header.json.is_object()) return at_byte(8, "header is no JSON object");
    if (!twice.empty()) return at_byte(header.at(twice_in), twice + " is given twice");
    return header;
  } catch (const Json::parse_error& error) {
    return at_byte(8 + std::min(error.byte, json.size()), "header is no valid JSON");
  } catch (const Json::exception&) {  // such as a number too large
    return at_byte(8, "header holds JSON that cannot be read");
  }
}

// The format lets every byte of the data belong to one tensor: none to two, none to none.
Status check_cover(const Header& header, std::size_t data_bytes) {
  struct Part {
    std::vector<index_t> offsets;
    std::string name;
  };
  std::vector<Part> parts;
  for (const auto& [name, entry] : header.json.items()) {
    if (name == "__metadata__") continue;
    auto offsets = entry.is_object() ? extents(entry, "data_offsets") : std::nullopt;
    if (!offsets || offsets->size() != 2 || (*offsets)[0] > (*offsets)[1])
      return at_byte(header.at(name), name + ".data_offsets is no pair of whole numbers in ascending order");
    parts.push_back({*std::move(offsets), name});
  }
  std::ranges::stable_sort(parts, {}, &Part::offsets);
  index_t end = 0;
  std::string before;
  for (const Part& part : parts) {
    const auto refusal = [&](const std::string& what) {
      return at_byte(header.at(part.name), part.name + ".data_offsets " + shape_text(part.offsets) + " " + what);
    };
    if (part.offsets[0] < end) return refusal("overlap those of " + before + ", which end at " + std::to_string(end));
    if (part.offsets[0] > end) {
      return refusal("leave a hole: " + (before.empty() ? "the first tensor begins" : before + " ends") + " at " +
                     std::to_string(end));
    }
    end = part.offsets[1];
    before = part.name;
  }
  if (end == static_cast<index_t>(data_bytes)) return {};
  return at_byte(header.at(before), before + ".data_offsets end the tensors at " + std::to_string(end) + "; the file holds 0.." +
                                        std::to_string(data_bytes));
}

Result<Header> read_header(std::span<const std::byte> file) {
  constexpr std::uint64_t longest_header = 100'000'000;  // the limit of the format's own reader
  std::uint64_t length = 0;
  if (file.size() < sizeof length) return at_byte(file.size(), "the file ends within its header length of 8 bytes");
  std::memcpy(&length, file.data(), sizeof length);
  if (length > longest_header || length > file.size() - sizeof length) {
    return at_byte(0, "header length " + std::to_string(length) + " runs past the end of the file of " +
                          std::to_string(file.size()) + " bytes or past " + std::to_string(longest_header));
  }
  return parse_header({reinterpret_cast<const char*>(file.data()), sizeof length + length});
}

}  // namespace

Result<std::vector<std::string>> names_in_safetensors(std::span<const std::byte> file) {
  const auto header = read_header(file);
  if (!header) return header.refusal();
  std::vector<std::string> names;
  for (const auto& [name, value] : header->json.items()) {
    if (name != "__metadata__") names.push_back(name);
  }
  return names;
}

Result<StoredArray> parse_safetensors(std::span<const std::byte> file, std::string_view name) {
  const auto parsed = read_header(file);
  if (!parsed) return parsed.refusal();
  const Header& header = *parsed;

  const std::string key(name);
  const auto entry = header.json.find(key);
  if (entry == header.json.end()) {
    std::vector<std::string> others;
    for (const auto& [other, value] : header.json.items()) {
      if (other != "__metadata__" && others.size() < 8) others.push_back(other);
    }
    return at_byte(8, "header has no tensor '" + key + "' among " + join(others, ", "));
  }
  const std::size_t at = header.at(key);
  const auto refusal = [&](const char* field, const std::string& what) { return at_byte(at, key + "." + field + " " + what); };
  if (!entry->is_object()) return at_byte(at, key + " is no JSON object");

  const auto dtype = entry->find("dtype");
  if (dtype == entry->end() || !dtype->is_string()) return refusal("dtype", "is missing");
  const auto& type = dtype->get_ref<const std::string&>();
  StoredArray array;
  if (type == "F16") {
    array.element = Element::f16;
  } else if (type == "BF16") {
    array.element = Element::bf16;
  } else if (type == "F32") {
    array.element = Element::f32;
  } else if (type == "F64") {
    array.element = Element::f64;
  } else if (type == "BOOL") {
    array.element = Element::boolean;
  } else {
    return refusal("dtype", "is " + type + "; accepted: F16, BF16, F32, F64, and BOOL of a mask");
  }

  const auto shape = extents(*entry, "shape");
  if (!shape) return refusal("shape", "is no list of whole numbers");
  const auto offsets = extents(*entry, "data_offsets");
  if (!offsets || offsets->size() != 2) return refusal("data_offsets", "is no pair of whole numbers");
  const auto data = file.subspan(header.text.size());
  const auto begin = static_cast<std::size_t>((*offsets)[0]);
  const auto end = static_cast<std::size_t>((*offsets)[1]);
  if (begin > end || end > data.size()) {
    return refusal("data_offsets", "are " + shape_text(*offsets) + "; the file holds 0.." + std::to_string(data.size()));
  }
  const auto bytes = array_bytes(array.element, *shape);
  if (!bytes || *bytes != end - begin) {
    return refusal("shape", shape_text(*shape) + " needs " + (bytes ? std::to_string(*bytes) : "too many") +
                                " bytes of data, data_offsets hold " + std::to_string(end - begin));
  }
  if (Status covered = check_cover(header, data.size()); !covered) return covered.refusal();
  array.shape = *shape;
  array.data = data.subspan(begin, end - begin);
  return array;
}

}  // namespace attn
