// npz and safetensors: files made here byte by byte.
#include <algorithm>
#include <cmath>
#include <limits>

#include "attn/inputs/file.hpp"
#include "attn/inputs/npy.hpp"
#include "attn/inputs/npz.hpp"
#include "attn/inputs/safetensors.hpp"
#include "support.hpp"

using namespace attn;

namespace {

std::string npy(const Scratch& scratch, std::vector<index_t> shape, float first) {
  std::vector<float> numbers(*array_bytes(Element::f32, shape) / 4);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = first + static_cast<float>(i);
  REQUIRE(write_npy(scratch("member"), shape, numbers));
  std::ifstream stream(scratch("member"), std::ios::binary);
  return std::string((std::istreambuf_iterator<char>(stream)), {});
}

std::uint32_t crc32(const std::string& data) {
  std::uint32_t crc = ~0u;
  for (const char byte : data) {
    crc ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1) * 0xedb88320u;
  }
  return ~crc;
}

// A zip archive; `wide` puts every size and offset into zip64 fields.
std::string zip(const std::vector<std::pair<std::string, std::string>>& members, unsigned method = 0, unsigned flags = 0,
                bool wide = false) {
  std::string file, directory;
  for (const auto& [name, data] : members) {
    const std::string extra = wide ? u16(1) + u16(24) + u64(data.size()) + u64(data.size()) + u64(file.size()) : "";
    const auto field = [wide](std::size_t value) { return u32(wide ? 0xffffffff : value); };
    directory += u32(0x02014b50) + u16(20) + u16(20) + u16(flags) + u16(method) + u32(0) + u32(crc32(data)) + field(data.size()) +
                 field(data.size()) + u16(name.size()) + u16(extra.size()) + u16(0) + u16(0) + u16(0) + u32(0) +
                 field(file.size()) + name + extra;
    file += u32(0x04034b50) + u16(20) + u16(flags) + u16(method) + u32(0) + u32(crc32(data)) + u32(data.size()) + u32(data.size()) +
            u16(name.size()) + u16(3) + name + "pad" + data;
  }
  const std::size_t at = file.size();
  file += directory;
  if (wide) {
    const std::size_t end = file.size();
    file += u32(0x06064b50) + u64(44) + u16(45) + u16(45) + u32(0) + u32(0) + u64(members.size()) + u64(members.size()) +
            u64(directory.size()) + u64(at);
    file += u32(0x07064b50) + u32(0) + u64(end) + u32(1);
  }
  return file + u32(0x06054b50) + u16(0) + u16(0) + u16(wide ? 0xffff : members.size()) + u16(wide ? 0xffff : members.size()) +
         u32(directory.size()) + u32(wide ? 0xffffffff : at) + u16(0);
}

std::string safetensors(const std::string& header, std::size_t data_bytes) {
  return u64(header.size()) + header + std::string(data_bytes, '\x12');
}

std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

std::string refused_npz(const std::string& file) {
  const auto array = parse_npz(bytes(file), "q");
  return array ? "accepted" : array.reason();
}

std::string refused_safetensors(const std::string& file) {
  const auto array = parse_safetensors(bytes(file), "q");
  return array ? "accepted" : array.reason();
}

// Accepted arrays lie inside the file and can be read.
void check(std::span<const std::byte> file, const Result<StoredArray>& array) {
  if (!array) return;
  REQUIRE(array->data.data() >= file.data());
  REQUIRE(array->data.data() + array->data.size() <= file.data() + file.size());
  REQUIRE(array_bytes(array->element, array->shape) == array->data.size());
  std::vector<float> all(static_cast<std::size_t>(element_count(array->shape)));
  read_floats(*array, 0, all);
}

}  // namespace

TEST_CASE("npz: members are found, in plain and in zip64 archives") {
  const Scratch scratch;
  for (const bool wide : {false, true}) {
    const auto path = scratch.write("a.npz", zip({{"other.npy", "x"},
                                                  {"v.npy", npy(scratch, {2, 6, 4}, 200)},
                                                  {"k.npy", npy(scratch, {2, 6, 8}, 100)},
                                                  {"q.npy", npy(scratch, {4, 5, 8}, 0)}},
                                                 0, 0, wide));
    const auto source = input("npz:" + path);
    REQUIRE(source->name() == "npz:" + path);
    REQUIRE(to_string(*source->shape()) == "batch=1 heads=4 kv_heads=2 q_len=5 kv_len=6 head_dim=8 value_dim=4");
    const auto t = source->make(*source->shape(), 1);
    REQUIRE(t);
    REQUIRE(t->q(0, 3, 4, 7) == 159);
    REQUIRE(t->k(0, 1, 5, 7) == 195);
    REQUIRE(t->v(0, 1, 5, 3) == 247);
  }
}

TEST_CASE("npz: what a variant reads beside q, k and v is found by name, cut to the tokens served, or else drawn") {
  const Scratch scratch;
  const auto archive = [&](std::vector<index_t> shape, float first) {
    return input("npz:" + scratch.write("a.npz", zip({{"q.npy", npy(scratch, {2, 6, 8}, 0)},
                                                      {"k.npy", npy(scratch, {2, 6, 8}, 0)},
                                                      {"v.npy", npy(scratch, {2, 6, 8}, 0)},
                                                      {"gate.npy", npy(scratch, std::move(shape), first)}},
                                                     0, 0, false)));
  };
  const auto spec = [](const char* name, index_t tokens) {
    return InputSpec{.name = name, .extents = {1, 2, tokens}, .low = 0, .high = 100, .drawn = [](double x) { return x + 50; }};
  };
  const auto source = archive({2, 6}, 10);
  Problem p = *source->shape();
  p.q_len = p.kv_len = 4;
  const auto named = source->make_named(p, {spec("gate", 4), spec("decay", 4)}, 1);
  REQUIRE(named);
  const auto gate = named->arrays["gate"].f32<3>(), decay = named->arrays["decay"].f32<3>();
  REQUIRE(gate(0, 0, 0) == 10);
  REQUIRE(gate(0, 1, 3) == 19);  // the second row begins after six tokens
  REQUIRE(decay(0, 0, 0) != decay(0, 1, 3));
  REQUIRE(decay(0, 0, 0) == input("iid:1")->make_named(p, {spec("decay", 4)}, 1)->arrays["decay"].f32<3>()(0, 0, 0));
  REQUIRE(decay(0, 0, 0) != input("iid:1")->make_named(p, {spec("decay", 4)}, 2)->arrays["decay"].f32<3>()(0, 0, 0));

  const auto refused = [&](std::vector<index_t> shape, float first) {
    const auto result = archive(std::move(shape), first)->make_named(p, {spec("gate", 4)}, 1);
    return result ? std::string("accepted") : result.reason();
  };
  REQUIRE(refused({1, 2, 6}, 10) == "accepted");
  REQUIRE(refused({2, 5}, 10).find("gate of '") == 0);
  REQUIRE(refused({2, 5}, 10).find("has shape [2,5]; the variant reads [1,2,6]") != std::string::npos);
  REQUIRE(refused({2, 6}, 95).find("element 6 is 101; accepted: 0..100") != std::string::npos);
}

TEST_CASE("npz: a folder stands for its files in the order of their names") {
  const Scratch scratch;
  const std::string archive = zip({{"q.npy", npy(scratch, {2, 6, 8}, 0)}});
  const std::string second = scratch.write("layer1.npz", archive), first = scratch.write("layer0.npz", archive);
  scratch.write("capture.json", "{}");
  const std::string folder = std::filesystem::path(first).parent_path().string();
  CHECK(*expand_input("npz:" + folder + "/,prefix=a.") ==
        std::vector<std::string>{"npz:" + first + ",prefix=a.", "npz:" + second + ",prefix=a."});
  CHECK(*expand_input("npz:" + folder) == std::vector<std::string>{"npz:" + first, "npz:" + second});
  CHECK(*expand_input("npz:" + first) == std::vector<std::string>{"npz:" + first});
  CHECK(*expand_input("iid:1") == std::vector<std::string>{"iid:1"});
  CHECK(*expand_input("npz") == std::vector<std::string>{"npz"});
  std::filesystem::remove(first);
  std::filesystem::remove(second);
  CHECK(expand_input("npz:" + folder).reason() == "input npz: the folder '" + folder + "' has no .npz file");
}

namespace {

// Of two heads and six tokens.
Result<std::unique_ptr<Input>> with_member(const Scratch& scratch, const char* name, const std::string& member,
                                           const char* arguments = "", index_t batch = 1) {
  const std::vector<index_t> shape{batch, 2, 6, 8};
  return parse_input("npz:" +
                     scratch.write("a.npz", zip({{"q.npy", npy(scratch, shape, 0)},
                                                 {"k.npy", npy(scratch, shape, 0)},
                                                 {"v.npy", npy(scratch, shape, 0)},
                                                 {name, member}})) +
                     arguments);
}

// [rows,keys] of the mask that a problem is given.
std::vector<float> mask_of(const Input& source, const Problem& p) {
  const InputSpec spec{.name = "mask",
                       .extents = {p.mask.batch, p.mask.heads, p.mask.rows, p.kv_len},
                       .low = -std::numeric_limits<double>::infinity(),
                       .high = 1e9,
                       .drawn = {},
                       .doc = ""};
  const auto named = source.make_named(p, {spec}, 1);
  REQUIRE(named);
  const auto mask = named->arrays["mask"].f32();
  return {mask.data_handle(), mask.data_handle() + mask.size()};
}

std::string floats(std::vector<float> numbers) {
  return std::string(reinterpret_cast<const char*>(numbers.data()), 4 * numbers.size());
}

}  // namespace

TEST_CASE("npz: a file that says that it is causal serves causal problems") {
  const Scratch scratch;
  for (const bool causal : {false, true}) {
    const auto source = *with_member(scratch, "causal.npy", npy(scratch, {1}, causal ? 1.0f : 0.0f));
    Problem wish = *source->shape();
    CHECK(wish.causal == causal);
    wish.causal = false;
    CHECK(source->adapt(wish)->causal == causal);
    wish.causal = true;
    CHECK(source->adapt(wish)->causal);
    CHECK(source->note(wish).empty());
  }
  CHECK(with_member(scratch, "causal.npy", npy(scratch, {2}, 1)).reason().find("has shape [2]; accepted: one number, 0 or 1") !=
        std::string::npos);
}

TEST_CASE("npz: a mask is the problem's, of keys, of pairs, of heads, unless it is left out") {
  const Scratch scratch;
  const auto shape = [&](std::vector<index_t> extents, index_t batch = 1) {
    return (*with_member(scratch, "mask.npy", npy(scratch, std::move(extents), 0), "", batch))->shape()->mask;
  };
  CHECK(shape({6}) == MaskExtents{1, 1, 1});
  CHECK(shape({1, 6}) == MaskExtents{1, 1, 1});
  CHECK(shape({3, 6}, 3) == MaskExtents{3, 1, 1});
  CHECK(shape({6, 6}, 3) == MaskExtents{1, 1, 6});
  CHECK(shape({2, 6, 6}) == MaskExtents{1, 2, 6});
  CHECK(shape({3, 1, 1, 6}, 3) == MaskExtents{3, 1, 1});
  CHECK(shape({1, 2, 6, 6}) == MaskExtents{1, 2, 6});

  const auto source = *with_member(scratch, "mask.npy", npy(scratch, {6, 6}, 0));
  Problem wish = *source->shape();
  CHECK(source->note(wish) == "its mask [1,1,6,6] is added to the logits");
  wish.kv_len = 4, wish.q_len = 2;
  const auto served = source->adapt(wish);
  CHECK(served->mask == MaskExtents{1, 1, 2});
  CHECK(mask_of(*source, *served) == std::vector<float>{12, 13, 14, 15, 18, 19, 20, 21});  // queries 2 and 3, keys 0 to 3

  const auto bare = *with_member(scratch, "mask.npy", npy(scratch, {6, 6}, 0), ",mask=none");
  CHECK(!bare->shape()->mask.given());
  CHECK(bare->note(*bare->shape()) == "its mask is left out: variants see the causal one alone");
  CHECK(bare->name().ends_with(",mask=none"));
}

TEST_CASE("npz: a mask hides by -inf, by what is below -1e9 and by false; NaN and other infinities are refused") {
  const Scratch scratch;
  const float inf = std::numeric_limits<float>::infinity();
  const auto of = [&](const std::string& type, const std::string& data) {
    const std::vector<index_t> shape{6};
    return with_member(scratch, "mask.npy", npy_header(shape, type) + data);
  };
  const auto read = [&](const std::string& type, const std::string& data) {
    const auto source = *of(type, data);
    return mask_of(*source, *source->shape());
  };
  CHECK(read("<f4", floats({0, 2, -inf, -3.4e38f, -1e9f, -1e4f})) == std::vector<float>{0, 2, -inf, -inf, -inf, -1e4f});
  CHECK(read("|b1", std::string("\1\0\1\1\0\1", 6)) == std::vector<float>{0, -inf, 0, 0, -inf, 0});
  for (const auto& [bad, shown] : {std::pair{std::nanf(""), "nan"}, {inf, "inf"}, {2e9f, "2e+09"}}) {
    const auto source = *of("<f4", floats({0, bad, 0, 0, 0, 0}));
    const InputSpec spec{.name = "mask", .extents = {1, 1, 1, 6}, .low = -1e30, .high = 1e9, .drawn = {}, .doc = ""};
    CHECK(source->make_named(*source->shape(), {spec}, 1)
              .reason()
              .find(std::string(": element 1 is ") + shown +
                    "; accepted: numbers up to 1e+09, and -inf or what is below -1e+09 to hide a key") != std::string::npos);
  }
}

TEST_CASE("npz: a mask of another shape, or type, is refused with those that are accepted") {
  const Scratch scratch;
  const auto refused = [&](std::vector<index_t> shape, index_t batch = 1) {
    return with_member(scratch, "mask.npy", npy(scratch, std::move(shape), 0), "", batch).reason();
  };
  CHECK(refused({5}).find(
            "has shape [5]; accepted: [M] or [B,M] of keys, [N,M], [H,N,M], [B,H,N,M], or 1 along an axis; here [B,H,N,M] is "
            "[1,2,6,6]") != std::string::npos);
  CHECK(refused({3, 6, 6}).find("has shape [3,6,6]; accepted") != std::string::npos);
  CHECK(refused({1, 1, 2, 6, 6}).find("has shape [1,1,2,6,6]; accepted") != std::string::npos);
  CHECK(refused({6, 6}, 6).find("which is [B,M] and [N,M] alike; accepted: [B,1,1,M] or [1,1,N,M]") != std::string::npos);
  CHECK(with_member(scratch, "mask.npy", npy(scratch, {6}, 0), ",mask=keys").reason() ==
        "input npz: 'mask=keys'; accepted: mask=none");
  const std::vector<index_t> heads{2, 6, 8};
  CHECK(parse_input("npz:" + scratch.write("b.npz", zip({{"q.npy", npy_header(heads, "|b1") + std::string(96, '\1')},
                                                         {"k.npy", npy(scratch, heads, 0)},
                                                         {"v.npy", npy(scratch, heads, 0)}})))
            .reason()
            .find("is of booleans; accepted of a mask alone") != std::string::npos);
}

TEST_CASE("model: each layer of a carried capture is an input of its own shape; others are refused by name") {
  const std::vector<std::string> layers = *expand_input("model:ocr");
  CHECK(layers == std::vector<std::string>{"model:ocr,layer=0", "model:ocr,layer=1"});
  for (const std::string& name : layers) {
    const auto source = input(name);
    CHECK(source->name() == name);
    const Problem p = *source->shape();
    CHECK(to_string(p) == "batch=1 heads=8 q_len=1024 head_dim=15");
    const auto t = source->make(p, 1);
    REQUIRE(t);
    CHECK(std::abs(t->q(0, 7, 1023, 14)) > 0);
  }
  CHECK(parse_input("model:bert").reason() == "input model: 'bert' is no capture that attnbench carries; accepted: ocr");
  CHECK(parse_input("model:ocr,layer=2").reason() == "input model:ocr,layer=2: ocr has 2 layers; accepted: layer=0 to layer=1");
  CHECK(parse_input("model:").reason() == "input model takes 1 file, not 0");
}

TEST_CASE("npz: malformed archives are refused, by field and byte") {
  const Scratch scratch;
  const std::string q = npy(scratch, {2, 3}, 0);
  REQUIRE(refused_npz("") == "byte 0: magic is not PK\\3\\4: no .npz file");
  REQUIRE(refused_npz(q) == "byte 0: magic is not PK\\3\\4: no .npz file");
  const std::string valid = zip({{"q.npy", q}});
  REQUIRE(refused_npz(valid) == "accepted");
  REQUIRE(refused_npz(valid + "a comment") == "accepted");
  REQUIRE(refused_npz(valid.substr(0, valid.size() - 1)).find("no end-of-directory record: the archive is cut short") !=
          std::string::npos);
  REQUIRE(refused_npz(zip({{"k.npy", q}})).find(": there is no member q.npy among k.npy") != std::string::npos);
  REQUIRE(refused_npz(zip({{"q.npy", q}}, 12))
              .find("q.npy is compressed by method 12; accepted: 0 and 8, as numpy.savez and "
                    "savez_compressed write") != std::string::npos);
  REQUIRE(refused_npz(zip({{"q.npy", q}}, 8)).find("member q.npy: the compressed bytes are torn") != std::string::npos);
  REQUIRE(refused_npz(zip({{"q.npy", q}}, 0, 1)).find("is encrypted") != std::string::npos);
  const auto patched = [&](std::size_t from_directory, const std::string& with) {
    std::string file = valid;
    file.replace(file.find("PK\x01\x02") + from_directory, with.size(), with);
    return refused_npz(file);
  };
  REQUIRE(patched(0, "XX").find("directory entry is missing") != std::string::npos);
  REQUIRE(patched(30, u16(60000)).find("runs past the end") != std::string::npos);
  REQUIRE(crc32("123456789") == 0xcbf43926);  // the check value that catalogues of CRCs list
  const auto entry = valid.find("PK\x01\x02");
  REQUIRE(patched(16, u32(1)) ==
          "byte " + std::to_string(entry + 16) + ": CRC-32 of member q.npy is not that of its bytes: the archive is damaged");
  std::string flipped = valid;
  flipped[entry - 1] ^= 1;
  REQUIRE(refused_npz(flipped) == patched(16, u32(1)));
  REQUIRE(refused_npz(zip({{"q.npy", q}, {"q.npy", q}})).find(": there is a second member q.npy") != std::string::npos);
  REQUIRE(refused_npz(zip({{"k.npy", q}, {"q.npy", q}, {"k.npy", q}})) == "accepted");
  REQUIRE(patched(20, u32(7)).find("is stored in another size") != std::string::npos);
  REQUIRE(patched(20, u32(1 << 30) + u32(1 << 30)).find("member q.npy runs past the end of the file") != std::string::npos);
  REQUIRE(patched(42, u32(5)).find("points to no member") != std::string::npos);
  REQUIRE(patched(42, u32(0xffffffff)).find("zip64 field is missing") != std::string::npos);
  REQUIRE(refused_npz(zip({{"q.npy", q.substr(0, q.size() - 4)}})) ==
          "member q.npy at byte 38, its byte 60: shape [2,3] needs 24 bytes of data, the file holds 20");
  REQUIRE(refusal("npz:a.npz,b.npz").find("takes 1 file, not 2") != std::string::npos);
  REQUIRE(refusal("npz:a.npz,layer=1,layer=2").find("input npz: layer is given twice") != std::string::npos);
  REQUIRE(refusal("safetensors:a,prefix=,prefix=b").find("input safetensors: prefix is given twice") != std::string::npos);
}

TEST_CASE("npz: whatever is changed in a valid file, parsing stays inside it") {
  const Scratch scratch;
  for (const bool wide : {false, true}) {
    const auto valid = zip({{"k.npy", "xy"}, {"q.npy", npy(scratch, {2, 3}, 0)}}, 0, 0, wide);
    mutate(valid, 50000, [](auto file) { check(file, parse_npz(file, "q")); });
  }
}

TEST_CASE("safetensors: layers and types") {
  const Scratch scratch;
  // q: F16 ones, k: BF16 twos, v: F32; two layers, one head, one row, two dims
  std::string data;
  for (int i = 0; i < 4; ++i) data += u16(0x3c00);
  for (int i = 0; i < 4; ++i) data += u16(0x4000);
  for (int i = 0; i < 4; ++i) data += little(static_cast<float>(i));
  const std::string header = "{\"__metadata__\":{\"format\":\"pt\"}," + tensor("q", "F16", "[2,1,1,2]", "[0,8]") + "," +
                             tensor("k", "BF16", "[2,1,1,2]", "[8,16]") + "," + tensor("v", "F32", "[2,1,1,2]", "[16,32]") + "," +
                             tensor("ids", "I64", "[0]", "[32,32]") + "}   ";
  const auto path = scratch.write("a.safetensors", u64(header.size()) + header + data);
  const auto layer = input("safetensors:" + path + ",layer=1");
  REQUIRE(to_string(*layer->shape()) == "batch=1 heads=1 q_len=1 head_dim=2");
  const auto t = layer->make(*layer->shape(), 1);
  REQUIRE(t);
  REQUIRE(values(t->q) == std::vector<float>{1, 1});
  REQUIRE(values(t->k) == std::vector<float>{2, 2});
  REQUIRE(values(t->v) == std::vector<float>{2, 3});
  REQUIRE(input("safetensors:" + path)->shape()->batch == 2);
  REQUIRE(refusal("safetensors:" + path + ",layer=2").find("needs [L,H,N,d] or [L,B,H,N,d] with L > 2") != std::string::npos);
  REQUIRE(refusal(path).find("did you mean 'safetensors:" + path + "'") != std::string::npos);
}

TEST_CASE("safetensors: a prefix chooses among the tensors of many layers") {
  const Scratch scratch;
  std::string header = "{", data;
  for (const char* layer : {"layers.0.", "layers.1."}) {
    for (const char* name : {"q", "k", "v"}) {
      const auto begin = std::to_string(data.size()), end = std::to_string(data.size() + 4);
      header += (data.empty() ? "" : ",") + tensor(std::string(layer) + name, "F32", "[1,1]", "[" + begin + "," + end + "]");
      data += little(static_cast<float>(data.size()));
    }
  }
  header += "}";
  const auto path = scratch.write("a.safetensors", u64(header.size()) + header + data);
  const auto second = input("safetensors:" + path + ",prefix=layers.1.");
  const auto t = second->make(*second->shape(), 1);
  REQUIRE(t);
  REQUIRE(values(t->q) == std::vector<float>{12});
  REQUIRE(values(t->v) == std::vector<float>{20});
  REQUIRE(refusal("safetensors:" + path + ",prefix=layers.2.").find("has no tensor 'layers.2.q' among layers.0.k") !=
          std::string::npos);
}

TEST_CASE("safetensors: malformed files are refused, by field and byte") {
  const auto file = [](const std::string& fields, std::size_t data = 24) {
    return refused_safetensors(safetensors("{" + fields + "}", data));
  };
  REQUIRE(file(tensor("q", "F32", "[2,3]", "[0,24]")) == "accepted");
  REQUIRE(refused_safetensors("1234567") == "byte 7: the file ends within its header length of 8 bytes");
  REQUIRE(refused_safetensors(u64(100) + "{}").find("byte 0: header length 100 runs past the end of the file of 10 bytes") == 0);
  REQUIRE(refused_safetensors(u64(~std::size_t{0}) + "{}").find("byte 0: header length") == 0);
  REQUIRE(refused_safetensors(safetensors("", 0)).find("header is no valid JSON") != std::string::npos);
  REQUIRE(refused_safetensors(safetensors("{\"q\": nonsense}", 0)).find("byte 16: header is no valid JSON") == 0);
  REQUIRE(refused_safetensors(safetensors("[1]", 0)) == "byte 8: header is no JSON object");
  REQUIRE(refused_safetensors(safetensors("{\"q\":1e999}", 0)).find("byte 8: header") == 0);
  REQUIRE(file(tensor("k", "F32", "[2,3]", "[0,24]")) == "byte 8: header has no tensor 'q' among k");
  REQUIRE(file("\"q\":3") == "byte 9: q is no JSON object");
  REQUIRE(file("\"q\":{}") == "byte 9: q.dtype is missing");
  REQUIRE(file(tensor("q", "I8", "[2,3]", "[0,6]")) == "byte 9: q.dtype is I8; accepted: F16, BF16, F32, F64, and BOOL of a mask");
  for (const auto& shape : {"[2,-3]", "[2.5]", "6", "[\"2\"]", "[9223372036854775808]"}) {
    REQUIRE(file(tensor("q", "F32", shape, "[0,24]")) == "byte 9: q.shape is no list of whole numbers");
  }
  for (const auto& offsets : {"[0]", "[0,8,24]", "[-1,24]", "24"}) {
    REQUIRE(file(tensor("q", "F32", "[2,3]", offsets)) == "byte 9: q.data_offsets is no pair of whole numbers");
  }
  REQUIRE(file(tensor("q", "F32", "[2,3]", "[0,25]")) == "byte 9: q.data_offsets are [0,25]; the file holds 0..24");
  REQUIRE(file(tensor("q", "F32", "[2,3]", "[24,0]")) == "byte 9: q.data_offsets are [24,0]; the file holds 0..24");
  REQUIRE(file(tensor("q", "F16", "[2,3]", "[0,24]")) == "byte 9: q.shape [2,3] needs 12 bytes of data, data_offsets hold 24");
  REQUIRE(file(tensor("q", "F32", "[4611686018427387904,2]", "[0,24]")).find("needs too many bytes") != std::string::npos);
  const std::string q = tensor("q", "F32", "[2,3]", "[0,24]");
  REQUIRE(file(q + "," + tensor("k", "F32", "[0]", "[24,24]") + "," + q) == "byte 9: tensor q is given twice");
  REQUIRE(file(tensor("k", "F32", "[0]", "[0,0]") + "," + tensor("k", "F32", "[0]", "[0,0]") + "," + q) ==
          "byte 9: tensor k is given twice");
  REQUIRE(file("\"q\":{\"dtype\":\"F16\"," + q.substr(5)) == "byte 9: q.dtype is given twice");
  // Strings that look like the key are not where the tensor is.
  REQUIRE(file("\"__metadata__\":{\"a\":\"q\",\"q\":\"{\"}, \"q\" : {\"dtype\":\"I8\"}").find("byte 43: q.dtype is I8") == 0);
}

TEST_CASE("safetensors: every byte of the data belongs to one tensor") {
  const auto file = [](const std::string& k, const std::string& q, std::size_t data) {
    return refused_safetensors(safetensors("{" + tensor("k", "F16", "[4]", k) + "," + tensor("q", "F16", "[4]", q) + "}", data));
  };
  REQUIRE(file("[0,8]", "[8,16]", 16) == "accepted");
  REQUIRE(file("[8,16]", "[0,8]", 16) == "accepted");
  REQUIRE(file("[0,0]", "[0,8]", 8) == "accepted");  // a tensor without elements; k's own shape is not asked for here
  const std::string at_k = "byte 9: k.data_offsets ", at_q = "byte 62: q.data_offsets ";
  REQUIRE(file("[0,8]", "[4,12]", 12) == at_q + "[4,12] overlap those of k, which end at 8");
  REQUIRE(file("[0,8]", "[0,8]", 8) == at_q + "[0,8] overlap those of k, which end at 8");
  REQUIRE(file("[0,16]", "[8,16]", 16) == "byte 63: q.data_offsets [8,16] overlap those of k, which end at 16");
  REQUIRE(file("[8,16]", "[1,9]", 16) == "byte 63: q.data_offsets [1,9] leave a hole: the first tensor begins at 0");
  REQUIRE(file("[0,8]", "[12,20]", 20) == "byte 62: q.data_offsets [12,20] leave a hole: k ends at 8");
  REQUIRE(file("[0,8]", "[8,16]", 17) == at_q + "end the tensors at 16; the file holds 0..17");
  REQUIRE(file("[8,17]", "[0,8]", 16) == at_k + "end the tensors at 17; the file holds 0..16");
  REQUIRE(file("[8,4]", "[0,8]", 16) == at_k + "is no pair of whole numbers in ascending order");
  REQUIRE(file("[8]", "[0,8]", 8) == at_k + "is no pair of whole numbers in ascending order");
  REQUIRE(refused_safetensors(safetensors("{\"k\":1," + tensor("q", "F16", "[4]", "[0,8]") + "}", 8)) ==
          at_k + "is no pair of whole numbers in ascending order");
}

TEST_CASE("safetensors: whatever is changed in a valid file, parsing stays inside it") {
  const auto valid = safetensors("{" + tensor("k", "F32", "[2]", "[0,8]") + "," + tensor("q", "F32", "[2,3]", "[8,32]") + "}", 32);
  mutate(valid, 100000, [](auto file) { check(file, parse_safetensors(file, "q")); });
}

TEST_CASE("an archive that was written is read back: arrays and a text behind them") {
  const Scratch scratch;
  const std::vector<float> k{1, 2, 3, 4, 5, 6}, sum{-7};
  const std::vector<NpzArray> arrays{{"k", {2, 3}, k}, {"sum", {1, 1, 1}, sum}};
  REQUIRE(write_npz(scratch("a.npz"), arrays, "note.txt", "two words\n"));
  const auto file = MappedFile::open(scratch("a.npz"));
  REQUIRE(file);
  CHECK(*names_in_npz(file->bytes()) == std::vector<std::string>{"k", "sum"});
  CHECK(*text_in_npz(file->bytes(), "note.txt") == "two words\n");
  for (const NpzArray& array : arrays) {
    const auto stored = parse_npz(file->bytes(), array.name);
    REQUIRE(stored);
    CHECK(stored->shape == array.shape);
    std::vector<float> values(array.values.size());
    read_floats(*stored, 0, values);
    CHECK(std::ranges::equal(values, array.values));
  }
  CHECK(text_in_npz(file->bytes(), "other.txt").reason().find("there is no member other.txt among k.npy, sum.npy, note.txt") !=
        std::string::npos);

  // Any bit that is changed is found: by a field, or by the sum of the member that it is in.
  const auto bytes = file->bytes();
  for (std::size_t at = 0; at < bytes.size(); at += 7) {
    std::vector<std::byte> damaged(bytes.begin(), bytes.end());
    damaged[at] ^= std::byte{4};
    const auto text = text_in_npz(damaged, "note.txt");
    if (text) CHECK(*text == "two words\n");
  }
  CHECK(write_npz(scratch("none/a.npz"), arrays, "note.txt", "").reason().find("cannot write '" + scratch("none/a.npz") + "': ") ==
        0);
}
