#include <cmath>
#include <numbers>

#include "attn/core/isa.hpp"
#include "attn/inputs/projection.hpp"
#include "support.hpp"

using namespace attn;

TEST_CASE("a packed product equals the plain one") {
  for (const index_t columns : {1, 31, 32, 33, 96, 100}) {
    for (const index_t rows : {1, 2, 7, 8, 64, 75}) {
      const index_t depth = 37;
      std::vector<float> in(static_cast<std::size_t>(rows * depth)), matrix(static_cast<std::size_t>(depth * columns)),
          out(static_cast<std::size_t>(rows * columns));
      Rng(1, "in").normals(in);
      Rng(1, "matrix").normals(matrix);
      PackedMatrix packed(depth, columns);
      packed.put(0, matrix, columns);
      packed.multiply(in.data(), rows, out.data());
      for (index_t i = 0; i < rows; ++i) {
        for (index_t c = 0; c < columns; ++c) {
          double sum = 0;
          for (index_t k = 0; k < depth; ++k) {
            sum += static_cast<double>(in[static_cast<std::size_t>(i * depth + k)]) *
                   static_cast<double>(matrix[static_cast<std::size_t>(k * columns + c)]);
          }
          REQUIRE(static_cast<double>(out[static_cast<std::size_t>(i * columns + c)]) == Approx(sum).margin(2e-5));
        }
      }
    }
  }
}

TEST_CASE("a packed product obeys the chosen instruction set: fused where that fuses, and the same bits at every width") {
  const index_t rows = 11, depth = 37, columns = 40;
  std::vector<float> in(static_cast<std::size_t>(rows * depth)), matrix(static_cast<std::size_t>(depth * columns)),
      out(static_cast<std::size_t>(rows * columns));
  Rng(1, "in").normals(in);
  Rng(1, "matrix").normals(matrix);
  PackedMatrix packed(depth, columns);
  packed.put(0, matrix, columns);
  for (const Isa isa : machine_isas()) {
    choose_isa(isa);
    packed.multiply(in.data(), rows, out.data());
    for (index_t i = 0; i < rows; ++i) {
      for (index_t c = 0; c < columns; ++c) {
        float sum = 0;
        for (index_t k = 0; k < depth; ++k) {
          const float a = in[static_cast<std::size_t>(i * depth + k)], b = matrix[static_cast<std::size_t>(k * columns + c)];
          const volatile float product = a * b;
          sum = isa == Isa::scalar ? sum + product : std::fma(a, b, sum);
        }
        INFO(to_string(isa) << " i=" << i << " c=" << c);
        REQUIRE(out[static_cast<std::size_t>(i * columns + c)] == sum);
      }
    }
  }
  choose_isa(machine_isas().front());
}

// The page's formula, in double, token by token: embedding + position, LayerNorm, one column of Wq of head 1.
TEST_CASE("projection computes what its page says") {
  const Problem p = problem(150, 2, 8);
  const index_t width = 16;
  std::vector<float> embedding(static_cast<std::size_t>(150 * width));
  Rng(3, "embedding").normals(embedding);
  const Tensors t = Tensors::allocate(p);
  project(
      p, 5,
      [&](index_t, index_t first, index_t count, float* x) {
        std::copy_n(&embedding[static_cast<std::size_t>(first * width)], count * width, x);
      },
      t);
  std::vector<float> weights(static_cast<std::size_t>(width * 8));
  Rng(5, "projection Wq").substream(1).uniforms(weights);
  const double bound = std::sqrt(6.0 / (16 + 8));
  for (index_t i = 0; i < 150; ++i) {
    std::vector<double> x(16);
    double mean = 0, square = 0;
    for (std::size_t d = 0; d < 16; ++d) {
      const double angle = static_cast<double>(i) * std::pow(10000.0, -static_cast<double>(d / 2 * 2) / 16);
      x[d] =
          static_cast<double>(embedding[static_cast<std::size_t>(i) * 16 + d]) + (d % 2 == 0 ? std::sin(angle) : std::cos(angle));
      mean += x[d] / 16;
    }
    for (const double value : x) square += (value - mean) * (value - mean) / 16;
    for (std::size_t c = 0; c < 8; ++c) {
      double q = 0;
      for (std::size_t d = 0; d < 16; ++d) {
        q += (x[d] - mean) / std::sqrt(square + 1e-5) * bound * (2 * static_cast<double>(weights[d * 8 + c]) - 1);
      }
      REQUIRE(static_cast<double>(t.q(0, 1, i, static_cast<index_t>(c))) == Approx(q).margin(1e-5));
    }
  }
}

TEST_CASE("text: tokens come from the file, batch items from further on, round the end") {
  const Scratch scratch;
  const auto path = scratch.write("a.txt", "abcdefgh");
  Problem p = problem(4, 2, 16);
  REQUIRE(input("text:" + path)->name() == "text:" + path);
  REQUIRE(input("text:" + path)->note(p).empty());
  p.batch = 2;
  REQUIRE(input("text:" + path)->note(p).empty());
  const Tensors t = make("text:" + path, p);
  p.batch = 1;
  REQUIRE(same(make("text:" + path, p), make("text:" + scratch.write("b.txt", "abcd"), p)));
  const Tensors second = make("text:" + scratch.write("c.txt", "efgh"), p);
  for (index_t i = 0; i < 4; ++i) REQUIRE(t.k(1, 1, i, 3) == second.k(0, 1, i, 3));
  p.q_len = p.kv_len = 16;
  REQUIRE(input("text:" + path)->note(p) == "a text of 8 bytes is repeated to make 16");
  REQUIRE(same(make("text:" + path, p), make("text:" + scratch.write("d.txt", "abcdefghabcdefgh"), p)));
}

TEST_CASE("text: a shorter sequence of queries is the end of the longer one") {
  const Scratch scratch;
  const auto name = "text:" + scratch.write("a.txt", "the quick brown fox jumps over the lazy dog");
  Problem p = problem(40, 2, 16);
  const Tensors whole = make(name, p);
  p.q_len = 7;
  const Tensors part = make(name, p);
  REQUIRE(values(part.k) == values(whole.k));
  for (index_t i = 0; i < 7; ++i) REQUIRE(part.q(0, 1, i, 5) == whole.q(0, 1, 33 + i, 5));
  p.q_len = 40;
  p.kv_len = 7;
  const Tensors keys = make(name, p);
  REQUIRE(values(keys.q) == values(whole.q));
  for (index_t i = 0; i < 7; ++i) REQUIRE(keys.v(0, 1, i, 5) == whole.v(0, 1, 33 + i, 5));
}

// Earlier results were made with these very bytes: a better text would need another name.
TEST_CASE("text: the text that is carried stays as it is, and suffices up to 16384 tokens") {
  REQUIRE(input("text")->note(problem(16384)).empty());
  REQUIRE(input("text")->note(problem(65536)) == "a text of 20888 bytes is repeated to make 65536");
  const Problem p = problem(512, 8);
  const Placement at = place(p, make("text", p));
  REQUIRE(at.logit_std == Approx(1.6).margin(0.2));
  REQUIRE(at.perplexity == Approx(0.33).margin(0.05));
}

TEST_CASE("text: what cannot be read is refused") {
  const Scratch scratch;
  REQUIRE(refusal("text:" + scratch("none.txt")) == "input text: '" + scratch("none.txt") + "': No such file or directory");
  REQUIRE(refusal("text:" + scratch("")).find("not a regular file") != std::string::npos);
  REQUIRE(refusal("text:/dev/zero").find("not a regular file") != std::string::npos);
  REQUIRE(refusal("text:" + scratch.write("empty", "")).find("is empty") != std::string::npos);
}
