// Strokes on a square of grey pixels, read row by row as a sequence.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "attn/core/problem.hpp"

namespace attn::raster {

struct Point {
  double y = 0, x = 0;
};

inline double distance_to_segment(Point p, Point a, Point b) {
  const double dy = b.y - a.y, dx = b.x - a.x, square = dy * dy + dx * dx;
  const double t = square > 0 ? std::clamp(((p.y - a.y) * dy + (p.x - a.x) * dx) / square, 0.0, 1.0) : 0;
  return std::hypot(p.y - a.y - t * dy, p.x - a.x - t * dx);
}

// How much of a pixel's area a stroke of this width covers, its middle line passing at this distance of the pixel's centre.
inline double coverage(double distance, double width) {
  return std::clamp(0.5 + 0.5 * width - distance, 0.0, std::min(1.0, width));
}

class Image {
 public:
  explicit Image(index_t side) : side_(side), pixels_(static_cast<std::size_t>(side * side), 0.0) {}
  index_t side() const { return side_; }
  double& at(index_t y, index_t x) { return pixels_[static_cast<std::size_t>(y * side_ + x)]; }
  double at(index_t y, index_t x) const { return pixels_[static_cast<std::size_t>(y * side_ + x)]; }
  std::vector<double>& pixels() { return pixels_; }
  const std::vector<double>& pixels() const { return pixels_; }

  // The larger of what is there and the stroke. Coordinates are in pixels, centres at whole numbers.
  void stroke(Point a, Point b, double width, double contrast = 1) {
    const auto low = [](double u, double v, double w) { return static_cast<index_t>(std::floor(std::min(u, v) - w)); };
    const auto high = [](double u, double v, double w) { return static_cast<index_t>(std::ceil(std::max(u, v) + w)); };
    const double reach = 0.5 * width + 1;
    for (index_t y = std::max<index_t>(0, low(a.y, b.y, reach)); y <= std::min(side_ - 1, high(a.y, b.y, reach)); ++y) {
      for (index_t x = std::max<index_t>(0, low(a.x, b.x, reach)); x <= std::min(side_ - 1, high(a.x, b.x, reach)); ++x) {
        const Point centre{static_cast<double>(y), static_cast<double>(x)};
        at(y, x) = std::max(at(y, x), contrast * coverage(distance_to_segment(centre, a, b), width));
      }
    }
  }

 private:
  index_t side_;
  std::vector<double> pixels_;
};

// The side of a square of N pixels; 0 if there is none.
inline index_t side_of(index_t length) {
  const auto side = static_cast<index_t>(std::lround(std::sqrt(static_cast<double>(length))));
  return side * side == length ? side : 0;
}

// Grey values of the range low..high as symbols 0..levels-1.
inline std::vector<index_t> quantise(const std::vector<double>& values, double low, double high, index_t levels) {
  std::vector<index_t> symbols;
  for (const double v : values) {
    const double unit = high > low ? std::clamp((v - low) / (high - low), 0.0, 1.0) : 0;
    symbols.push_back(std::min(levels - 1, static_cast<index_t>(unit * static_cast<double>(levels))));
  }
  return symbols;
}

}  // namespace attn::raster
