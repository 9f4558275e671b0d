// Pathfinder: are two marked points joined by a dashed curve?
//   Linsley et al. 2018, arXiv:1805.08315, section 2; numbers of the Long Range Arena (Tay et al. 2020, arXiv:2011.04006) for
//   32x32. Pictures follow the same distribution of curves, not the same pixels: lines are drawn by coverage here.
#pragma once

#include "attn/train/draws.hpp"
#include "attn/train/raster.hpp"

namespace attn::pathfinder {

struct Settings {
  index_t side = 32;
  index_t dashes = 14;      // of each of the two curves
  index_t distractors = 5;  // short curves
  index_t distractor_dashes = 4;
  double dash = 2, margin = 1;  // length, and distance to anything else, in pixels
  double seed_distance = 7;     // between the beginnings of the two curves
  double continuity = 1;        // larger: straighter
  double thickness = 0.5, marker_radius = 1.5;
  double dash_contrast = 1.5, distractor_contrast = 2, marker_contrast = 1;
};

// 32x32 as in the arena, easy, intermediate or hard by the number of dashes (6, 9, 14); 16x16 is this tree's own.
Settings settings(index_t side, index_t dashes);

struct Picture {
  raster::Image image;
  bool joined = false;
  index_t attempts = 0;  // pictures begun until one could be finished
};
Picture draw(Draws& draws, const Settings& settings);

}  // namespace attn::pathfinder
