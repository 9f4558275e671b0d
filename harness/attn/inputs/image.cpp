// image:FILE[,patch=p]
#include "attn/inputs/image.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "attn/core/text.hpp"
#include "attn/inputs/file.hpp"
#include "attn/inputs/kinds.hpp"

namespace attn {

namespace {

Refusal at_byte(std::size_t offset, const std::string& what) { return refuse("byte " + std::to_string(offset) + ": " + what); }

// Whole numbers between blanks and comments.
class NumberReader {
 public:
  NumberReader(std::string_view text, std::size_t at) : text_(text), at_(at) {}

  // Where the next number begins, or should.
  std::size_t offset() {
    for (; at_ < text_.size() && (blank(text_[at_]) || text_[at_] == '#'); ++at_) {
      if (text_[at_] == '#') at_ = std::min(text_.find('\n', at_), text_.size() - 1);
    }
    return at_;
  }

  std::optional<index_t> next() {
    const std::size_t begin = offset();
    const std::size_t stop = std::min(text_.find_first_not_of("0123456789", begin), text_.size());
    const auto value = parse_integer(text_.substr(begin, stop - begin));
    if (!value) return {};
    at_ = stop;
    return *value;
  }

  std::size_t end() const { return at_; }  // of the number read last

 private:
  static bool blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f'; }

  std::string_view text_;
  std::size_t at_;
};

// Red, green and blue, of grey pixels all the same.
std::array<float, 3> mean_colour(std::span<const float> samples, index_t channels) {
  std::array<double, 3> sum{};
  for (std::size_t i = 0; i < samples.size(); ++i) sum[i % static_cast<std::size_t>(channels)] += static_cast<double>(samples[i]);
  const auto pixels = static_cast<double>(samples.size()) / static_cast<double>(channels);
  std::array<float, 3> colour{};
  for (std::size_t c = 0; c < 3; ++c) colour[c] = static_cast<float>(sum[channels == 1 ? 0 : c] / pixels);
  return colour;
}

Result<std::unique_ptr<Input>> open(std::string_view text) {
  const auto comma = text.rfind(",patch=");
  const std::string path(text.substr(0, comma));
  index_t patch = 1;
  if (comma != std::string_view::npos) {
    const auto given = parse_integer(text.substr(comma + 7));
    if (!given || *given < 1)
      return refuse("input image: 'patch=" + std::string(text.substr(comma + 7)) + "'; accepted: patch=1, 2, ...");
    patch = *given;
  }
  auto file = MappedFile::open(path);
  if (!file) return refuse("input image: " + file.reason());
  const auto image = parse_image(file->bytes());
  if (!image) return refuse("input image: '" + path + "': " + image.reason());
  if (patch > std::min(image->width, image->height)) {
    return refuse("input image: '" + path + "' has " + std::to_string(image->width) + " x " + std::to_string(image->height) +
                  " pixels, less than one patch of " + std::to_string(patch) + " x " + std::to_string(patch));
  }
  return feature_input("image:" + path + (patch == 1 ? "" : ",patch=" + std::to_string(patch)), patches(*image, patch));
}

}  // namespace

Result<Image> parse_pnm(std::span<const std::byte> file) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  const auto magic = text.substr(0, 2);
  if (magic != "P2" && magic != "P3" && magic != "P5" && magic != "P6") {
    return at_byte(0, "magic is not P2, P3, P5 or P6: no PGM or PPM image, and no PNG or JPEG");
  }
  const bool plain = magic == "P2" || magic == "P3";
  NumberReader numbers(text, 2);
  index_t header[3];  // width, height, maxval
  for (std::size_t field = 0; field < 3; ++field) {
    const std::size_t at = numbers.offset();
    constexpr const char* names[] = {"width", "height", "maxval"};
    const index_t most = field == 2 ? 65535 : index_t{1} << 30;
    const auto value = numbers.next();
    if (!value || *value < 1 || *value > most) {
      return at_byte(at, std::string(names[field]) + " is no whole number from 1 to " + std::to_string(most));
    }
    header[field] = *value;
  }
  Image image{header[0], header[1], magic == "P2" || magic == "P5" ? 1 : 3, {}};
  const std::size_t begin = std::min(numbers.end() + 1, text.size());  // one blank ends the header
  const std::size_t sample_bytes = !plain && header[2] > 255 ? 2 : 1;
  const auto count = static_cast<std::size_t>(image.width * image.height) * static_cast<std::size_t>(image.channels);
  // A plain sample takes a byte at least, so the check holds for both forms, before anything is allocated.
  if (count > (text.size() - begin) / sample_bytes) {
    return at_byte(begin, std::to_string(image.width) + " x " + std::to_string(image.height) + " pixels need " +
                              (plain ? "at least " : "") + std::to_string(count * sample_bytes) + " bytes, " +
                              std::to_string(text.size() - begin) + " are left");
  }
  image.samples.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t at = plain ? numbers.offset() : begin + i * sample_bytes;
    index_t value = -1;
    if (plain) {
      value = numbers.next().value_or(-1);
    } else {
      value = std::to_integer<index_t>(file[at]);
      if (sample_bytes == 2) value = value << 8 | std::to_integer<index_t>(file[at + 1]);  // big-endian
    }
    if (value < 0 || value > header[2])
      return at_byte(at, "sample " + std::to_string(i) + " is no whole number from 0 to " + std::to_string(header[2]));
    image.samples[i] = static_cast<float>(value) / static_cast<float>(header[2]);
  }
  return image;
}

Features patches(const Image& image, index_t patch) {
  ATTN_ASSERT(patch >= 1 && patch <= std::min(image.width, image.height));
  const index_t columns = image.width / patch;
  const index_t rows = image.height / patch;
  Features features{columns * rows, patch * patch * image.channels, {}, patch == 1 ? "pixels" : "patches"};
  features.values.reserve(static_cast<std::size_t>(features.count * features.size));
  for (index_t i = 0; i < features.count; ++i) {
    for (index_t y = 0; y < patch; ++y) {
      const auto* line =
          &image
               .samples[static_cast<std::size_t>(((i / columns * patch + y) * image.width + i % columns * patch) * image.channels)];
      features.values.insert(features.values.end(), line, line + patch * image.channels);
    }
  }
  features.columns = columns;
  for (index_t i = 0; i < features.count; ++i) {
    const std::span patch_values(features.values.data() + i * features.size, static_cast<std::size_t>(features.size));
    const auto colour = mean_colour(patch_values, image.channels);
    features.colours.insert(features.colours.end(), colour.begin(), colour.end());
  }
  standardise(features.values);
  return features;
}

InputKind image_input() {
  return {{"image", "image:FILE[,patch=p]",
           "PNG, JPEG, PGM or PPM image: pixels, or patches of p x p, in raster order, embedded and projected per head"},
          open};
}

}  // namespace attn
