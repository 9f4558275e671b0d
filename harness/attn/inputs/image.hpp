// Images: Netpbm's PGM (P2, P5) and PPM (P3, P6), https://netpbm.sourceforge.net/doc/pgm.html; PNG and JPEG.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "attn/core/result.hpp"
#include "attn/inputs/features.hpp"

namespace attn {

struct Image {
  index_t width = 0, height = 0, channels = 0;
  std::vector<float> samples;  // [height, width, channels], 0..1
};

// Refusals name the field and its byte offset, not the file.
Result<Image> parse_pnm(std::span<const std::byte> file);

// 8 bits a sample, colours or greys; what is transparent lies on black. Refused in libpng's or libjpeg's words, and where it is torn.
Result<Image> parse_png(std::span<const std::byte> file);
Result<Image> parse_jpeg(std::span<const std::byte> file);

// Any of these, by how the file begins.
Result<Image> parse_image(std::span<const std::byte> file);

// Patches of patch x patch pixels in raster order, each its pixels in raster order, standardised over the image; what is
// left at the right and at the bottom is dropped, as ViT does. The image must hold a patch.
Features patches(const Image& image, index_t patch);

}  // namespace attn
