// A whole layer where the harness expects a variant, so that it is planned, gated, metered and clocked like one.
#pragma once

#include <memory>

#include "attn/variant/registry.hpp"

namespace attn {

// Seconds that runs of a layer took, and those of its mixer within; sums since the start.
struct LayerClock {
  double layer_s = 0, mixer_s = 0;
};

// The layer (layer.hpp) around `mixer` on the same problem, forward: a token of heads * head_dim numbers is row i of q, cut into
// heads; k and v are not read. The MLP has twice as many hidden units, as the models of attn_train have; there are no positions,
// since those that are added come before a layer.
//
// The parameters are the mixer's, by their names, and the layer's as "layer.Wq" and so on. Every run adds to `clock`.
std::unique_ptr<Variant> layer_around(std::unique_ptr<Variant> mixer, std::shared_ptr<LayerClock> clock);

}  // namespace attn
