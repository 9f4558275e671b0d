// Netpbm images: PGM (P2, P5) and PPM (P3, P6), https://netpbm.sourceforge.net/doc/pgm.html
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

// Patches of patch x patch pixels in raster order, each its pixels in raster order, standardised over the image; what is
// left at the right and at the bottom is dropped, as ViT does. The image must hold a patch.
Features patches(const Image& image, index_t patch);

}  // namespace attn
