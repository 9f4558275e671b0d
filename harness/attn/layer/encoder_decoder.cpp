#include "attn/layer/encoder_decoder.hpp"

#include <algorithm>
#include <cmath>

#include "attn/algebra/recurrent.hpp"
#include "attn/layer/cross.hpp"

namespace attn {

namespace {

constexpr std::string_view recurrence = "gru";

bool looks_back(const ModelShape& shape, const Variant& variant) {
  return shape.body == Body::layers || variant.name().id != recurrence;
}

index_t directions(const LayerShape& shape) { return shape.causal ? 1 : 2; }

// The decoder's own mixer: its MLP comes behind the cross-attention.
LayerShape decoders(LayerShape shape) {
  shape.causal = true;
  shape.mlp = 0;
  return shape;
}

Status supports_recurrent(const ModelShape& shape) {
  const LayerShape& l = shape.layer;
  if (l.width % directions(l) != 0)
    return refuse("an encoder that reads both ways needs an even width, given " + std::to_string(l.width));
  if (shape.layers != 1 || l.mlp != 0 || l.conv != 0)
    return refuse("a recurrent encoder and decoder have one layer, no MLP and no convolution, given layers=" +
                  std::to_string(shape.layers) + " mlp=" + std::to_string(l.mlp) + " conv=" + std::to_string(l.conv));
  if (l.positions == Positions::rotary || l.positions == Positions::alibi)
    return refuse("a recurrent encoder and decoder take positions none, sinusoidal or learned, given " +
                  std::string(to_string(l.positions)));
  return {};
}

template <class T>
struct Parts {
  const ModelShape& shape;
  const Variant& variant;
  Weights<T> weights;

  Parts(const ModelShape& s, const Variant& v, const ParameterSet<T>& parameters) : shape(s), variant(v), weights(parameters) {}
  index_t answers() const { return shape.answers; }
  Tensor<T> answered(const Indices& before, index_t first) const {
    return embed(shape.layer, weights.of("answers"), before.reshaped({before.extent(0), before.extent(1), 1}), first);
  }
  Tensor<T> looked_up(const Weights<T>& own, const Tensor<T>& x, const CrossMemory<T>& memory, index_t first) const {
    return cross(shape.layer, variant, own, x, memory, answers(), first);
  }
};

// What the decoder knows of the source, and how it goes on from there.
template <class T>
struct Recurrent : Parts<T> {
  Tensor<T> h;  // [1,batch,width]
  CrossMemory<T> memory;

  Recurrent(const ModelShape& model, const Variant& mixer, const ParameterSet<T>& parameters, const Indices& source)
      : Parts<T>(model, mixer, parameters) {
    const Weights<T>& w = this->weights;
    const Tensor<T> x = embed(model.layer, w.of("source"), source);
    const index_t count = directions(model.layer), batch = x.extent(0), length = x.extent(1), units = model.layer.width / count;
    std::vector<Tensor<T>> ways{x}, read, last;
    if (count == 2) ways.push_back(flip(x, 1));
    const Tensor<T> states = recurrent(w.of("encoder"), stack(ways, 0), zeros<T>({count, batch, units}));
    for (index_t way = 0; way < count; ++way) {
      const Tensor<T> own = squeeze(slice(states, 0, way, way + 1), 0);
      read.push_back(way == 0 ? own : flip(own, 1));
      last.push_back(squeeze(slice(own, 1, length - 1, length), 1));
    }
    h = unsqueeze(tanh(matmul(concat(last, -1), w["Wb"]) + w["bb"]), 0);
    if (looks_back(model, mixer)) memory = cross_memory(model.layer, mixer, w.of("cross"), concat(read, -1));
  }

  // Logits of answers first, first + 1, ... from what was answered before each; moves on by as many.
  Tensor<T> answer(const Indices& before, index_t first) {
    const Weights<T>& w = this->weights;
    const Tensor<T> states = recurrent(w.of("decoder"), unsqueeze(this->answered(before, first), 0), h);
    h = squeeze(slice(states, 2, states.extent(2) - 1, states.extent(2)), 2);
    const Tensor<T> own = squeeze(states, 0);
    Tensor<T> y = matmul(own, w["Wh"]) + w["bh"];
    if (looks_back(this->shape, this->variant)) y = y + this->looked_up(w.of("cross"), own, memory, first);
    return head(w, tanh(y));
  }

  void spread(index_t beam) {
    h = repeat(h, 1, beam);
    if (looks_back(this->shape, this->variant)) memory = {repeat(memory.k, 0, beam), repeat(memory.v, 0, beam)};
  }
  void choose(const Indices& rows) { h = take(h, rows, 1); }
};

template <class T>
struct Layered : Parts<T> {
  std::vector<CrossMemory<T>> memory;  // of each of the decoder's layers
  Indices given;                       // [batch, answers], -1 where nothing is answered yet

  Layered(const ModelShape& model, const Variant& mixer, const ParameterSet<T>& parameters, const Indices& source)
      : Parts<T>(model, mixer, parameters) {
    const Weights<T>& w = this->weights;
    Tensor<T> x = embed(model.layer, w.of("source"), source);
    for (index_t l = 0; l < model.layers; ++l) x = layer(model.layer, mixer, w.of(numbered("encoder", l)), x);
    x = norm(w.of("encoder_norm"), x);
    for (index_t l = 0; l < model.layers; ++l)
      memory.push_back(cross_memory(model.layer, mixer, w.of(numbered("decoder", l)).of("cross"), x));
    given = Indices::from({x.extent(0), model.answers}, [](index_t, index_t) { return -1; });
  }

  // The whole is made again for every answer: a causal mixer's rows do not depend on those that are not given yet.
  Tensor<T> answer(const Indices& before, index_t first) {
    const index_t count = before.extent(1);
    given = Indices::from(given.shape(), [&, old = given](index_t b, index_t t) {
      return first <= t && t < first + count ? before(b, t - first) : old(b, t);
    });
    const Weights<T>& w = this->weights;
    const LayerShape& own_shape = this->shape.layer;
    Tensor<T> y = this->answered(given, 0);
    for (index_t l = 0; l < this->shape.layers; ++l) {
      const Weights<T> own = w.of(numbered("decoder", l));
      y = layer(decoders(own_shape), this->variant, own.of("self"), y);
      y = y + this->looked_up(own.of("cross"), norm(own.of("cross_norm"), y), memory[static_cast<std::size_t>(l)], 0);
      y = plus_mlp(own_shape, own, y);
    }
    return head(w, norm(w.of("norm"), slice(y, 1, first, first + count)));
  }

  void spread(index_t beam) {
    for (CrossMemory<T>& m : memory) m = {repeat(m.k, 0, beam), repeat(m.v, 0, beam)};
    given = Indices::from({given.extent(0) * beam, given.extent(1)}, [](index_t, index_t) { return -1; });
  }
  void choose(const Indices& rows) {
    given = Indices::from(given.shape(), [&, old = given](index_t b, index_t t) { return old(rows(b), t); });
  }
};

// A way to go on: the hypothesis it is of, what it answers, and the sum of the logarithms of its answers' probabilities.
struct Continuation {
  index_t from, answer;
  double score;
};

// The best ways to go on from a sequence's hypotheses, the likeliest first, ties to the lowest; log_p [hypotheses, classes]. One that has ended goes
// on as it is.
template <class T>
std::vector<Continuation> best_continuations(const T* log_p, const std::vector<Continuation>& open, index_t classes, index_t end,
                                             index_t beam) {
  std::vector<Continuation> all;
  for (std::size_t k = 0; k < open.size(); ++k) {
    const auto from = static_cast<index_t>(k);
    if (open[k].answer == end) {
      all.push_back({from, end, open[k].score});
      continue;
    }
    for (index_t c = 0; c < classes; ++c) all.push_back({from, c, open[k].score + static_cast<double>(log_p[from * classes + c])});
  }
  std::stable_sort(all.begin(), all.end(), [](const Continuation& a, const Continuation& b) { return a.score > b.score; });
  if (static_cast<index_t>(all.size()) > beam) all.resize(static_cast<std::size_t>(beam));
  return all;
}

// Beam search; of one hypothesis it is greedy. `model` is that of shape.beam hypotheses a sequence.
template <class Model>
Indices search(const ModelShape& shape, Model model, index_t batch) {
  const index_t beam = shape.beam, rows = batch * beam;
  const Continuation nothing{0, shape.classes, 0};
  std::vector<std::vector<Continuation>> open(static_cast<std::size_t>(batch), {nothing});
  std::vector<std::vector<index_t>> answered(static_cast<std::size_t>(rows));
  Indices before = Indices::from({rows, index_t{1}}, [&](index_t, index_t) { return shape.classes; });
  for (index_t t = 0; t < shape.answers; ++t) {
    const auto log_p = log_softmax(model.answer(before, t));
    Indices next({rows, index_t{1}}), chosen({rows});
    std::vector<std::vector<index_t>> grown(answered.size());
    for (index_t b = 0; b < batch; ++b) {
      auto& own = open[static_cast<std::size_t>(b)];
      // All begin alike: one hypothesis stands for them until there are as many answers to go on with.
      own = best_continuations(log_p.data() + b * beam * shape.classes, own, shape.classes, shape.end, beam);
      for (index_t k = 0; k < beam; ++k) {
        const Continuation& c = own[std::min(static_cast<std::size_t>(k), own.size() - 1)];
        const index_t row = b * beam + k, from = b * beam + c.from;
        grown[static_cast<std::size_t>(row)] = answered[static_cast<std::size_t>(from)];
        grown[static_cast<std::size_t>(row)].push_back(c.answer);
        next.writable()[row] = c.answer;
        chosen.writable()[row] = from;
      }
    }
    answered = std::move(grown);
    before = next;
    model.choose(chosen);
  }
  return Indices::from({batch, shape.answers}, [&](index_t b, index_t t) {
    return answered[static_cast<std::size_t>(b * beam)][static_cast<std::size_t>(t)];
  });
}

void declare_recurrent(Parameters& all, const ModelShape& shape, const Variant& variant) {
  const index_t width = shape.layer.width, count = directions(shape.layer);
  const auto square = [&](const char* name) {
    all.push_back({.name = name, .shape = {width, width}, .init = scaled_normal(width)});
  };
  const auto bias = [&](const char* name) { all.push_back({.name = name, .shape = {width}, .init = init::zeros()}); };
  declare(all, "encoder", recurrent_parameters(count, width, width / count));
  square("Wb");
  bias("bb");
  declare(all, "decoder", recurrent_parameters(1, width, width));
  square("Wh");
  bias("bh");
  if (looks_back(shape, variant)) declare(all, "cross", cross_parameters(shape.layer, variant, shape.answers, shape.length));
}

void declare_layers(Parameters& all, const ModelShape& shape, const Variant& variant) {
  const LayerShape& layer = shape.layer;
  for (index_t l = 0; l < shape.layers; ++l) {
    declare(all, numbered("encoder", l), layer_parameters(layer, variant, shape.length));
    Parameters own;
    declare(own, "self", layer_parameters(decoders(layer), variant, shape.answers));
    declare(own, "cross_norm", norm_parameters(layer.width));
    declare(own, "cross", cross_parameters(layer, variant, shape.answers, shape.length));
    declare_mlp(own, layer);
    declare(all, numbered("decoder", l), std::move(own));
  }
  declare(all, "encoder_norm", norm_parameters(layer.width));
  declare(all, "norm", norm_parameters(layer.width));
}

}  // namespace

Parameters recurrent_parameters(index_t units_side_by_side, index_t from, index_t units) {
  const index_t g = units_side_by_side;
  const Init init = init::uniform(1 / std::sqrt(static_cast<double>(units)));
  return {{.name = "W", .shape = {g, from, 3 * units}, .init = init},
          {.name = "U", .shape = {g, units, 3 * units}, .init = init},
          {.name = "b", .shape = {g, 1, 3 * units}, .init = init},
          {.name = "c", .shape = {g, 1, 3 * units}, .init = init}};
}

template <class T>
Tensor<T> recurrent(const Weights<T>& weights, const Tensor<T>& x, Tensor<T> h) {
  const index_t g = x.extent(0), batch = x.extent(1), length = x.extent(2);
  const Tensor<T> rows = matmul(reshape(x, {g, batch * length, -1}), weights["W"]) + weights["b"];
  const Tensor<T> inputs = reshape(rows, {g, batch, length, -1});
  std::vector<Tensor<T>> states;
  for (index_t t = 0; t < length; ++t) {
    h = gru_step(squeeze(slice(inputs, 2, t, t + 1), 2), h, weights["U"], weights["c"]);
    states.push_back(h);
  }
  return stack(states, 2);
}

Status supports_decoding(const ModelShape& shape, const Variant& variant) {
  if (shape.body == Body::recurrent) {
    if (Status status = supports_recurrent(shape); !status) return status;
    if (!looks_back(shape, variant)) return {};
  } else {
    if (Status status = supports(shape.layer, variant, shape.length); !status) return status;
    if (Status status = supports(decoders(shape.layer), variant, shape.answers); !status) return status;
    if (variant.info().membership_sees_future)
      return refuse(variant.name().label() + " chooses by all tokens who attends to whom, and a decoder has not given them yet");
  }
  return supports_cross(shape.layer, variant, shape.answers, shape.length);
}

Parameters decoding_parameters(const ModelShape& shape, const Variant& variant) {
  Parameters all;
  declare(all, "source", embedding_parameters(shape.layer, shape.symbols, shape.length));
  declare(all, "answers", embedding_parameters(shape.layer, shape.classes + 1, shape.answers));
  (shape.body == Body::recurrent ? declare_recurrent : declare_layers)(all, shape, variant);
  for (ParameterSpec& spec : head_parameters(shape.layer.width, shape.classes)) all.push_back(std::move(spec));
  return all;
}

template <class T>
Tensor<T> decoding_logits(const ModelShape& shape, const Variant& variant, const ParameterSet<T>& parameters,
                          const Tokens& tokens) {
  if (shape.body == Body::recurrent) return Recurrent<T>(shape, variant, parameters, tokens.symbols).answer(tokens.before, 0);
  return Layered<T>(shape, variant, parameters, tokens.symbols).answer(tokens.before, 0);
}

template <class T>
Indices decode(const ModelShape& shape, const Variant& variant, const ParameterSet<T>& parameters, const Tokens& tokens) {
  ATTN_ASSERT(shape.pool == Pool::decoded);
  const index_t batch = tokens.symbols.extent(0);
  const auto found = [&](auto model) {
    model.spread(shape.beam);
    return search(shape, std::move(model), batch);
  };
  return shape.body == Body::recurrent ? found(Recurrent<T>(shape, variant, parameters, tokens.symbols))
                                       : found(Layered<T>(shape, variant, parameters, tokens.symbols));
}

#define ATTN_INSTANTIATE(T)                                                                                     \
  template Tensor<T> recurrent(const Weights<T>&, const Tensor<T>&, Tensor<T>);                                 \
  template Tensor<T> decoding_logits(const ModelShape&, const Variant&, const ParameterSet<T>&, const Tokens&); \
  template Indices decode(const ModelShape&, const Variant&, const ParameterSet<T>&, const Tokens&);
ATTN_INSTANTIATE(float)
ATTN_INSTANTIATE(double)
#undef ATTN_INSTANTIATE

}  // namespace attn
