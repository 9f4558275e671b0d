// wav:FILE
#include "attn/inputs/wav.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <complex>
#include <cstdint>
#include <cstring>
#include <numbers>
#include <string_view>

#include "attn/inputs/file.hpp"
#include "attn/inputs/kinds.hpp"

namespace attn {

namespace {

Refusal at_byte(std::size_t offset, const std::string& what) { return refuse("byte " + std::to_string(offset) + ": " + what); }

template <class T>
T little(std::span<const std::byte> bytes, std::size_t offset) {
  T value;
  ATTN_ASSERT(offset + sizeof value <= bytes.size());
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

// A signed sample of 16, 24 or 32 bits, or an unsigned one of 8, scaled to -1..1.
float sample(const std::byte* from, std::size_t bytes) {
  if (bytes == 1) return (static_cast<float>(std::to_integer<int>(*from)) - 128) / 128;
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < bytes; ++i) bits |= std::to_integer<std::uint32_t>(from[i]) << (8 * (4 - bytes + i));
  return static_cast<float>(static_cast<std::int32_t>(bits)) * 0x1.0p-31f;
}

struct Format {
  std::size_t channels = 0, bytes = 0;
  double rate = 0;
};

Result<Format> parse_format(std::span<const std::byte> chunk, std::size_t offset) {
  if (chunk.size() < 16) return at_byte(offset, "fmt chunk of " + std::to_string(chunk.size()) + " bytes; 16 are needed");
  constexpr std::uint16_t pcm = 1;
  constexpr std::uint16_t extensible = 0xfffe;
  auto code = little<std::uint16_t>(chunk, 0);
  if (code == extensible && chunk.size() >= 26) code = little<std::uint16_t>(chunk, 24);  // the sub-format begins with the code
  if (code != pcm) return at_byte(offset, "format code " + std::to_string(code) + "; accepted: 1, PCM");
  const auto bits = little<std::uint16_t>(chunk, 14);
  if (bits != 8 && bits != 16 && bits != 24 && bits != 32) {
    return at_byte(offset + 14, std::to_string(bits) + " bits a sample; accepted: 8, 16, 24, 32");
  }
  const Format format{little<std::uint16_t>(chunk, 2), bits / std::size_t{8}, static_cast<double>(little<std::uint32_t>(chunk, 4))};
  if (format.channels == 0) return at_byte(offset + 2, "0 channels");
  if (format.rate < 4000 || format.rate > 384000) {
    return at_byte(offset + 4, std::to_string(little<std::uint32_t>(chunk, 4)) + " samples a second; accepted: 4000..384000");
  }
  return format;
}

// In place, length a power of two: decimation in time.
void fourier(std::vector<std::complex<double>>& x, const std::vector<std::complex<double>>& roots) {
  const std::size_t n = x.size();
  for (std::size_t i = 1, j = 0; i < n; ++i) {
    std::size_t bit = n / 2;
    for (; (j & bit) != 0; bit /= 2) j ^= bit;
    j ^= bit;
    if (i < j) std::swap(x[i], x[j]);
  }
  for (std::size_t half = 1; half < n; half *= 2) {
    for (std::size_t begin = 0; begin < n; begin += 2 * half) {
      for (std::size_t i = begin; i < begin + half; ++i) {
        const std::complex<double> w = roots[(i - begin) * (n / (2 * half))];
        const std::complex<double> b = x[i + half];
        const std::complex<double> odd(b.real() * w.real() - b.imag() * w.imag(), b.real() * w.imag() + b.imag() * w.real());
        x[i + half] = x[i] - odd;
        x[i] += odd;
      }
    }
  }
}

Result<std::unique_ptr<Input>> open(std::string_view path) {
  auto file = MappedFile::open(std::string(path));
  if (!file) return refuse("input wav: " + file.reason());
  const auto sound = parse_sound(file->bytes());
  if (!sound) return refuse("input wav: '" + file->path() + "': " + sound.reason());
  return feature_input("wav:" + file->path(), log_mel(*sound));
}

}  // namespace

Result<Sound> parse_wav(std::span<const std::byte> file) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (text.substr(0, 4) != "RIFF" || text.size() < 12 || text.substr(8, 4) != "WAVE") {
    return at_byte(0, "magic is not RIFF....WAVE: no .wav file");
  }
  Format format;
  for (std::size_t at = 12; at + 8 <= file.size();) {
    const auto name = text.substr(at, 4);
    const std::size_t bytes = little<std::uint32_t>(file, at + 4);
    if (bytes > file.size() - at - 8) {
      return at_byte(at + 4, "chunk of " + std::to_string(bytes) + " bytes runs past the end of the file of " +
                                 std::to_string(file.size()) + " bytes");
    }
    const auto chunk = file.subspan(at + 8, bytes);
    if (name == "fmt ") {
      const auto parsed = parse_format(chunk, at + 8);
      if (!parsed) return parsed.refusal();
      format = *parsed;
    } else if (name == "data") {
      if (format.channels == 0) return at_byte(at, "data come before their format");
      Sound sound{format.rate, std::vector<float>(bytes / (format.channels * format.bytes))};
      if (static_cast<double>(sound.samples.size()) < format.rate * 0.025) {
        return at_byte(at + 4, std::to_string(sound.samples.size()) + " samples are less than one window of 25 ms");
      }
      const std::byte* from = chunk.data();
      for (float& x : sound.samples) {
        for (std::size_t c = 0; c < format.channels; ++c, from += format.bytes) x += sample(from, format.bytes);
        x /= static_cast<float>(format.channels);
      }
      return sound;
    }
    at += 8 + bytes + bytes % 2;  // chunks begin at even offsets
  }
  return at_byte(file.size(), "the file ends without a data chunk");
}

Features log_mel(const Sound& sound) {
  constexpr std::size_t bands = 80;
  const auto window = static_cast<std::size_t>(sound.rate * 0.025);
  const auto hop = static_cast<std::size_t>(sound.rate * 0.010);
  ATTN_ASSERT(sound.samples.size() >= window);
  const std::size_t size = std::bit_ceil(window);
  std::vector<std::complex<double>> roots(size / 2), x(size);
  for (std::size_t i = 0; i < roots.size(); ++i) {
    roots[i] = std::polar(1.0, -2 * std::numbers::pi * static_cast<double>(i) / static_cast<double>(size));
  }
  std::vector<double> hann(window);
  for (std::size_t i = 0; i < window; ++i) {
    hann[i] = 0.5 - 0.5 * std::cos(2 * std::numbers::pi * static_cast<double>(i) / static_cast<double>(window));
  }
  // Bin f of the spectrum lies between bands `band` and `band` + 1 on the mel scale, `part` of the way.
  struct Place {
    std::size_t band;
    double part;
  };
  const auto mel = [](double hertz) { return 2595 * std::log10(1 + hertz / 700); };
  std::vector<Place> places(size / 2);
  for (std::size_t f = 0; f < places.size(); ++f) {
    const double at = mel(static_cast<double>(f) * sound.rate / static_cast<double>(size)) / mel(sound.rate / 2) * (bands + 1);
    places[f] = {static_cast<std::size_t>(at), at - std::floor(at)};
  }

  Features features;
  features.count = static_cast<index_t>((sound.samples.size() - window) / hop + 1);
  features.size = bands;
  features.noun = "frames of 25 ms";
  features.values.resize(static_cast<std::size_t>(features.count) * bands);
  for (std::size_t frame = 0; frame < static_cast<std::size_t>(features.count); ++frame) {
    std::fill(x.begin(), x.end(), 0.0);
    for (std::size_t i = 0; i < window; ++i) x[i] = hann[i] * static_cast<double>(sound.samples[frame * hop + i]);
    fourier(x, roots);
    std::array<double, bands + 2> energy{};  // band b stands at b + 1; the outer two are cut off
    for (std::size_t f = 0; f < places.size(); ++f) {
      energy[places[f].band] += std::norm(x[f]) * (1 - places[f].part);
      energy[places[f].band + 1] += std::norm(x[f]) * places[f].part;
    }
    for (std::size_t b = 0; b < bands; ++b) {
      features.values[frame * bands + b] = static_cast<float>(std::log(std::max(energy[b + 1], 1e-10)));
    }
  }
  standardise(features.values);
  return features;
}

InputKind wav_input() {
  return {{"wav", "wav:FILE",
           "WAV, FLAC, Ogg or AIFF sound: 80 log-mel features of 25 ms every 10 ms, embedded and projected per head"},
          open};
}

}  // namespace attn
