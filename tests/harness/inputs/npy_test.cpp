#include "attn/inputs/npy.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <limits>

#include "attn/inputs/array.hpp"
#include "support.hpp"

using namespace attn;

namespace {

std::string npy(const std::string& dictionary, std::size_t data_bytes, int version = 1) {
  std::string file = "\x93NUMPY";
  file += static_cast<char>(version);
  file += '\0';
  const std::string header = dictionary + "\n";
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) file += static_cast<char>(header.size() >> (8 * i) & 0xff);
  return file + header + std::string(data_bytes, '\x11');
}

std::string descr(const std::string& type, const std::string& shape, const std::string& fortran = "False") {
  return "{'descr': '" + type + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }";
}

std::string refused(const std::string& file) {
  const auto array = parse_npy(bytes(file));
  return array ? "accepted" : array.reason();
}

void write(const std::string& path, std::vector<index_t> shape, double first = 0) {
  std::vector<float> numbers(*array_bytes(Element::f32, shape) / 4);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(first) + static_cast<float>(i);
  REQUIRE(write_npy(path, shape, numbers));
}

}  // namespace

TEST_CASE("half precision is exact: all 65536 values against their definition") {
  for (std::uint32_t h = 0; h < 0x10000; ++h) {
    const int exponent = static_cast<int>(h >> 10 & 31);
    const double mantissa = h & 0x3ff;
    double expected = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    if (exponent == 31) expected = mantissa == 0 ? std::numeric_limits<double>::infinity() : std::nan("");
    if ((h & 0x8000) != 0) expected = -expected;
    const float x = to_float(f16{static_cast<std::uint16_t>(h)});
    if (std::isnan(expected)) {
      REQUIRE(std::isnan(x));
    } else {
      REQUIRE(static_cast<double>(x) == expected);
      REQUIRE(std::signbit(x) == ((h & 0x8000) != 0));
    }
    REQUIRE(std::bit_cast<std::uint32_t>(to_float(bf16{static_cast<std::uint16_t>(h)})) == h << 16);
  }
}

TEST_CASE("npy: what is written reads back, at any rank") {
  const Scratch scratch;
  for (const auto& shape : std::vector<std::vector<index_t>>{{}, {5}, {3, 4}, {2, 3, 4, 5}, {1, 1, 1, 1, 1, 7}, {0, 3}}) {
    write(scratch("a.npy"), shape, 0.5);
    std::ifstream stream(scratch("a.npy"), std::ios::binary);
    const std::string file((std::istreambuf_iterator<char>(stream)), {});
    const auto array = parse_npy(bytes(file));
    REQUIRE(array);
    REQUIRE(array->shape == shape);
    REQUIRE((file.size() - array->data.size()) % 64 == 0);
    std::vector<float> back(array->data.size() / 4);
    read_floats(*array, 0, back);
    for (std::size_t i = 0; i < back.size(); ++i) REQUIRE(back[i] == 0.5f + static_cast<float>(i));
  }
  REQUIRE(!write_npy(scratch("no/such/place.npy"), std::vector<index_t>{0}, {}));
  REQUIRE(!std::filesystem::exists(scratch("a.npy.part")));
}

TEST_CASE("npy: the file at a link's end is replaced, and a pipe is written in place") {
  const Scratch scratch;
  for (const bool there : {false, true}) {
    if (!there) std::filesystem::create_directory(scratch("folder"));
    if (!there) std::filesystem::create_symlink("folder/a.npy", scratch("near"));
    if (!there) std::filesystem::create_symlink(scratch("near"), scratch("far"));
    write(scratch("far"), {2, 3});
    for (const auto& link : {"near", "far"}) REQUIRE(std::filesystem::is_symlink(scratch(link)));
    REQUIRE(std::filesystem::file_size(scratch("folder/a.npy")) == 128 + 24);
    REQUIRE(!std::filesystem::exists(scratch("folder/a.npy.part")));
  }

  REQUIRE(::mkfifo(scratch("pipe").c_str(), 0600) == 0);
  std::filesystem::create_symlink("pipe", scratch("to_pipe"));
  const int reader = ::open(scratch("pipe").c_str(), O_RDONLY | O_NONBLOCK);
  write(scratch("to_pipe"), {2, 3});
  char file[1000];
  REQUIRE(::read(reader, file, sizeof file) == 128 + 24);
  ::close(reader);
  REQUIRE(std::filesystem::is_fifo(scratch("pipe")));
}

TEST_CASE("npy: versions, types, spellings that numpy writes") {
  for (const int version : {1, 2, 3}) REQUIRE(refused(npy(descr("<f4", "(2, 3)"), 24, version)) == "accepted");
  REQUIRE(refused(npy(descr("<f2", "(2, 3)"), 12)) == "accepted");
  REQUIRE(refused(npy(descr("<f8", "(2, 3)"), 48)) == "accepted");
  REQUIRE(refused(npy(descr("<f4", "(6L,)"), 24)) == "accepted");
  REQUIRE(refused(npy("{\"shape\":(2,3),\"fortran_order\":False,\"descr\":\"<f4\"}    ", 24)) == "accepted");
}

TEST_CASE("npy: every malformed file is refused, by field and byte") {
  REQUIRE(refused("") == "byte 0: magic is not \\x93NUMPY: no .npy file");
  REQUIRE(refused("PK\x03\x04 a zip file").find("byte 0: magic is a zip archive's: numpy.savez writes one") == 0);
  REQUIRE(refused("\x93NUMPY\x01") == "byte 7: the file ends within its header of at least 10 bytes");
  REQUIRE(refused(npy(descr("<f4", "(2,)"), 8, 4)) == "byte 6: version 4; accepted: 1, 2, 3");
  REQUIRE(refused(npy("", 0, 2).substr(0, 11)) == "byte 11: the file ends within its header length");
  REQUIRE(refused(npy(descr("<f4", "(2,)"), 8).substr(0, 40)) ==
          "byte 8: header length 58 runs past the end of the file of 40 bytes");
  REQUIRE(refused(npy(descr(">f4", "(2,)"), 8)) ==
          "byte 20: descr '>f4' is big-endian; accepted: '<f2', '<f4', '<f8', '<V2' (bfloat16), '|V34' (blocks of q8_0), '|b1' (of "
          "a mask)");
  REQUIRE(refused(npy(descr("|O", "(2,)"), 8)) ==
          "byte 20: descr '|O' holds Python objects; accepted: '<f2', '<f4', '<f8', '<V2' (bfloat16), '|V34' (blocks of q8_0), "
          "'|b1' (of a mask)");
  REQUIRE(refused(npy(descr("<i8", "(2,)"), 16)) ==
          "byte 20: descr '<i8' is not supported; accepted: '<f2', '<f4', '<f8', '<V2' (bfloat16), '|V34' (blocks of q8_0), '|b1' "
          "(of a mask)");
  REQUIRE(
      refused(npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }", 8)).find("byte 20: descr is a structure") ==
      0);
  REQUIRE(refused(npy(descr("<f4", "(2,)", "True"), 8)) ==
          "byte 44: fortran_order is True; accepted: C order, numpy.ascontiguousarray(a)");
  REQUIRE(refused(npy(descr("<f4", "(2,)", "Maybe"), 8)) == "byte 44: fortran_order is neither True nor False");
  REQUIRE(refused(npy(descr("<f4", "(2, 3)"), 20)) == "byte 60: shape [2,3] needs 24 bytes of data, the file holds 20");
  REQUIRE(refused(npy(descr("<f4", "(2, 3)"), 28)) == "byte 60: shape [2,3] needs 24 bytes of data, the file holds 28");
  REQUIRE(refused(npy(descr("<f4", "(4611686018427387904, 2)"), 8)).find("needs too many bytes") != std::string::npos);
  for (const auto& shape : {"(2", "(-2,)", "(2.0,)", "2", "(2 3)", "(99999999999999999999,)", "(,)"}) {
    REQUIRE(refused(npy(descr("<f4", shape), 8)) == "byte 60: shape is no tuple of whole numbers");
  }
  REQUIRE(refused(npy("[1]", 8)) == "byte 10: header is no dictionary");
  REQUIRE(refused(npy("{'descr': '<f4'", 8)).find("header has no key here") != std::string::npos);
  REQUIRE(refused(npy("{'descr: ", 8)).find("header has no key here") != std::string::npos);
  REQUIRE(refused(npy("{'dtype': '<f4'}", 8)) ==
          "byte 11: unknown header key 'dtype'; accepted: 'descr', 'fortran_order', 'shape'");
  REQUIRE(refused(npy("{'descr': '<f4', 'shape': (2,)}", 8)).find("lacks one of") != std::string::npos);
  REQUIRE(refused(npy("{'shape': (1,), 'shape': (2,), }", 8)) == "byte 26: header key 'shape' is given twice");
  REQUIRE(refused(npy(descr("<f4", "(2,)") + " x", 8)) ==
          "byte 68: header goes on behind its dictionary; accepted: spaces up to its end");
}

TEST_CASE("npy: whatever is changed in a valid file, parsing stays inside it") {
  mutate(npy(descr("<f4", "(2, 3, 4)"), 96), 100000, [](std::span<const std::byte> file) {
    const auto array = parse_npy(file);
    if (!array) return;
    REQUIRE(array->data.data() >= file.data());
    REQUIRE(array->data.data() + array->data.size() == file.data() + file.size());
    std::vector<float> all(static_cast<std::size_t>(element_count(array->shape)));
    read_floats(*array, 0, all);
  });
}

TEST_CASE("npy input: axes are optional; queries of another sequence are served whole") {
  const Scratch scratch;
  write(scratch("q.npy"), {10, 8});
  write(scratch("k.npy"), {1, 12, 8}, 1000);
  write(scratch("v.npy"), {1, 1, 12, 4}, 2000);
  const std::string name = "npy:" + scratch("q.npy") + "," + scratch("k.npy") + "," + scratch("v.npy");
  const auto source = input(name);
  REQUIRE(source->name() == name);
  REQUIRE(to_string(source->shape().value()) == "batch=1 heads=1 q_len=10 kv_len=12 head_dim=8 value_dim=4");
  Problem wish = problem(5);
  wish.causal = true;
  const auto served = source->adapt(wish);
  REQUIRE(served);
  REQUIRE(to_string(*served) == "batch=1 heads=1 q_len=10 kv_len=12 head_dim=8 value_dim=4 causal");
  const auto t = source->make(*served, 1);
  REQUIRE(t);
  REQUIRE(t->q(0, 0, 9, 7) == 79);
  REQUIRE(t->k(0, 0, 4, 7) == 1039);
  REQUIRE(t->v(0, 0, 4, 3) == 2019);
  REQUIRE(source->make(wish, 1).reason().find("serves batch=1 heads=1 q_len=10") != std::string::npos);
}

TEST_CASE("npy input: a self-attention file serves its first tokens, and the last queries of those") {
  const Scratch scratch;
  for (const auto& file : {"q", "k", "v"}) write(scratch(file), {2, 10, 4});
  const auto source = input("npy:" + scratch("q") + "," + scratch("k") + "," + scratch("v"));
  REQUIRE(to_string(*source->adapt(problem(4096))) == "batch=1 heads=2 q_len=10 head_dim=4");
  REQUIRE(to_string(*source->adapt(problem(6))) == "batch=1 heads=2 q_len=6 head_dim=4");
  Problem wish = problem(6);
  wish.q_len = 2;
  const auto served = source->adapt(wish);
  REQUIRE(to_string(*served) == "batch=1 heads=2 q_len=2 kv_len=6 head_dim=4");
  const auto t = source->make(*served, 1);
  REQUIRE(t);
  REQUIRE(t->q(0, 1, 0, 0) == 40 + 4 * 4);  // tokens 4 and 5
  REQUIRE(t->k(0, 1, 5, 3) == 40 + 5 * 4 + 3);
}

TEST_CASE("npy input: heads and layers lie where they should") {
  const Scratch scratch;
  for (const auto& file : {"q", "k", "v"}) write(scratch(file), {3, 2, 5, 4});
  const std::string name = "npy:" + scratch("q") + "," + scratch("k") + "," + scratch("v");
  Problem shape = input(name)->shape().value();
  REQUIRE(to_string(shape) == "batch=3 heads=2 q_len=5 head_dim=4");
  shape.q_len = shape.kv_len = 3;
  const Tensors t = make(name, shape);
  REQUIRE(t.v(2, 1, 2, 3) == 2 * 40 + 20 + 2 * 4 + 3);
  const Problem layer = input(name + ",layer=2")->shape().value();
  REQUIRE(to_string(layer) == "batch=1 heads=2 q_len=5 head_dim=4");
  REQUIRE(make(name + ",layer=2", layer).k(0, 1, 2, 3) == 2 * 40 + 20 + 2 * 4 + 3);
  REQUIRE(refusal(name + ",layer=3").find("needs [L,H,N,d] or [L,B,H,N,d] with L > 3") != std::string::npos);
  REQUIRE(refusal(name + ",layer=-1").find("is no layer") != std::string::npos);
}

TEST_CASE("npy input: layers of batches, as stacked captures have them") {
  const Scratch scratch;
  for (const auto& file : {"q", "k", "v"}) write(scratch(file), {3, 1, 2, 5, 4});
  const std::string name = "npy:" + scratch("q") + "," + scratch("k") + "," + scratch("v");
  const Problem layer = input(name + ",layer=2")->shape().value();
  REQUIRE(to_string(layer) == "batch=1 heads=2 q_len=5 head_dim=4");
  REQUIRE(make(name + ",layer=2", layer).k(0, 1, 2, 3) == 2 * 40 + 20 + 2 * 4 + 3);
  REQUIRE(refusal(name).find("[L,B,H,N,d] with layer=i") != std::string::npos);
}

TEST_CASE("npy input: more heads than tokens are noted, as [B,N,H,d] would read so") {
  const Scratch scratch;
  const std::string name = "npy:" + scratch("q") + "," + scratch("k") + "," + scratch("v");
  for (const auto& file : {"q", "k", "v"}) write(scratch(file), {1, 20, 2, 4});
  REQUIRE(input(name)->note({}) == "20 heads of 2 tokens: axes are read as [B,H,N,d]");
  for (const auto& file : {"q", "k", "v"}) write(scratch(file), {1, 2, 20, 4});
  REQUIRE(input(name)->note({}).empty());
}

TEST_CASE("npy input: files that do not fit are refused") {
  const Scratch scratch;
  const auto refused_shapes = [&](std::vector<index_t> q, std::vector<index_t> k, std::vector<index_t> v) {
    write(scratch("q"), std::move(q));
    write(scratch("k"), std::move(k));
    write(scratch("v"), std::move(v));
    return refusal("npy:" + scratch("q") + "," + scratch("k") + "," + scratch("v"));
  };
  REQUIRE(refused_shapes({4, 8}, {4, 8}, {5, 8}).find("differ in tokens") != std::string::npos);
  REQUIRE(refused_shapes({4, 8}, {4, 6}, {4, 8}).find("differ in head_dim") != std::string::npos);
  REQUIRE(refused_shapes({2, 4, 8}, {2, 4, 8}, {1, 4, 8}).find("differ in heads") != std::string::npos);
  REQUIRE(refused_shapes({3, 4, 8}, {2, 4, 8}, {2, 4, 8}).find("3 heads cannot share 2 kv_heads") != std::string::npos);
  REQUIRE(refused_shapes({2, 1, 4, 8}, {1, 4, 8}, {1, 4, 8}).find("differ in batch") != std::string::npos);
  REQUIRE(refused_shapes({8}, {4, 8}, {4, 8}).find("accepted: [N,d], [H,N,d], [B,H,N,d]") != std::string::npos);
  REQUIRE(refused_shapes({0, 8}, {4, 8}, {4, 8}).find("every extent") != std::string::npos);
  REQUIRE(refusal("npy:" + scratch("q")).find("takes 3 files, not 1") != std::string::npos);
  REQUIRE(refusal("npy:a,b,c") == "input npy: 'a': No such file or directory");
  REQUIRE(refusal("npy:" + scratch("q") + "," + scratch("q") + "," + scratch.write("t", "text")) ==
          "input npy: '" + scratch("t") + "': byte 0: magic is not \\x93NUMPY: no .npy file");
}

TEST_CASE("npy input: numbers that are not finite are refused") {
  const Scratch scratch;
  write(scratch("q"), {2, 2});
  const std::vector<float> bad{1, 2, std::nanf(""), 4};
  REQUIRE(write_npy(scratch("v"), std::vector<index_t>{2, 2}, bad));
  const auto source = input("npy:" + scratch("q") + "," + scratch("q") + "," + scratch("v"));
  REQUIRE(source->make(*source->shape(), 1).reason() == "'" + scratch("v") + "': element 2 is not a finite float");
}
