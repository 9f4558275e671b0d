#include "attn/inputs/image.hpp"

#include <cmath>

#include "support.hpp"

using namespace attn;

namespace {

std::string refused(const std::string& file) {
  const auto image = parse_pnm(bytes(file));
  return image ? "accepted" : image.reason();
}

std::vector<float> samples(const std::string& file) {
  const auto image = parse_pnm(bytes(file));
  if (!image) FAIL(image.reason());
  return image->samples;
}

}  // namespace

TEST_CASE("image: the four forms hold the same pixels") {
  const std::vector<float> grey{0, 51 / 255.0f, 102 / 255.0f, 1, 0, 1};
  REQUIRE(samples("P2\n# a comment\n3 2 # another\n255\n0 51 102\n255 0 255") == grey);
  REQUIRE(samples(std::string("P5 3 2 255\n") + std::string("\x00\x33\x66\xff\x00\xff", 6)) == grey);
  REQUIRE(samples("P3 1 2 255 0 51 102 255 0 255") == grey);
  REQUIRE(samples(std::string("P6\n1\n2\n255\n") + std::string("\x00\x33\x66\xff\x00\xff", 6)) == grey);
  REQUIRE(samples(std::string("P5 2 1 65535\n") + std::string("\x80\x00\xff\xff", 4)) == std::vector<float>{32768 / 65535.0f, 1});
}

TEST_CASE("image: patches in raster order, their pixels in raster order") {
  Image image{5, 4, 1, {}};
  for (int i = 0; i < 20; ++i) image.samples.push_back(static_cast<float>(i));
  const Features features = patches(image, 2);  // the fifth column is dropped
  REQUIRE(features.count == 4);
  REQUIRE(features.size == 4);
  std::vector<float> expected{0, 1, 5, 6, 2, 3, 7, 8, 10, 11, 15, 16, 12, 13, 17, 18};
  standardise(expected);
  REQUIRE(features.values == expected);
  double sum = 0, square = 0;
  for (const float x : features.values) {
    sum += static_cast<double>(x);
    square += static_cast<double>(x) * static_cast<double>(x);
  }
  REQUIRE(sum == Approx(0).margin(1e-5));
  REQUIRE(square == Approx(16));
}

TEST_CASE("image: the input has its name, its note and finite tensors") {
  const Scratch scratch;
  std::string pixels;
  for (int i = 0; i < 48; ++i) pixels += static_cast<char>(i * 5);
  const auto path = scratch.write("a.ppm", "P6 4 4 255\n" + pixels);
  REQUIRE(input("image:" + path)->name() == "image:" + path);
  REQUIRE(input("image:" + path + ",patch=1")->name() == "image:" + path);
  REQUIRE(input("image:" + path + ",patch=2")->name() == "image:" + path + ",patch=2");
  const Problem p = problem(16, 2, 16);
  REQUIRE(input("image:" + path)->note(p).empty());
  REQUIRE(input("image:" + path + ",patch=2")->note(p) == "4 patches are repeated to make 16");
  for (const float x : values(make("image:" + path, p).v)) REQUIRE(std::isfinite(x));
  REQUIRE(refusal("image:" + path + ",patch=5").find("has 4 x 4 pixels, less than one patch of 5 x 5") != std::string::npos);
  REQUIRE(refusal("image:" + path + ",patch=0").find("accepted: patch=1, 2, ...") != std::string::npos);
  const auto flat = scratch.write("flat.pgm", "P2 2 2 9 7 7 7 7");
  for (const float x : values(make("image:" + flat, p).v)) REQUIRE(std::isfinite(x));
}

TEST_CASE("image: malformed files are refused, by field and byte") {
  for (const auto& file : {"", "P", "P1 1 1 1", "P4 1 1", "BM", "\x89PNG"}) {
    REQUIRE(refused(file) == "byte 0: magic is not P2, P3, P5 or P6: no PGM or PPM image, and no PNG or JPEG");
  }
  REQUIRE(refused("P5") == "byte 2: width is no whole number from 1 to 1073741824");
  REQUIRE(refused("P5 0 1 255 x") == "byte 3: width is no whole number from 1 to 1073741824");
  REQUIRE(refused("P5 1 -1 255 x") == "byte 5: height is no whole number from 1 to 1073741824");
  REQUIRE(refused("P5 1 1 65536 x") == "byte 7: maxval is no whole number from 1 to 65535");
  REQUIRE(refused("P5 99999999999999999999 1 255 x").find("width is no whole number") != std::string::npos);
  REQUIRE(refused("P5 2 2 255\nabc") == "byte 11: 2 x 2 pixels need 4 bytes, 3 are left");
  REQUIRE(refused("P5 2 1 256\nabc") == "byte 11: 2 x 1 pixels need 4 bytes, 3 are left");
  REQUIRE(refused("P2 9 9 9 1") == "byte 9: 9 x 9 pixels need at least 81 bytes, 1 are left");
  REQUIRE(refused("P6 1073741824 1073741824 255\nabc").find(" bytes, 3 are left") != std::string::npos);
  REQUIRE(refused("P2 2 1 9 5 10") == "byte 11: sample 1 is no whole number from 0 to 9");
  REQUIRE(refused("P2 2 1 9 5 x ").find("sample 1 is no whole number") != std::string::npos);
  REQUIRE(refused("P5 1 1 100\n\xff") == "byte 11: sample 0 is no whole number from 0 to 100");
  REQUIRE(refused("P2 1 1 9 # no end") == "byte 17: sample 0 is no whole number from 0 to 9");
}

TEST_CASE("image: whatever is changed in a valid file, parsing stays inside it") {
  for (const auto& valid : {"P2\n# c\n3 2\n255\n0 51 102\n255 0 255", "P6 2 1 255\nabcdef"}) {
    mutate(valid, 50000, [](auto file) {
      if (const auto image = parse_pnm(file)) REQUIRE(patches(*image, 1).count >= 1);
    });
  }
}
