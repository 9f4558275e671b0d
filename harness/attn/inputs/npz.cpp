#include "attn/inputs/npz.hpp"

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "attn/core/text.hpp"
#include "attn/exec/limits.hpp"
#include "attn/inputs/crc32.hpp"
#include "attn/inputs/npy.hpp"

namespace attn {

namespace {

Refusal at_byte(std::size_t offset, const std::string& what) { return refuse("byte " + std::to_string(offset) + ": " + what); }

// Little-endian numbers at any offset; nothing beyond the end.
class Bytes {
 public:
  explicit Bytes(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::size_t size() const { return bytes_.size(); }

  bool holds(std::size_t offset, std::size_t count) const { return offset <= size() && count <= size() - offset; }

  template <class T>
  std::optional<T> read(std::size_t offset) const {
    T value;
    if (!holds(offset, sizeof value)) return {};
    std::memcpy(&value, bytes_.data() + offset, sizeof value);
    return value;
  }
  std::optional<std::uint16_t> u16(std::size_t offset) const { return read<std::uint16_t>(offset); }
  std::optional<std::uint32_t> u32(std::size_t offset) const { return read<std::uint32_t>(offset); }
  std::optional<std::uint64_t> u64(std::size_t offset) const { return read<std::uint64_t>(offset); }

  std::string_view text(std::size_t offset, std::size_t count) const {
    return {reinterpret_cast<const char*>(bytes_.data()) + offset, count};
  }
  std::span<const std::byte> span(std::size_t offset, std::size_t count) const { return bytes_.subspan(offset, count); }

 private:
  std::span<const std::byte> bytes_;
};

struct Directory {
  std::uint64_t entries, offset;
};

// The end-of-directory record is the last thing in the file but for a comment of at most 65535 bytes.
Result<Directory> find_directory(const Bytes& file) {
  constexpr std::size_t record = 22;
  if (file.size() < record || *file.u32(0) != 0x04034b50) return at_byte(0, "magic is not PK\\3\\4: no .npz file");
  for (std::size_t at = file.size() - record, tries = 0; tries <= 65535; --at, ++tries) {
    if (*file.u32(at) == 0x06054b50) {
      Directory directory{*file.u16(at + 10), *file.u32(at + 16)};
      if (directory.entries != 0xffff && directory.offset != 0xffffffff) return directory;
      // zip64: a locator of 20 bytes stands before, and points to the wide record.
      const auto wide = at >= 20 && file.u32(at - 20) == 0x07064b50 ? file.u64(at - 20 + 8) : std::nullopt;
      if (!wide || !file.holds(*wide, 56) || file.u32(*wide) != 0x06064b50) return at_byte(at, "zip64 directory is missing");
      return Directory{*file.u64(*wide + 32), *file.u64(*wide + 48)};
    }
    if (at == 0) break;
  }
  return at_byte(file.size(), "no end-of-directory record: the archive is cut short");
}

struct Member {
  std::uint64_t stored_bytes, bytes, offset;
};

// Fields that do not fit 32 bits stand in the zip64 extra field, those only, in this order.
bool widen(const Bytes& file, std::size_t extra, std::size_t extra_bytes, Member& member) {
  for (const std::size_t end = extra + extra_bytes; extra + 4 <= end;) {
    const std::size_t tag = *file.u16(extra);
    const std::size_t length = *file.u16(extra + 2);
    extra += 4;
    if (length > end - extra) return false;
    if (tag == 1) {
      std::size_t at = extra;
      for (std::uint64_t* field : {&member.bytes, &member.stored_bytes, &member.offset}) {
        if (*field != 0xffffffff) continue;
        if (at + 8 > extra + length) return false;
        *field = *file.u64(at);
        at += 8;
      }
      return true;
    }
    extra += length;
  }
  return false;
}

struct Entry {
  std::string name;
  std::size_t at;  // where the directory's entry begins
};

Result<std::vector<Entry>> entries_of(const Bytes& file) {
  const auto directory = find_directory(file);
  if (!directory) return directory.refusal();
  std::vector<Entry> entries;
  std::size_t at = directory->offset;
  for (std::uint64_t entry = 0; entry < directory->entries; ++entry) {
    if (!file.holds(at, 46) || *file.u32(at) != 0x02014b50) return at_byte(std::min(at, file.size()), "directory entry is missing");
    const std::size_t name_bytes = *file.u16(at + 28);
    const std::size_t extra_bytes = *file.u16(at + 30);
    const std::size_t comment_bytes = *file.u16(at + 32);
    if (!file.holds(at + 46, name_bytes + extra_bytes + comment_bytes)) return at_byte(at, "directory entry runs past the end");
    entries.push_back({std::string(file.text(at + 46, name_bytes)), at});
    at += 46 + name_bytes + extra_bytes + comment_bytes;
  }
  return entries;
}

Result<std::size_t> find_entry(const Bytes& file, std::string_view name) {
  const auto entries = entries_of(file);
  if (!entries) return entries.refusal();
  const Entry* found = nullptr;
  std::vector<std::string> others;
  for (const Entry& entry : *entries) {
    if (entry.name == name) {
      if (found != nullptr) return at_byte(entry.at, "there is a second member " + std::string(name) + "; one is accepted");
      found = &entry;
    }
    if (others.size() < 8) others.push_back(entry.name);
  }
  if (found != nullptr) return found->at;
  return at_byte(find_directory(file)->offset, "there is no member " + std::string(name) + " among " + join(others, ", "));
}

constexpr unsigned stored_method = 0, deflate_method = 8;

// The bytes of the member whose directory entry begins at `at`, as they lie in the file.
struct Packed {
  std::span<const std::byte> bytes;
  std::uint64_t unpacked_bytes;
  bool deflated;
};

Result<Packed> packed(const Bytes& file, std::size_t at, const std::string& name) {
  const unsigned method = *file.u16(at + 10);
  if ((*file.u16(at + 8) & 1u) != 0) return at_byte(at + 8, "member " + name + " is encrypted");
  if (method != stored_method && method != deflate_method) {
    return at_byte(at + 10, "member " + name + " is compressed by method " + std::to_string(method) +
                                "; accepted: 0 and 8, as numpy.savez and savez_compressed write");
  }
  Member member{*file.u32(at + 20), *file.u32(at + 24), *file.u32(at + 42)};
  const std::size_t extra = at + 46 + *file.u16(at + 28);
  const bool wide = member.bytes == 0xffffffff || member.stored_bytes == 0xffffffff || member.offset == 0xffffffff;
  if (wide && !widen(file, extra, *file.u16(at + 30), member)) return at_byte(extra, "zip64 field is missing");
  if (method == stored_method && member.bytes != member.stored_bytes)
    return at_byte(at + 20, "member " + name + " is stored in another size");
  if (!file.holds(member.offset, 30) || *file.u32(member.offset) != 0x04034b50)
    return at_byte(at + 42, "offset of member " + name + " points to no member");
  const std::size_t data = member.offset + 30 + *file.u16(member.offset + 26) + *file.u16(member.offset + 28);
  if (!file.holds(data, member.stored_bytes)) return at_byte(at + 24, "member " + name + " runs past the end of the file");
  return Packed{file.span(data, member.stored_bytes), member.bytes, method == deflate_method};
}

// A raw deflate stream of a member that says how long it becomes.
Result<std::vector<std::byte>> inflated(const Packed& member) {
  // Deflate gains 1032 to 1 at most: more is a lie, told before anything is allocated.
  if (member.unpacked_bytes / 1032 > member.bytes.size() ||
      member.unpacked_bytes > static_cast<std::uint64_t>(available_memory_bytes()))
    return refuse(std::to_string(member.unpacked_bytes) + " bytes are said to lie in " + std::to_string(member.bytes.size()));
  std::vector<std::byte> bytes(member.unpacked_bytes);
  z_stream stream{};
  if (::inflateInit2(&stream, -MAX_WBITS) != Z_OK) return refuse("zlib does not start");
  constexpr std::size_t most = std::size_t{1} << 30;  // zlib counts in 32 bits
  std::size_t in = 0, out = 0;
  int end = Z_OK;
  while (end == Z_OK) {
    const auto in_part = static_cast<uInt>(std::min(most, member.bytes.size() - in));
    const auto out_part = static_cast<uInt>(std::min(most, bytes.size() - out));
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(member.bytes.data() + in));
    stream.next_out = reinterpret_cast<Bytef*>(bytes.data() + out);
    stream.avail_in = in_part, stream.avail_out = out_part;
    end = ::inflate(&stream, Z_NO_FLUSH);
    in += in_part - stream.avail_in, out += out_part - stream.avail_out;
  }
  ::inflateEnd(&stream);
  if (end != Z_STREAM_END || out != bytes.size()) return refuse("the compressed bytes are torn");
  return bytes;
}

}  // namespace

Result<std::vector<std::string>> names_in_npz(std::span<const std::byte> file) {
  const auto entries = entries_of(Bytes(file));
  if (!entries) return entries.refusal();
  constexpr std::string_view ending = ".npy";
  std::vector<std::string> names;
  for (const Entry& entry : *entries) {
    if (entry.name.ends_with(ending)) names.push_back(entry.name.substr(0, entry.name.size() - ending.size()));
  }
  return names;
}

namespace {

struct Found {
  std::size_t entry;  // in the directory
  std::span<const std::byte> bytes;
  std::shared_ptr<const std::vector<std::byte>> inflated;  // that they lie in, where they were compressed
};

Result<Found> find(const Bytes& archive, const std::string& member) {
  const auto entry = find_entry(archive, member);
  if (!entry) return entry.refusal();
  const auto bytes = packed(archive, *entry, member);
  if (!bytes) return bytes.refusal();
  if (!bytes->deflated) return Found{*entry, bytes->bytes, nullptr};
  auto unpacked = inflated(*bytes);
  if (!unpacked) return at_byte(*entry, "member " + member + ": " + unpacked.reason());
  const auto owned = std::make_shared<const std::vector<std::byte>>(*std::move(unpacked));
  return Found{*entry, *owned, owned};
}

// Asked last: a refusal by field says more.
Status undamaged(const Bytes& archive, const Found& found, const std::string& member) {
  if (crc32(found.bytes) == *archive.u32(found.entry + 16)) return {};
  return at_byte(found.entry + 16, "CRC-32 of member " + member + " is not that of its bytes: the archive is damaged");
}

}  // namespace

Result<StoredArray> parse_npz(std::span<const std::byte> file, std::string_view name) {
  const std::string member = std::string(name) + ".npy";
  const Bytes archive(file);
  const auto found = find(archive, member);
  if (!found) return found.refusal();
  auto array = parse_npy(found->bytes);
  if (!array) {
    const std::string at = found->inflated ? "" : " at byte " + std::to_string(found->bytes.data() - file.data());
    return refuse("member " + member + at + ", its " + array.reason());
  }
  array->inflated = found->inflated;
  if (Status sound = undamaged(archive, *found, member); !sound) return sound.refusal();
  return array;
}

Result<std::string> text_in_npz(std::span<const std::byte> file, const std::string& member) {
  const Bytes archive(file);
  const auto found = find(archive, member);
  if (!found) return found.refusal();
  if (Status sound = undamaged(archive, *found, member); !sound) return sound.refusal();
  return std::string(reinterpret_cast<const char*>(found->bytes.data()), found->bytes.size());
}

}  // namespace attn
