#include "attn/core/dtype.hpp"

#include <array>

#include "attn/core/assert.hpp"

namespace attn {

namespace {

struct Entry {
  DType dtype;
  std::string_view name;
  index_t elements, bytes;  // so many elements take so many bytes
  double epsilon, least_normal;
};
constexpr std::array entries = {Entry{DType::f32, "f32", 1, 4, 0x1p-23, 0x1p-126}};

const Entry& entry_of(DType dtype) {
  for (const Entry& entry : entries) {
    if (entry.dtype == dtype) return entry;
  }
  ATTN_ASSERT(false && "a dtype of the table");
  return entries.front();
}

}  // namespace

std::string_view to_string(DType dtype) { return entry_of(dtype).name; }

Result<DType> parse_dtype(std::string_view name) {
  std::string accepted;
  for (const Entry& entry : entries) {
    if (entry.name == name) return entry.dtype;
    accepted += (accepted.empty() ? "" : ", ") + std::string(entry.name);
  }
  return refuse("'" + std::string(name) + "' is no dtype; accepted: " + accepted);
}

double epsilon_of(DType dtype) { return entry_of(dtype).epsilon; }
double least_normal_of(DType dtype) { return entry_of(dtype).least_normal; }

index_t bytes_of(DType dtype, index_t count) {
  const Entry& entry = entry_of(dtype);
  return (count + entry.elements - 1) / entry.elements * entry.bytes;
}

}  // namespace attn
