// Digits drawn by strokes, read pixel by pixel: a generated task in the place of image sets read as sequences.
#include <array>
#include <numbers>

#include "attn/train/raster.hpp"
#include "attn/train/tasks.hpp"

namespace attn {

namespace {

using raster::Point;

// Strokes of the ten digits in a unit square, y downwards.
const std::array<std::vector<std::vector<Point>>, 10>& shapes() {
  static const std::array<std::vector<std::vector<Point>>, 10> all = {{
      {{{.0, .5}, {.15, .15}, {.5, .05}, {.85, .15}, {1, .5}, {.85, .85}, {.5, .95}, {.15, .85}, {.0, .5}}},
      {{{.2, .25}, {0, .55}, {1, .55}}},
      {{{.2, .1}, {0, .5}, {.25, .9}, {1, .1}, {1, .9}}},
      {{{.05, .1}, {0, .6}, {.25, .9}, {.48, .45}, {.75, .9}, {1, .5}, {.92, .1}}},
      {{{1, .7}, {0, .7}, {.65, .05}, {.65, .95}}},
      {{{0, .9}, {0, .15}, {.45, .1}, {.4, .6}, {.7, .9}, {1, .5}, {.92, .1}}},
      {{{0, .7}, {.4, .15}, {.75, .1}, {1, .5}, {.75, .9}, {.5, .5}, {.65, .1}}},
      {{{0, .1}, {0, .9}, {1, .35}}},
      {{{.5, .5}, {.25, .1}, {0, .5}, {.25, .9}, {.5, .5}, {.75, .05}, {1, .5}, {.75, .95}, {.5, .5}}},
      {{{.35, .9}, {.5, .5}, {.25, .1}, {0, .5}, {.35, .9}, {.7, .85}, {1, .4}}},
  }};
  return all;
}

struct Glyphs final : Task {
  struct Options {
    index_t levels = 64, distractors = 2;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("levels", &Options::levels, 2, 256, "grey values, each a symbol")
        .integer("distractors", &Options::distractors, 0, 100, "short strokes that belong to no digit");
  }
  static Status supports(index_t length, const Options&) {
    if (raster::side_of(length) < 12)
      return refuse("N must be the square of a side of at least 12, such as 256, 784 or 1024, given N=" + std::to_string(length));
    return {};
  }

  Options o;

  Glyphs(index_t, const Options& options) : o(options) {
    symbols = o.levels;
    classes = 10;
    control_bar = 0.8;
    recipe.layers = 2;
    recipe.layer.heads = 2;
    recipe.steps = 3000;
    recipe.rate = 1e-3;
  }

  // Turned by up to 15 degrees, scaled by 0.7 to 1.1, sheared by up to 0.2, moved by up to an eighth of the side; strokes of 1.5 to
  // 3 pixels at side 28 and in proportion; noise of 0.1.
  Sample sample(Draws& draws, double) const override {
    const index_t side = raster::side_of(length), digit = draws.below(10);
    const auto pixels = static_cast<double>(side);
    const double angle = draws.uniform(-1, 1) * 15 * std::numbers::pi / 180, scale = draws.uniform(0.7, 1.1) * 0.6 * pixels;
    const double shear = draws.uniform(-0.2, 0.2), width = std::max(1.0, draws.uniform(1.5, 3) * pixels / 28);
    const Point middle{pixels / 2 + draws.uniform(-1, 1) * pixels / 8, pixels / 2 + draws.uniform(-1, 1) * pixels / 8};
    const auto placed = [&](Point p) {
      const double y = scale * (p.y - 0.5), x = 0.8 * scale * (p.x - 0.5) + shear * y;
      return Point{middle.y + std::cos(angle) * y - std::sin(angle) * x, middle.x + std::sin(angle) * y + std::cos(angle) * x};
    };
    raster::Image image(side);
    for (const auto& line : shapes()[static_cast<std::size_t>(digit)]) {
      for (std::size_t i = 0; i + 1 < line.size(); ++i) image.stroke(placed(line[i]), placed(line[i + 1]), width);
    }
    for (index_t d = 0; d < o.distractors; ++d) {
      const Point a{draws.uniform(0, pixels), draws.uniform(0, pixels)};
      const double direction = draws.uniform(0, 2 * std::numbers::pi), reach = draws.uniform(0.1, 0.2) * pixels;
      image.stroke(a, {a.y + reach * std::sin(direction), a.x + reach * std::cos(direction)}, width);
    }
    for (double& v : image.pixels()) v += 0.1 * draws.normal();
    Sample s;
    s.symbols = raster::quantise(image.pixels(), 0, 1, o.levels);
    s.targets = {digit};
    return s;
  }
};

}  // namespace

TaskType glyphs_task() {
  return task_type<Glyphs>("glyphs", "stroke digits on noise, read pixel by pixel; N is the square of the side");
}

}  // namespace attn
