#include "attn/train/pathfinder.hpp"

#include <array>
#include <numbers>
#include <optional>

#include "attn/train/tasks.hpp"

namespace attn {

namespace pathfinder {

namespace {

using raster::Image;
using raster::Point;

constexpr double full_turn = 2 * std::numbers::pi;

Point moved(Point from, double angle, double by) {
  return {std::ceil(from.y + by * std::sin(angle)), std::ceil(from.x + by * std::cos(angle))};
}

struct Dash {
  Point tail, head;
};

struct Curve {
  std::vector<Dash> dashes;
  Point pivot;
  double angle = 0;
};

// Pixels that are taken, each from 0 to 1.
class Ground {
 public:
  explicit Ground(const Settings& s) : s_(s), taken_(s.side) {
    for (index_t i = 0; i < s.side; ++i)
      taken_.at(0, i) = taken_.at(s.side - 1, i) = taken_.at(i, 0) = taken_.at(i, s.side - 1) = 1;
  }

  bool inside(Point p) const {
    const auto side = static_cast<double>(s_.side);
    return p.y >= 1 && p.x >= 1 && p.y < side - 1 && p.x < side - 1;
  }
  bool free(Point p) const { return inside(p) && taken_.at(static_cast<index_t>(p.y), static_cast<index_t>(p.x)) < 0.5; }

  // A dash with its margin may touch what is taken by its faint border only.
  bool fits(const Dash& dash) const {
    if (!inside(dash.tail) || !inside(dash.head)) return false;
    Image with = footprint(dash);
    for (std::size_t i = 0; i < with.pixels().size(); ++i) {
      if (with.pixels()[i] + taken_.pixels()[i] >= 1.8) return false;
    }
    return true;
  }
  void take(const Dash& dash) {
    const Image with = footprint(dash);
    for (std::size_t i = 0; i < with.pixels().size(); ++i) taken_.pixels()[i] = std::max(taken_.pixels()[i], with.pixels()[i]);
  }

  // Nothing within the margin of this point.
  bool clear(Point p) const {
    const double m = s_.margin;
    for (double dy = -m; dy <= m; ++dy) {
      for (double dx = -m; dx <= m; ++dx) {
        if (std::hypot(dy, dx) <= m && !free({p.y + dy, p.x + dx})) return false;
      }
    }
    return true;
  }
  double free_share() const {
    double free = 0;
    for (const double v : taken_.pixels()) free += v < 0.5;
    return free / static_cast<double>(taken_.pixels().size());
  }

 private:
  Image footprint(const Dash& dash) const {
    Image image(s_.side);
    image.stroke(dash.tail, dash.head, 2 * s_.margin + s_.thickness);
    return image;
  }

  const Settings& s_;
  Image taken_;
};

double degrees(Draws& draws) { return static_cast<double>(draws.below(360)) * full_turn / 360; }

Curve begin(Point tail, double angle, const Settings& s) {
  const Point head = moved(tail, angle, s.dash);
  return {{{tail, head}}, moved(head, angle + std::numbers::pi, s.dash + s.margin), angle};
}

// A beginning with a free dash in a random direction, `border` pixels from the edge or more.
std::optional<Curve> seed(Draws& draws, const Settings& s, const Ground& ground, double border) {
  const double angle = degrees(draws);
  std::vector<Curve> possible;
  const auto side = static_cast<double>(s.side);
  for (double y = border; y < side - border; ++y) {
    for (double x = border; x < side - border; ++x) {
      const Curve curve = begin({y, x}, angle, s);
      if (ground.clear(curve.dashes[0].tail) && ground.clear(curve.dashes[0].head)) possible.push_back(curve);
    }
  }
  if (possible.empty()) return std::nullopt;
  return possible[static_cast<std::size_t>(draws.below(static_cast<index_t>(possible.size())))];
}

// One dash more: its head on a circle around the new pivot, near the old direction. The dash before it becomes ground, the new one
// only with the next: the two would always touch.
bool extend(Draws& draws, const Settings& s, Ground& ground, Curve& curve, int trials) {
  const Point pivot = moved(curve.pivot, curve.angle, s.dash + 2 * s.margin);
  const double radius = s.dash + s.margin, step = 1 / radius;
  std::vector<std::pair<Point, double>> heads;  // and angle
  std::vector<double> weights;
  double sum = 0;
  for (double angle = 0; angle < full_turn; angle += step) {
    const Point head = moved(pivot, angle, radius);
    const bool known =
        std::any_of(heads.begin(), heads.end(), [&](const auto& h) { return h.first.y == head.y && h.first.x == head.x; });
    if (known) continue;
    const double turn = std::abs(std::remainder(angle - curve.angle, full_turn));
    const double cosine = std::cos(std::min(s.continuity * turn, full_turn / 4));
    heads.emplace_back(head, angle);
    weights.push_back(ground.clear(head) ? cosine * cosine : 0);
    sum += weights.back();
  }
  if (sum < 1e-9) return false;
  for (int trial = 0; trial < trials; ++trial) {
    double at = draws.uniform() * sum;
    std::size_t chosen = 0;
    while (chosen + 1 < weights.size() && at >= weights[chosen]) at -= weights[chosen++];
    const auto [head, angle] = heads[chosen];
    const Dash dash{moved(head, angle + std::numbers::pi, s.dash), head};
    if (weights[chosen] == 0 || !ground.fits(dash)) continue;
    ground.take(curve.dashes.back());
    curve.dashes.push_back(dash);
    curve.pivot = pivot;
    curve.angle = angle;
    return true;
  }
  return false;
}

std::optional<std::array<Curve, 2>> two_curves(Draws& draws, const Settings& s, Ground& ground) {
  auto first = seed(draws, s, ground, 2 * s.seed_distance);
  if (!first) return std::nullopt;
  std::optional<Curve> second;
  for (int trial = 0; trial < 3 && !second; ++trial) {
    const Point tail = moved(first->dashes[0].tail, degrees(draws), s.seed_distance);
    const Curve curve = begin(tail, degrees(draws), s);
    if (ground.inside(tail) && ground.inside(curve.dashes[0].head)) second = curve;
  }
  if (!second) return std::nullopt;
  std::array<Curve, 2> curves{*first, *second};
  for (index_t dash = 1; dash < s.dashes; ++dash) {
    for (Curve& curve : curves) {
      if (!extend(draws, s, ground, curve, 3)) return std::nullopt;
    }
  }
  for (const Curve& curve : curves) ground.take(curve.dashes.back());
  return curves;
}

void add_distractors(Draws& draws, const Settings& s, Ground& ground, Image& image) {
  for (index_t d = 0; d < s.distractors && ground.free_share() >= 0.01; ++d) {
    for (int trial = 0; trial < 5; ++trial) {
      Ground after = ground;
      auto curve = seed(draws, s, after, 1);
      if (!curve) continue;
      bool whole = true;
      for (index_t dash = 1; dash < s.distractor_dashes && whole; ++dash) whole = extend(draws, s, after, *curve, 4);
      if (!whole) continue;
      for (const Dash& dash : curve->dashes) {
        ground.take(dash);
        image.stroke(dash.tail, dash.head, s.thickness, s.distractor_contrast);
      }
      break;
    }
  }
}

}  // namespace

Settings settings(index_t side, index_t dashes) {
  Settings s;
  s.side = side;
  s.dashes = dashes;
  s.distractor_dashes = std::max<index_t>(2, dashes / 3);
  s.distractors = 20 / s.distractor_dashes;
  if (side < 32) {
    // Beginnings stand twice seed_distance from the edge: 3 leaves the 4x4 pixels in the middle, as 7 does at side 32.
    s.seed_distance = 3;
    s.distractors = 2;
  }
  return s;
}

Picture draw(Draws& draws, const Settings& s) {
  for (index_t attempt = 1;; ++attempt) {
    Ground ground(s);
    const auto curves = two_curves(draws, s, ground);
    if (!curves) continue;
    Picture picture{Image(s.side), draws.coin(), attempt};
    const auto start = static_cast<std::size_t>(draws.below(2));
    const Point from = (*curves)[start].dashes.front().tail, to = (*curves)[picture.joined ? start : 1 - start].dashes.back().head;
    for (const Curve& curve : *curves) {
      for (const Dash& dash : curve.dashes) picture.image.stroke(dash.tail, dash.head, s.thickness, s.dash_contrast);
    }
    add_distractors(draws, s, ground, picture.image);
    for (const Point marker : {from, to}) picture.image.stroke(marker, marker, 2 * s.marker_radius, s.marker_contrast);
    return picture;
  }
}

}  // namespace pathfinder

namespace {

struct Pathfinder final : Task {
  struct Options {
    index_t dashes = 0, levels = 256;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("dashes", &Options::dashes, 0, 14,
                 "of each curve: 6 is easy, 9 intermediate, 14 hard; 0: 14 at N=1024, 6 at N=256")
        .integer("levels", &Options::levels, 2, 256, "grey values, each a symbol");
  }
  static Status supports(index_t length, const Options& o) {
    if (length != 256 && length != 1024)
      return refuse("pictures have 16x16 or 32x32 pixels: N=256 or N=1024, given N=" + std::to_string(length));
    if (length == 256 && o.dashes > 6) return refuse("dashes=" + std::to_string(o.dashes) + " do not fit into 16x16 pixels, 6 do");
    if (o.dashes == 1) return refuse("a curve has 2 dashes or more");
    return {};
  }

  pathfinder::Settings settings;
  index_t levels_of_grey;

  Pathfinder(index_t n, const Options& o)
      : settings(pathfinder::settings(raster::side_of(n), o.dashes > 0 ? o.dashes : (n == 256 ? 6 : 14))),
        levels_of_grey(o.levels) {
    symbols = o.levels;
    classes = 2;
    control_bar = 0.6;
    recipe.layers = 2;
    recipe.layer.heads = 2;
    recipe.steps = 5000;
    recipe.rate = 1e-3;
  }

  Sample sample(Draws& draws, double) const override {
    const auto picture = pathfinder::draw(draws, settings);
    const auto [low, high] = std::minmax_element(picture.image.pixels().begin(), picture.image.pixels().end());
    Sample s;
    s.symbols = raster::quantise(picture.image.pixels(), *low, *high, levels_of_grey);
    s.targets = {picture.joined};
    return s;
  }
};

}  // namespace

TaskType pathfinder_task() {
  return task_type<Pathfinder>("pathfinder",
                               "are two marked points joined by a dashed curve? N=1024 has the Long Range Arena's numbers");
}

}  // namespace attn
