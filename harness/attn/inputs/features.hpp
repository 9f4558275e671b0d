// Sequences of feature vectors, such as frames of sound or patches of an image: x = features W, W seeded Xavier-uniform,
// then projection.hpp. Features have mean 0 and variance 1, so that they weigh about as much as the positions.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "attn/inputs/input.hpp"

namespace attn {

struct Features {
  index_t count = 0, size = 0;
  std::vector<float> values;        // [count, size]
  std::string noun;                 // what one of them is, plural: "frames"
  index_t columns = 0;              // of patches in raster order; 0: no picture
  std::vector<float> colours = {};  // of these [count, 3]: the mean red, green and blue, 0..1
};

// Shifts and scales all values together to mean 0 and variance 1; constant values become 0.
void standardise(std::vector<float>& values);

// Batch item b reads from b * length on; past the last feature it goes on at the first, and the note says so.
std::unique_ptr<Input> feature_input(std::string name, Features features);

}  // namespace attn
