#include "attn/inputs/wav.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "support.hpp"

using namespace attn;

namespace {

std::string format(std::size_t channels, std::size_t rate, std::size_t bits, std::size_t code = 1) {
  return "fmt " + u32(16) + u16(code) + u16(channels) + u32(rate) + u32(rate * channels * bits / 8) + u16(channels * bits / 8) +
         u16(bits);
}

std::string riff(const std::string& chunks) { return "RIFF" + u32(4 + chunks.size()) + "WAVE" + chunks; }

// A sine of `hertz`, half of full scale, `frames` samples in every channel.
std::string sine(double hertz, std::size_t channels, std::size_t rate, std::size_t bits, std::size_t frames) {
  std::string data;
  for (std::size_t i = 0; i < frames; ++i) {
    const double x = 0.5 * std::sin(2 * std::numbers::pi * hertz * static_cast<double>(i) / static_cast<double>(rate));
    for (std::size_t c = 0; c < channels; ++c) {
      if (bits == 8) {
        data += static_cast<char>(static_cast<unsigned char>(std::lround(128 + 127 * x)));
      } else {
        const auto value = static_cast<std::int32_t>(std::lround(x * 2147483647.0));
        data += little(value).substr(4 - bits / 8);
      }
    }
  }
  return riff(format(channels, rate, bits) + "LIST" + u32(3) + "odd\0" + std::string(1, '\0') + "data" + u32(data.size()) + data);
}

std::string refused(const std::string& file) {
  const auto sound = parse_wav(bytes(file));
  return sound ? "accepted" : sound.reason();
}

}  // namespace

TEST_CASE("wav: 8, 16, 24 and 32 bits, any number of channels, hold the same sound") {
  for (const std::size_t bits : {8u, 16u, 24u, 32u}) {
    for (const std::size_t channels : {1u, 2u, 6u}) {
      const auto sound = parse_wav(bytes(sine(440, channels, 16000, bits, 800)));
      if (!sound) FAIL(sound.reason());
      REQUIRE(sound->rate == 16000);
      REQUIRE(sound->samples.size() == 800);
      const double tolerance = bits == 8 ? 0.01 : 2.0 / static_cast<double>(1u << (std::min<std::size_t>(bits, 24) - 1));
      for (std::size_t i = 0; i < 800; ++i) {
        const double x = 0.5 * std::sin(2 * std::numbers::pi * 440 * static_cast<double>(i) / 16000);
        REQUIRE(static_cast<double>(sound->samples[i]) == Approx(x).margin(tolerance + 1e-6));
      }
    }
  }
}

TEST_CASE("wav: a tone lights the band of its pitch, in every frame, at any rate") {
  for (const std::size_t rate : {8000u, 16000u, 44100u, 48000u}) {
    for (const double hertz : {500.0, 1000.0, 3000.0}) {
      const auto sound = parse_wav(bytes(sine(hertz, 1, rate, 16, rate / 5)));
      const Features features = log_mel(*sound);
      REQUIRE(features.size == 80);
      REQUIRE(features.count == 18);  // 200 ms: windows begin at 0, 10, ... 170 ms
      const auto mel = [](double f) { return 2595 * std::log10(1 + f / 700); };
      const double expected = mel(hertz) / mel(static_cast<double>(rate) / 2) * 81 - 1;
      for (std::size_t frame = 0; frame < 18; ++frame) {
        const auto row = features.values.begin() + static_cast<std::ptrdiff_t>(frame * 80);
        REQUIRE(static_cast<double>(std::max_element(row, row + 80) - row) == Approx(expected).margin(2));
      }
    }
  }
}

TEST_CASE("wav: the input has its note and serves any length") {
  const Scratch scratch;
  const auto path = scratch.write("a.wav", sine(440, 2, 16000, 16, 16000));
  const auto source = input("wav:" + path);
  REQUIRE(source->name() == "wav:" + path);
  Problem p = problem(98, 2, 16);
  REQUIRE(source->note(p).empty());
  p.batch = 2;
  REQUIRE(source->note(p) == "98 frames of 25 ms are repeated to make 196");
  const Tensors t = make("wav:" + path, p);
  for (const float x : values(t.q)) REQUIRE(std::isfinite(x));
  REQUIRE(t.k(0, 0, 5, 3) == t.k(1, 0, 5, 3));  // the second item is the same sound again
  REQUIRE(t.k(0, 0, 5, 3) != t.k(0, 0, 6, 3));
  const auto silence = scratch.write("silence.wav", riff(format(1, 8000, 16) + "data" + u32(800) + std::string(800, '\0')));
  for (const float x : values(make("wav:" + silence, p).v)) REQUIRE(std::isfinite(x));
}

TEST_CASE("wav: malformed files are refused, by field and byte") {
  REQUIRE(refused("") == "byte 0: magic is not RIFF....WAVE: no .wav file");
  REQUIRE(refused("RIFX" + u32(4) + "WAVE") == "byte 0: magic is not RIFF....WAVE: no .wav file");
  REQUIRE(refused(riff("")) == "byte 12: the file ends without a data chunk");
  REQUIRE(refused(riff(format(1, 8000, 16))) == "byte 36: the file ends without a data chunk");
  REQUIRE(refused(riff("fmt " + u32(4) + "abcd")) == "byte 20: fmt chunk of 4 bytes; 16 are needed");
  REQUIRE(refused(riff(format(1, 8000, 16, 3))) == "byte 20: format code 3; accepted: 1, PCM");
  REQUIRE(refused(riff(format(1, 8000, 12))) == "byte 34: 12 bits a sample; accepted: 8, 16, 24, 32");
  REQUIRE(refused(riff(format(0, 8000, 16))) == "byte 22: 0 channels");
  REQUIRE(refused(riff(format(1, 100, 16))) == "byte 24: 100 samples a second; accepted: 4000..384000");
  REQUIRE(refused(riff("data" + u32(4) + "abcd")) == "byte 12: data come before their format");
  REQUIRE(refused(riff(format(1, 8000, 16) + "data" + u32(0xffffffff) + "abcd")) ==
          "byte 40: chunk of 4294967295 bytes runs past the end of the file of 48 bytes");
  REQUIRE(refused(riff(format(1, 8000, 16) + "data" + u32(4) + "abcd")) == "byte 40: 2 samples are less than one window of 25 ms");
  REQUIRE(refusal("wav:none.wav") == "input wav: 'none.wav': No such file or directory");
}

TEST_CASE("wav: whatever is changed in a valid file, parsing stays inside it") {
  mutate(sine(440, 2, 4000, 16, 110), 30000, [](auto file) {
    if (const auto sound = parse_wav(file)) REQUIRE(log_mel(*sound).count >= 1);
  });
}
