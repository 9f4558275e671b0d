// PNG by libpng, JPEG by libjpeg-turbo.
// clang-format off: jpeglib.h uses stdio and does not include it
#include <cstdio>
#include <jpeglib.h>
// clang-format on
#include <png.h>

#include <array>
#include <csetjmp>
#include <string_view>

#include "attn/inputs/image.hpp"

namespace attn {

namespace {

// Of one image: more is no test of attention, and a few bytes of a file can claim them.
constexpr index_t most_pixels = index_t{1} << 26;

Result<Image> empty_image(index_t width, index_t height, index_t channels) {
  if (width < 1 || height < 1 || width > most_pixels / height)
    return refuse(std::to_string(width) + " x " + std::to_string(height) + " pixels; accepted: up to " +
                  std::to_string(most_pixels) + " of them");
  return Image{width, height, channels, {}};
}

void fill(Image& image, const std::vector<unsigned char>& bytes) {
  image.samples.reserve(bytes.size());
  for (const unsigned char byte : bytes) image.samples.push_back(static_cast<float>(byte) / 255);
}

// What libjpeg calls where it cannot go on.
struct Errors {
  jpeg_error_mgr manager;
  std::jmp_buf give_up;
  std::array<char, JMSG_LENGTH_MAX> words;
};

void give_up(j_common_ptr decoder) {
  auto* errors = reinterpret_cast<Errors*>(decoder->err);
  errors->manager.format_message(decoder, errors->words.data());
  std::longjmp(errors->give_up, 1);
}

// No object with a destructor is made between setjmp and a jump: `pixels` is the caller's.
bool decode(std::span<const std::byte> file, Errors& errors, jpeg_decompress_struct& decoder, std::vector<unsigned char>& pixels) {
  if (setjmp(errors.give_up) != 0) return false;
  jpeg_create_decompress(&decoder);
  jpeg_mem_src(&decoder, reinterpret_cast<const unsigned char*>(file.data()), static_cast<unsigned long>(file.size()));
  jpeg_read_header(&decoder, TRUE);
  decoder.out_color_space = decoder.jpeg_color_space == JCS_GRAYSCALE ? JCS_GRAYSCALE : JCS_RGB;
  if (decoder.image_width == 0 ||
      static_cast<index_t>(decoder.image_width) > most_pixels / static_cast<index_t>(decoder.image_height)) {
    std::snprintf(errors.words.data(), errors.words.size(), "%u x %u pixels are too many", decoder.image_width,
                  decoder.image_height);
    return false;
  }
  jpeg_start_decompress(&decoder);
  const std::size_t row_bytes = std::size_t{decoder.output_width} * static_cast<std::size_t>(decoder.output_components);
  pixels.resize(row_bytes * decoder.output_height);
  while (decoder.output_scanline < decoder.output_height) {
    JSAMPROW row = pixels.data() + row_bytes * decoder.output_scanline;
    jpeg_read_scanlines(&decoder, &row, 1);
  }
  jpeg_finish_decompress(&decoder);
  return true;
}

}  // namespace

Result<Image> parse_png(std::span<const std::byte> file) {
  png_image decoder{};
  decoder.version = PNG_IMAGE_VERSION;
  if (png_image_begin_read_from_memory(&decoder, file.data(), file.size()) == 0)
    return refuse(std::string("no PNG: ") + decoder.message);
  const bool colour = (decoder.format & PNG_FORMAT_FLAG_COLOR) != 0;
  decoder.format = colour ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  auto image = empty_image(decoder.width, decoder.height, colour ? 3 : 1);
  if (!image) {
    png_image_free(&decoder);
    return image;
  }
  std::vector<unsigned char> pixels(PNG_IMAGE_SIZE(decoder));
  const png_color black{};  // under what is transparent
  if (png_image_finish_read(&decoder, &black, pixels.data(), 0, nullptr) == 0)
    return refuse(std::string("a torn PNG: ") + decoder.message);
  fill(*image, pixels);
  return image;
}

Result<Image> parse_jpeg(std::span<const std::byte> file) {
  Errors errors{};
  jpeg_decompress_struct decoder{};
  decoder.err = jpeg_std_error(&errors.manager);
  errors.manager.error_exit = give_up;
  errors.manager.output_message = [](j_common_ptr) {};  // warnings are counted
  std::vector<unsigned char> pixels;
  const bool whole = decode(file, errors, decoder, pixels);
  const index_t width = decoder.output_width, height = decoder.output_height, channels = decoder.output_components;
  const bool torn = errors.manager.num_warnings > 0;
  jpeg_destroy_decompress(&decoder);
  if (!whole) return refuse(std::string("no JPEG: ") + errors.words.data());
  if (torn) return refuse("a torn JPEG: " + std::to_string(errors.manager.num_warnings) + " parts of it do not decode");
  auto image = empty_image(width, height, channels);
  if (image) fill(*image, pixels);
  return image;
}

Result<Image> parse_image(std::span<const std::byte> file) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (text.starts_with("\x89PNG")) return parse_png(file);
  if (text.starts_with("\xff\xd8\xff")) return parse_jpeg(file);
  return parse_pnm(file);
}

}  // namespace attn
