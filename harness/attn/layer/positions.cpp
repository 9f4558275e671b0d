#include "attn/layer/positions.hpp"

#include <array>
#include <cmath>

namespace attn {

namespace {

constexpr std::array all_positions = {Positions::none, Positions::sinusoidal, Positions::learned, Positions::rotary,
                                      Positions::alibi};

// Angle of pair c of `pairs` at position i.
double angle(index_t i, index_t c, index_t pairs) {
  return static_cast<double>(i) * std::pow(10000.0, -static_cast<double>(c) / static_cast<double>(pairs));
}

}  // namespace

std::string_view to_string(Positions positions) {
  switch (positions) {
    case Positions::none: return "none";
    case Positions::sinusoidal: return "sinusoidal";
    case Positions::learned: return "learned";
    case Positions::rotary: return "rotary";
    case Positions::alibi: return "alibi";
  }
  return "";
}

Result<Positions> parse_positions(std::string_view text) {
  std::string accepted;
  for (const Positions positions : all_positions) {
    if (to_string(positions) == text) return positions;
    accepted += (accepted.empty() ? "" : ", ") + std::string(to_string(positions));
  }
  return refuse("positions '" + std::string(text) + "' is not one of " + accepted);
}

template <class T>
Tensor<T> sinusoids(index_t length, index_t width) {
  const index_t pairs = (width + 1) / 2;
  return tabulate<T>({length, width}, [&](index_t i, index_t c) {
    return c < pairs ? std::sin(angle(i, c, pairs)) : std::cos(angle(i, c - pairs, pairs));
  });
}

template <class T>
Tensor<T> rotate(const Tensor<T>& x) {
  const index_t pairs = x.extent(-1) / 2;
  ATTN_ASSERT(2 * pairs == x.extent(-1));
  const auto table = [&](double (*wave)(double)) {
    return tabulate<T>({x.extent(-2), pairs}, [&](index_t i, index_t c) { return wave(angle(i, c, pairs)); });
  };
  const Tensor<T> cosine = table(std::cos), sine = table(std::sin);
  const Tensor<T> a = slice(x, -1, 0, pairs), b = slice_from(x, -1, pairs);
  return concat<T>({a * cosine - b * sine, a * sine + b * cosine}, -1);
}

template <class T>
void add_alibi(Tensor<T>& q, Tensor<T>& k) {
  const index_t heads = q.extent(1), width = q.extent(-1);
  const double wider = std::sqrt(static_cast<double>(width + 1) / static_cast<double>(width));  // of the two scales 1/sqrt(D)
  const Tensor<T> slope = tabulate<T>({heads, 1, 1}, [&](index_t h, index_t, index_t) {
    return std::exp2(-8.0 * static_cast<double>(h + 1) / static_cast<double>(heads)) * std::sqrt(static_cast<double>(width + 1));
  });
  const auto column = [](const Tensor<T>& values, const Tensor<T>& like) {
    return broadcast_to(values, with_extent(like.shape(), -1, 1));
  };
  q = concat<T>({q * wider, column(slope, q)}, -1);
  k = concat<T>({k, column(unsqueeze(arange<T>(k.extent(-2)), 1), k)}, -1);
}

#define ATTN_INSTANTIATE(T)                          \
  template Tensor<T> sinusoids<T>(index_t, index_t); \
  template Tensor<T> rotate(const Tensor<T>&);       \
  template void add_alibi(Tensor<T>&, Tensor<T>&);
ATTN_INSTANTIATE(float)
ATTN_INSTANTIATE(double)
#undef ATTN_INSTANTIATE

}  // namespace attn
