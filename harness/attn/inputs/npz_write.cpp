#include <fstream>

#include "attn/inputs/crc32.hpp"
#include "attn/inputs/file.hpp"
#include "attn/inputs/npy.hpp"
#include "attn/inputs/npz.hpp"

namespace attn {

namespace {

struct Part {
  std::string name, head;
  std::span<const std::byte> body;  // behind the head
  std::uint32_t crc = 0;
  std::uint64_t offset = 0;  // of its local header

  std::uint64_t bytes() const { return head.size() + body.size(); }
};

std::span<const std::byte> as_span(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }

class Record {
 public:
  Record& u16(std::uint64_t value) { return number(value, 2); }
  Record& u32(std::uint64_t value) { return number(value, 4); }
  Record& add(std::string_view more) { return text_ += more, *this; }
  const std::string& text() const { return text_; }

 private:
  Record& number(std::uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) text_ += static_cast<char>(value >> 8 * i & 0xff);
    return *this;
  }
  std::string text_;
};

// What local header and directory entry of a part both say: version 2.0, stored, on the first day of the format.
Record& describe(Record& record, const Part& part) {
  return record.u16(20)
      .u16(0)
      .u16(0)
      .u16(0)
      .u16(0x21)
      .u32(part.crc)
      .u32(part.bytes())
      .u32(part.bytes())
      .u16(part.name.size())
      .u16(0);
}

std::string local_header(const Part& part) {
  Record record;
  record.u32(0x04034b50);
  return describe(record, part).add(part.name).text();
}

std::string directory_entry(const Part& part) {
  Record record;
  record.u32(0x02014b50).u16(20);
  return describe(record, part).u16(0).u16(0).u16(0).u32(0).u32(part.offset).add(part.name).text();
}

}  // namespace

Status write_npz(const std::string& path, std::span<const NpzArray> arrays, const std::string& member, std::string_view text) {
  std::vector<Part> parts;
  for (const NpzArray& array : arrays) parts.push_back({array.name + ".npy", npy_header(array.shape), std::as_bytes(array.values)});
  parts.push_back({member, "", as_span(text)});
  std::uint64_t end = 0;
  std::string directory;
  for (Part& part : parts) {
    part.crc = crc32(part.body, crc32(as_span(part.head)));
    part.offset = end;
    end += local_header(part).size() + part.bytes();
    directory += directory_entry(part);
  }
  if (end + directory.size() >= 0xffffffff)
    return refuse("'" + path + "' would have " + std::to_string(end) + " bytes, an .npz is written up to 4 GiB");
  return write_whole(path, [&](std::ostream& file) {
    for (const Part& part : parts) {
      file << local_header(part) << part.head;
      file.write(reinterpret_cast<const char*>(part.body.data()), static_cast<std::streamsize>(part.body.size()));
    }
    Record last;
    last.u32(0x06054b50).u16(0).u16(0).u16(parts.size()).u16(parts.size()).u32(directory.size()).u32(end).u16(0);
    file << directory << last.text();
  });
}

}  // namespace attn
