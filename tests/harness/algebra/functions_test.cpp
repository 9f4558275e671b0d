#include <complex>
#include <numbers>

#include "samples.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("Layer norm gives mean 0 and variance 1", "[algebra]") {
  const auto y = layer_norm(random({3, 64}) * 5 + 2, 0);
  CHECK(largest_difference(mean(y, -1), zeros<double>({3})) < 1e-14);
  CHECK(largest_difference(mean(square(y), -1), ones<double>({3})) < 1e-13);
  check_gradient({random({3, 8})}, [](const auto& in) { return layer_norm(in[0]); });
  check_gradient({random({3, 8})}, [](const auto& in) { return rms_norm(in[0]); });
}

TEST_CASE("Normalised vectors have length 1, the zero vector stays", "[algebra]") {
  const auto x = concat<double>({random({2, 5}), zeros<double>({1, 5})}, 0);
  CHECK(largest_difference(sum(square(l2_normalize(x)), -1), Tensor<double>({3}, {1, 1, 0})) < 1e-14);
  check_gradient({random({2, 5})}, [](const auto& in) { return l2_normalize(in[0]); });
  const auto leaf = variable(x);
  const auto gradient = gradients(sum(l2_normalize(leaf)), {leaf})[0];
  for (const double g : gradient.values()) CHECK(std::isfinite(g));
}

TEST_CASE("Convolutions agree with loops", "[algebra]") {
  const index_t n = 6, channels = 3, taps = 4, left = 2;
  const auto x = random({2, n, channels}, "x");
  const auto depthwise = random({taps, channels}, "depthwise");
  const auto dense = random({taps, channels, 5}, "dense");
  const auto y = depthwise_conv(x, depthwise, left);
  const auto z = conv(x, dense, left);
  REQUIRE(y.shape() == x.shape());
  REQUIRE(z.shape() == Shape{2, n, 5});
  for (index_t t = 0; t < n; ++t) {
    double one_channel = 0;
    double all_channels = 0;
    for (index_t k = 0; k < taps; ++k) {
      const index_t from = t + k - left;
      if (from < 0 || from >= n) continue;
      one_channel += depthwise(k, 1) * x(1, from, 1);
      for (index_t c = 0; c < channels; ++c) all_channels += dense(k, c, 4) * x(1, from, c);
    }
    CHECK(y(1, t, 1) == Approx(one_channel).margin(1e-13));
    CHECK(z(1, t, 4) == Approx(all_channels).margin(1e-13));
  }
  check_gradient({x, depthwise}, [&](const auto& in) { return depthwise_conv(in[0], in[1], left); });
  check_gradient({x, dense}, [&](const auto& in) { return conv(in[0], in[1], left); });
  check_gradient({x, dense}, [&](const auto& in) { return conv(in[0], in[1], 0, taps); });
  CHECK(conv(x, dense, 0, taps).shape() == Shape{2, 2, 5});
  const auto per_head = random({2, taps, 1}, "per head");
  CHECK(depthwise_conv(x, per_head, left)(1, 0, 2) ==
        Approx(sum(reshape(slice(per_head, 0, 1, 2), {4}) *
                   pad(slice(reshape(slice(slice(x, 0, 1, 2), 2, 2, 3), {n}), 0, 0, 2), 0, 2, 0))
                   .item()));
}

TEST_CASE("Windows overlap and are padded with zeros", "[algebra]") {
  const auto w = windows(reshape(arange<double>(4) + 1, {4, 1}), 3, 2, 1, 2);
  CHECK(w.shape() == Shape{2, 3, 1});
  CHECK(list(w) == std::vector<double>{0, 1, 2, 2, 3, 4});
}

TEST_CASE("The real part of the two-dimensional DFT agrees with its definition", "[algebra]") {
  const index_t n = 5, d = 6;
  const auto x = random({2, n, d});
  const auto y = real_dft2(x);
  for (index_t k = 0; k < n; ++k)
    for (index_t l = 0; l < d; ++l) {
      std::complex<double> expected = 0;
      for (index_t t = 0; t < n; ++t)
        for (index_t c = 0; c < d; ++c)
          expected += x(1, t, c) *
                      std::polar(1.0, -2 * std::numbers::pi * (static_cast<double>(k * t) / n + static_cast<double>(l * c) / d));
      CHECK(y(1, k, l) == Approx(expected.real()).margin(1e-12));
    }
  check_gradient({x}, [](const auto& in) { return real_dft2(in[0]); });
}

TEST_CASE("The cross-entropy of equal logits is the logarithm of their number", "[algebra]") {
  const Indices targets({3}, std::vector<index_t>{1, -1, 4});
  CHECK(cross_entropy(zeros<double>({3, 5}), targets).item() == Approx(std::log(5.0)));
  const auto logits = random({3, 5});
  const auto p = softmax(logits);
  CHECK(cross_entropy(logits, targets).item() == Approx(-(std::log(p(0, 1)) + std::log(p(2, 4))) / 2));
  check_gradient({logits}, [&](const auto& in) { return cross_entropy(in[0], targets); });
  check_gradient({logits, random({3, 5}, "y")}, [](const auto& in) { return mse(in[0], in[1]); });
}

TEST_CASE("The lower triangle stays", "[algebra]") {
  CHECK(list(tril(ones<double>({2, 3}))) == std::vector<double>{1, 0, 0, 1, 1, 0});
  CHECK(list(tril(ones<double>({2, 3}), -1)) == std::vector<double>{0, 0, 0, 1, 0, 0});
}
