#include "attn/inputs/stored.hpp"

#include <cmath>
#include <cstring>

#include "support.hpp"

using namespace attn;

namespace {

Result<StoredTensors> stored_of(const Input& source, const Problem& p) {
  auto floats = source.make(p, 1);
  if (!floats) return floats.refusal();
  return store(*std::move(floats), p);
}

StoredTensors make_stored(const std::string& name, const Problem& p) {
  auto stored = stored_of(*input(name), p);
  if (!stored) FAIL(stored.reason());
  return std::move(stored).value();
}

Problem stored_as(Problem p, DType dtype, DType kv_dtype) {
  p.dtype = dtype;
  p.kv_dtype = kv_dtype;
  return p;
}

// An .npy of the given type string and extents.
std::string npy(const std::string& descr, const std::string& shape, const std::string& data) {
  std::string header = "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }";
  header.resize(117, ' ');
  header += '\n';
  return "\x93NUMPY" + std::string{1, 0} + u16(header.size()) + header + data;
}

}  // namespace

TEST_CASE("inputs of every kind are rounded once to the problem's number types") {
  const Problem p = problem(40, 2, 64);
  for (const char* name : {"iid:1", "text", "needle", "outlier:2,20"}) {
    const Tensors floats = make(name, p);
    for (const auto& [dtype, kv_dtype] : {std::pair{DType::bf16, DType::bf16}, {DType::f16, DType::f16}, {DType::f32, DType::q8}}) {
      INFO(name << " " << to_string(dtype) << " " << to_string(kv_dtype));
      const StoredTensors stored = make_stored(name, stored_as(p, dtype, kv_dtype));
      CHECK((stored.q.dtype() == dtype && stored.k.dtype() == kv_dtype && stored.v.dtype() == kv_dtype));
      const AsFloats back(stored.arrays());
      const auto within = [](const View<float, 4>& given, const View<const float, 4>& kept, DType type) {
        for (index_t row = 0; row < given.size() / 64; ++row) {
          const float* x = given.data_handle() + row * 64;
          std::vector<float> expected(64);
          std::vector<std::byte> memory(static_cast<std::size_t>(bytes_of(type, 64)));
          round_row(x, 64, type, memory.data());
          widen_row(type, memory.data(), 64, expected.data());
          if (std::memcmp(expected.data(), kept.data_handle() + row * 64, 64 * sizeof(float)) != 0) return false;
        }
        return true;
      };
      const FloatArrays views = back.views();
      CHECK(within(floats.q, views.q, dtype));
      CHECK(within(floats.k, views.k, kv_dtype));
      CHECK(within(floats.v, views.v, kv_dtype));
    }
  }
}

TEST_CASE("stored tensors are copied with their types") {
  const StoredTensors one = make_stored("iid", stored_as(problem(20, 2, 32), DType::bf16, DType::q8)), two = one.copy();
  CHECK(one.memory.data() != two.memory.data());
  CHECK((two.q.dtype() == DType::bf16 && two.v.dtype() == DType::q8));
  CHECK(std::memcmp(one.k.data(), two.k.data(), static_cast<std::size_t>(one.k.bytes())) == 0);
}

TEST_CASE("a number that a type cannot hold refuses the input, with how many there are") {
  const Scratch scratch;
  std::string numbers;
  for (const float x : {1.0f, 65504.0f, 65519.0f, 65520.0f, -1e6f, 0.0f}) numbers += little(x);
  const std::string path = scratch.write("k.npy", npy("<f4", "(2, 3)", numbers));
  const auto source = input("npy:" + path + "," + path + "," + path);
  Problem p = *source->shape();
  CHECK(make_stored(source->name(), stored_as(p, DType::bf16, DType::bf16)).q.dtype() == DType::bf16);
  const auto refused = stored_of(*source, stored_as(p, DType::f32, DType::f16));
  REQUIRE(!refused);
  CHECK(refused.reason().find("2 of the 6 numbers of K are too large for f16, whose largest is 65504") != std::string::npos);
  CHECK(stored_of(*source, stored_as(p, DType::f16, DType::f32)).reason().find("numbers of Q") != std::string::npos);
  CHECK(stored_of(*source, stored_as(p, DType::f32, DType::q8))
            .reason()
            .find("rows of K have 3 numbers; q8 takes multiples of 32") != std::string::npos);
}

TEST_CASE("files of f16 and bf16 pass through unchanged") {
  const Scratch scratch;
  std::string halves;
  for (std::size_t i = 0; i < 64; ++i) halves += u16(i * 487 % 0x7c00);  // denormals too
  for (const auto& [descr, dtype] : {std::pair{"<f2", DType::f16}, {"<V2", DType::bf16}, {"|V2", DType::bf16}}) {
    const std::string path = scratch.write("x.npy", npy(descr, "(4, 16)", halves));
    const auto source = input("npy:" + path + "," + path + "," + path);
    const StoredTensors stored = make_stored(source->name(), stored_as(*source->shape(), dtype, dtype));
    INFO(descr);
    CHECK(std::memcmp(stored.q.data(), halves.data(), halves.size()) == 0);
    CHECK(std::memcmp(stored.v.data(), halves.data(), halves.size()) == 0);
  }
}

TEST_CASE("files of q8 blocks are read, and one with a scale that is not finite is refused by its byte") {
  const Scratch scratch;
  std::string blocks;
  for (int b = 0; b < 4; ++b) {
    blocks += u16(to_f16(0.25f * static_cast<float>(b + 1)).bits);
    for (int i = 0; i < 32; ++i) blocks += static_cast<char>(i == b ? 127 : i - 16);
  }
  const auto open = [&](const std::string& data) {
    const std::string path = scratch.write("x.npy", npy("|V34", "(2, 2)", data));
    return input("npy:" + path + "," + path + "," + path);
  };
  const auto source = open(blocks);
  REQUIRE((source->shape()->q_len == 2 && source->shape()->head_dim == 64));
  const Problem p = stored_as(*source->shape(), DType::f32, DType::q8);
  const StoredTensors stored = make_stored(source->name(), p);
  CHECK(std::memcmp(stored.k.data(), blocks.data(), blocks.size()) == 0);
  CHECK(stored.q.f32()(0, 0, 1, 33) == 1.0f * -15);

  std::string broken = blocks;
  broken[2 * 34 + 1] = '\x7c';
  broken[2 * 34] = '\0';
  CHECK(stored_of(*open(broken), p).reason().find("byte 196: block 2 has a scale that is not finite") != std::string::npos);
  CHECK(refusal("npy:" + scratch.write("y.npy", npy("|V34", "(2, 2)", blocks.substr(1))) + "," + scratch("y.npy") + "," +
                scratch("y.npy"))
            .find("shape [2,2] needs 136 bytes of data, the file holds 135") != std::string::npos);
}

TEST_CASE("one scale a row loses the keys of outlier channels, one scale a channel holds them") {
  const Problem p = problem(512, 1, 64);
  // Root mean square error of the logits over their deviation, where keys are rounded to int8 with one scale for each group.
  const auto loss = [&](const std::string& name, bool by_channel) {
    const Tensors t = make(name, p);
    const auto k = t.k[0][0];
    const auto q = t.q[0][0];
    std::vector<double> kept(static_cast<std::size_t>(k.size()));
    const auto scale_of = [&](index_t j, index_t d) {
      float largest = 0;
      for (index_t i = 0; i < (by_channel ? p.kv_len : p.head_dim); ++i)
        largest = std::max(largest, std::fabs(by_channel ? k(i, d) : k(j, i)));
      return static_cast<double>(largest) / 127;
    };
    for (index_t outer = 0; outer < (by_channel ? p.head_dim : p.kv_len); ++outer) {
      const double scale = by_channel ? scale_of(0, outer) : scale_of(outer, 0);
      for (index_t inner = 0; inner < (by_channel ? p.kv_len : p.head_dim); ++inner) {
        const index_t j = by_channel ? inner : outer, d = by_channel ? outer : inner;
        kept[static_cast<std::size_t>(j * p.head_dim + d)] = scale * std::round(static_cast<double>(k(j, d)) / scale);
      }
    }
    double error2 = 0, logit2 = 0;
    for (index_t i = 0; i < 64; ++i) {
      std::vector<double> exact(static_cast<std::size_t>(p.kv_len)), rounded(exact.size());
      double mean_exact = 0, mean_rounded = 0;
      for (index_t j = 0; j < p.kv_len; ++j) {
        const auto at = static_cast<std::size_t>(j);
        for (index_t d = 0; d < p.head_dim; ++d) {
          exact[at] += static_cast<double>(q(i, d)) * static_cast<double>(k(j, d));
          rounded[at] += static_cast<double>(q(i, d)) * kept[static_cast<std::size_t>(j * p.head_dim + d)];
        }
        mean_exact += exact[at] / static_cast<double>(p.kv_len);
        mean_rounded += rounded[at] / static_cast<double>(p.kv_len);
      }
      for (std::size_t j = 0; j < exact.size(); ++j) {
        error2 += std::pow(exact[j] - mean_exact - rounded[j] + mean_rounded, 2);
        logit2 += std::pow(exact[j] - mean_exact, 2);
      }
    }
    return std::sqrt(error2 / logit2);
  };
  CHECK(loss("iid:1", false) < 0.01);
  CHECK(loss("outlier:2,20", false) > 4 * loss("iid:1", false));
  CHECK(loss("outlier:2,20", true) < 0.02);
  CHECK(loss("outlier:2,20", true) < loss("outlier:2,20", false) / 2);
}

TEST_CASE("softmax does not see outlier channels") {
  const Problem p = problem(256, 2, 64);
  const Placement plain = place(p, make("outlier:2,0", p)), with = place(p, make("outlier:2,20", p));
  CHECK(with.logit_std == Approx(plain.logit_std).epsilon(1e-4));
  CHECK(with.row_entropy == Approx(plain.row_entropy).epsilon(1e-4));
  CHECK(refusal("outlier:0,20").find("channels=0 is outside 1..65536") != std::string::npos);
  CHECK(input("outlier:65")->make(p, 1).reason().find("needs head_dim >= 65") != std::string::npos);
}
