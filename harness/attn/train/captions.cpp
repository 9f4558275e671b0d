// A picture of a few objects, all alike but one: its caption names the odd one.
#include <array>

#include "attn/train/raster.hpp"
#include "attn/train/tasks.hpp"

namespace attn {

namespace {

constexpr index_t side = 4;  // pixels of a patch

// Patches of 4x4 pixels, from the top row, '#' in the object's colour.
constexpr std::array<std::string_view, 6> forms = {"#####..##..#####",   // square
                                                   ".##.#..##..#.##.",   // ring
                                                   ".#..####.#...#..",   // cross
                                                   "#....#....#....#",   // stroke
                                                   "####.##..##.####",   // hourglass
                                                   "...#..##.#######"};  // triangle

// N patches of a square picture, at most one object in each. A caption has four words: colour and shape of the odd one, its row and its column.
struct Captions final : Task {
  struct Options {
    index_t objects = 5, colours = 4, shapes = 4;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("objects", &Options::objects, 3, 1 << 10, "in a picture, one of them odd")
        .integer("colours", &Options::colours, 1, 64, "of objects")
        .integer("shapes", &Options::shapes, 1, static_cast<index_t>(forms.size()), "of objects");
  }
  static Status supports(index_t length, const Options& o) {
    if (raster::side_of(length) < 2)
      return refuse("N must be the square of a side of at least 2 patches, such as 16 or 36, given N=" + std::to_string(length));
    if (o.objects > length)
      return refuse("objects=" + std::to_string(o.objects) + " need as many patches, given N=" + std::to_string(length));
    if (o.colours == 1 && o.shapes == 1)
      return refuse("objects of one colour and one shape have no odd one; accepted: two of either");
    return {};
  }

  Options o;
  index_t patches;  // along a side

  Captions(index_t n, const Options& options) : o(options), patches(raster::side_of(n)) {
    streams = side * side;
    symbols = streams * (o.colours + 1);  // a pixel's place in its patch and its colour; 0: the ground
    classes = o.colours + o.shapes + 2 * patches;
    answers = 4;
    pool = Pool::decoded;
    control_bar = 0.9;
    // Which object is odd shows by comparing all of them: layers of full attention do it after 800 steps, a recurrent encoder and decoder joined by
    // it stand at 0.57 after 1500.
    recipe = {.layer = {.width = 64, .heads = 2}, .layers = 2, .steps = 1500, .rate = 2e-3};
  }

  struct Look {
    index_t colour, shape;
  };

  // The odd one differs in its colour or in its shape, not in both.
  Sample sample(Draws& draws, double) const override {
    const Look common{draws.below(o.colours), draws.below(o.shapes)};
    const bool by_colour = o.colours > 1 && (o.shapes == 1 || draws.coin());
    Look odd = common;
    index_t& differs = by_colour ? odd.colour : odd.shape;
    const index_t kinds = by_colour ? o.colours : o.shapes;
    differs = (differs + 1 + draws.below(kinds - 1)) % kinds;
    const auto places = draws.distinct(o.objects, length);
    Sample s;
    for (index_t patch = 0; patch < length; ++patch) {
      for (index_t pixel = 0; pixel < streams; ++pixel) s.symbols.push_back(pixel * (o.colours + 1));
    }
    for (std::size_t i = 0; i < places.size(); ++i) paint(s, places[i], i == 0 ? odd : common);
    s.targets = {odd.colour, o.colours + odd.shape, o.colours + o.shapes + places[0] / patches,
                 o.colours + o.shapes + patches + places[0] % patches};
    return s;
  }

  // Naming any object that is there, as one does who does not see which is odd.
  std::vector<Level> levels(const std::vector<Sample>& test) const override {
    auto list = Task::levels(test);
    list.push_back({"some_object", 1 / static_cast<double>(o.objects)});
    return list;
  }

 private:
  void paint(Sample& s, index_t patch, const Look& look) const {
    const std::string_view form = forms[static_cast<std::size_t>(look.shape)];
    for (index_t pixel = 0; pixel < streams; ++pixel) {
      if (form[static_cast<std::size_t>(pixel)] == '#')
        s.symbols[static_cast<std::size_t>(patch * streams + pixel)] += 1 + look.colour;
    }
  }
};

}  // namespace

TaskType captions_task() {
  return task_type<Captions>(
      "captions", "a picture of objects that are alike but for one, which its caption names: colour, shape, row, column");
}

}  // namespace attn
