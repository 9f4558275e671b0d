#include "attn/kernels/linear/gated_panel.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/linear/gated_panel.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cmath>

#include "attn/kernels/dense/gemm-inl.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/linear/gates-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {

// f(vector's first column, lanes that count)
template <class Fn>
HWY_INLINE void EachColumns(index_t n, Fn f) {
  for (index_t j = 0; j < n; j += kLanes) f(j, n - j);
}

void DecayOf(index_t count, const float* log_gate, const PanelDecay& decay) {
  const F d;
  HWY_ALIGN float gate[gated_panel] = {};
  std::copy_n(log_gate, count, gate);
  float sum = 0;
  for (index_t i = 0; i < count; ++i) decay.upto[i] = sum += log_gate[i];
  sum = 0;
  double all = 0;
  for (index_t j = count - 1; j >= 0; --j) {
    decay.after[j] = sum;
    sum += log_gate[j];
    all += static_cast<double>(log_gate[j]);
  }
  all = std::exp(all);
  decay.all[0] = static_cast<float>(all);
  decay.all[1] = static_cast<float>(all - static_cast<double>(decay.all[0]));
  EachColumns(count, [&](index_t j, index_t left) HWY_ATTR {
    for (float* x : {decay.upto + j, decay.after + j, gate + j}) store_first(exp_of_gate(load_first(x, left)), x, left);
  });
  std::fill_n(decay.between, gated_panel, 0.0f);
  decay.between[0] = 1;
  for (index_t i = 1; i < count; ++i) {
    float* const row = decay.between + i * gated_panel;
    const V g = hn::Set(d, gate[i]);
    EachColumns(gated_panel, [&](index_t j, index_t) HWY_ATTR {
      hn::StoreU(hn::Mul(hn::LoadU(d, row - gated_panel + j), g), d, row + j);
    });
    row[i] = 1;
  }
}

// e^-76: a key of 1e5 divided by it is a float, and 16 gates of e^-5 or more are one panel.
constexpr float least_product = 9.8e-34f;

index_t GateProducts(index_t most, index_t n, Rows gates, Into upto, Into since) {
  const F d;
  const V one = hn::Set(d, 1.0f), least = hn::Set(d, least_product);
  EachColumns(n, [&](index_t c, index_t left) HWY_ATTR {
    store_first(load_first(gates.data + c, left), upto.data + c, left);
    store_first(one, since.data + c, left);
  });
  for (index_t i = 1; i < most; ++i) {
    const float* const gate = gates.data + i * gates.stride;
    float *const up = upto.data + i * upto.stride, *const from = since.data + i * since.stride;
    V lowest = one;
    EachColumns(n, [&](index_t c, index_t left) HWY_ATTR {
      const V g = load_first(gate + c, left);
      V product = hn::Mul(load_first(from - since.stride + c, left), g);
      store_first(product, from + c, left);
      store_first(hn::Mul(load_first(up - upto.stride + c, left), g), up + c, left);
      if (left < kLanes) product = hn::IfThenElse(hn::FirstN(d, static_cast<size_t>(left)), product, one);
      lowest = hn::Min(lowest, product);
    });
    if (!hn::AllFalse(d, hn::Lt(lowest, least))) return i;
  }
  return most;
}

void FadeToEnd(index_t count, index_t n, Rows gates, Rows from, Into to) {
  const F d;
  EachColumns(n, [&](index_t c, index_t left) HWY_ATTR {
    V kept = hn::Set(d, 1.0f);
    for (index_t j = count - 1; j >= 0; --j) {
      store_first(hn::Mul(load_first(from.data + j * from.stride + c, left), kept), to.data + j * to.stride + c, left);
      kept = hn::Mul(kept, load_first(gates.data + j * gates.stride + c, left));
    }
  });
}

// One vector of columns of R rows stays in registers. Each row joins those after it as soon as it is known, so that only its own step
// waits for it.
template <int R, bool delta>
HWY_NOINLINE void SubstituteRows(index_t n, Rows weights, const float* factor, Rows v, Into z) {
  const F d;
  EachColumns(n, [&](index_t c, index_t left) HWY_ATTR {
    V row[R];
    ATTN_EACH(i, R) {
      row[i] = load_first(z.data + i * z.stride + c, left);
      if constexpr (delta) row[i] = hn::Sub(load_first(v.data + i * v.stride + c, left), row[i]);
    }
    ATTN_EACH(j, R) {
      if constexpr (delta) row[j] = hn::Mul(row[j], hn::Set(d, factor[j]));
      store_first(row[j], z.data + j * z.stride + c, left);
      ATTN_EACH(i, R) {
        if (i <= j) continue;
        const V weight = hn::Set(d, weights.data[i * weights.stride + j]);
        row[i] = delta ? hn::NegMulAdd(weight, row[j], row[i]) : hn::MulAdd(weight, row[j], row[i]);
      }
    }
  });
}

template <bool delta, int... I>
constexpr auto SubstitutesOf(std::integer_sequence<int, I...>) {
  return std::array{&SubstituteRows<I + 1, delta>...};
}
template <bool delta>
inline constexpr auto substitutes = SubstitutesOf<delta>(std::make_integer_sequence<int, gated_panel>());

void SubstituteDelta(index_t count, index_t n, Rows weights, const float* factor, Rows v, Into z) {
  substitutes<true>[static_cast<size_t>(count - 1)](n, weights, factor, v, z);
}
void Substitute(index_t count, index_t n, Rows weights, Into z) {
  substitutes<false>[static_cast<size_t>(count - 1)](n, weights, nullptr, {}, z);
}

// As a tile of gemm, with sums that fade.
template <int R, int W>
HWY_NOINLINE void FadingTile(const gemm_tiles::Tile& t, const Fade& fade) {
  const F d;
  V c[R][W];
  ATTN_EACH(i, R) ATTN_EACH(w, W) c[i][w] = hn::Zero(d);
  const float *a = t.a, *b = t.b, *ahead = t.fetch;
  for (index_t k = 0; k < t.depth; ++k, a += t.a_step, b += t.b_row) {
    if constexpr (W >= 3) {
      __builtin_prefetch(ahead, 0, 2);
      ahead += t.fetch_step;
    }
    V row[W];
    ATTN_EACH(w, W - 1) row[w] = hn::LoadU(d, b + w * kLanes);
    row[W - 1] = load_first(b + (W - 1) * kLanes, t.last);
    ATTN_EACH(i, R) {
      const V x = hn::Set(d, a[i]);
      ATTN_EACH(w, W) c[i][w] = hn::MulAdd(x, row[w], c[i][w]);
    }
  }
  ATTN_EACH(i, R) {
    const V kept = hn::Set(d, fade.factor[fade.by_row ? i : 0]), rest = hn::Set(d, fade.by_row ? 0.0f : fade.factor[1]);
    float* to = t.c + i * t.c_row;
    ATTN_EACH(w, W - 1) {
      const V held = hn::LoadU(d, to + w * kLanes);
      hn::StoreU(hn::MulAdd(kept, held, hn::MulAdd(rest, held, c[i][w])), d, to + w * kLanes);
    }
    to += (W - 1) * kLanes;
    const V held = load_first(to, t.last);
    store_first(hn::MulAdd(kept, held, hn::MulAdd(rest, held, c[i][W - 1])), to, t.last);
  }
}

template <int W, int... I>
constexpr auto FadingTilesOf(std::integer_sequence<int, I...>) {
  return std::array{&FadingTile<I + 1, W>...};
}

template <int W>
void FadingStrip(index_t m, const Fade& fade, gemm_tiles::Tile t, gemm_tiles::FetchRuns& fetch) {
  constexpr int rows = gemm_tiles::tile_rows[W];
  static constexpr auto tiles = FadingTilesOf<W>(std::make_integer_sequence<int, rows>());
  for (index_t i = 0; i < m; i += rows, t.a += rows, t.c += rows * t.c_row) {
    const index_t count = std::min<index_t>(rows, m - i);
    fetch.aim(t, t.depth);
    tiles[static_cast<size_t>(count - 1)](t, {fade.factor + (fade.by_row ? i : 0), fade.by_row});
  }
}

void FadeAndAdd(index_t m, index_t n, index_t count, Rows keys, Rows values, const Fade& fade, Into sums, const Fetch& next_keys,
                const Fetch& next_values) {
  const GemmOptions options{.fetch = {next_keys, next_values}};
  gemm_tiles::FetchRuns fetch(options);
  for (index_t at = 0; at < n;) {
    // Of two scalar columns g++ 12 reads the row past the last one too, into a half register that it does not use.
    const int width = kLanes == 1 ? 1 : gemm_tiles::next_width((n - at + kLanes - 1) / kLanes);
    gemm_tiles::Tile t{.a = keys.data, .a_step = keys.stride, .b = values.data + at, .b_row = values.stride, .depth = count};
    t.c = sums.data + at, t.c_row = sums.stride;
    t.last = std::min(kLanes, n - at - (width - 1) * kLanes);
    switch (width) {
      case 1: FadingStrip<1>(m, fade, t, fetch); break;
      case 2: FadingStrip<2>(m, fade, t, fetch); break;
#if HWY_TARGET <= HWY_AVX2
      case 3: FadingStrip<3>(m, fade, t, fetch); break;
#endif
#if HWY_TARGET <= HWY_AVX3
      case 4: FadingStrip<4>(m, fade, t, fetch); break;
#endif
      default: HWY_ABORT("fade_and_add: width %d", width);
    }
    at += width * kLanes;
  }
}

// f(vector) -> vector
template <class Fn>
HWY_INLINE void EachElement(index_t m, index_t n, Rows from, Into to, Fn f) {
  for (index_t i = 0; i < m; ++i) {
    const float* const x = from.data + i * from.stride;
    float* const y = to.data + i * to.stride;
    EachColumns(n, [&](index_t c, index_t left) HWY_ATTR { store_first(f(load_first(x + c, left)), y + c, left); });
  }
}

void DecaysOfSoftplus(index_t m, index_t n, Rows x, float sign, float rate, Into to) {
  const V factor = hn::Set(F(), -rate), way = hn::Set(F(), sign);
  EachElement(m, n, x, to, [=](V y) HWY_ATTR { return exp_of_gate(hn::Mul(factor, softplus_lanes(hn::Mul(way, y)))); });
}
void ExpOfGates(index_t m, index_t n, Rows x, float factor, Into to) {
  const V f = hn::Set(F(), factor);
  EachElement(m, n, x, to, [=](V y) HWY_ATTR { return exp_of_gate(hn::Mul(f, y)); });
}
void RestOfGates(index_t m, index_t n, Rows x, float factor, Into to) {
  const V f = hn::Set(F(), factor);
  EachElement(m, n, x, to, [=](V y) HWY_ATTR { return rest_of_gate(hn::Mul(f, y)); });
}
void Softplus(index_t m, index_t n, Rows x, float sign, Into to) {
  const V way = hn::Set(F(), sign);
  EachElement(m, n, x, to, [=](V y) HWY_ATTR { return softplus_lanes(hn::Mul(way, y)); });
}

void UnitFactors(index_t m, index_t n, Rows from, float factor, float* to) {
  const F d;
  for (index_t i = 0; i < m; ++i) {
    const float* const x = from.data + i * from.stride;
    V squares = hn::Zero(d);
    EachColumns(n, [&](index_t c, index_t left) HWY_ATTR {
      const V y = load_first(x + c, left);
      squares = hn::MulAdd(y, y, squares);
    });
    to[i] = factor / std::sqrt(hn::GetLane(hn::SumOfLanes(d, squares)) + 1e-6f);
  }
}

void TripleDots(index_t m, index_t n, Rows x, Rows y, const float* weights, float* to) {
  const F d;
  for (index_t i = 0; i < m; ++i) {
    V sum = hn::Zero(d);
    EachColumns(n, [&](index_t c, index_t left) HWY_ATTR {
      const V product = hn::Mul(load_first(x.data + i * x.stride + c, left), load_first(y.data + i * y.stride + c, left));
      sum = hn::MulAdd(product, load_first(weights + c, left), sum);
    });
    to[i] = hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

void MakeRemovalRows(index_t m, index_t n, Rows k, Rows a, const float* key_scale, const float* rate_scale, const RemovalRows& to) {
  const F d;
  const V one = hn::Set(d, 1.0f);
  for (index_t i = 0; i < m; ++i) {
    const float *const key = k.data + i * k.stride, *const rate = a.data + i * a.stride;
    V squares = hn::Zero(d);
    EachColumns(n, [&](index_t c, index_t left) HWY_ATTR {
      const V x = hn::Mul(load_first(key + c, left), load_first(key_scale + c, left));
      squares = hn::MulAdd(x, x, squares);
    });
    const float norm = std::sqrt(hn::GetLane(hn::SumOfLanes(d, squares)));
    const V inverse = hn::Set(d, 1 / (norm < 1e-12f ? 1e-12f : norm));
    EachColumns(n, [&](index_t c, index_t left) HWY_ATTR {
      const V x = load_first(key + c, left), r = load_first(rate + c, left);
      const V unit = hn::Mul(hn::Mul(x, load_first(key_scale + c, left)), inverse);
      store_first(hn::Neg(unit), to.read.data + i * to.read.stride + c, left);
      store_first(hn::Mul(unit, r), to.add.data + i * to.add.stride + c, left);
      const V kept = hn::MulAdd(hn::Sub(r, one), load_first(rate_scale + c, left), one);
      store_first(hn::Mul(x, kept), to.written.data + i * to.written.stride + c, left);
    });
  }
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(DecayOf);
HWY_EXPORT(GateProducts);
HWY_EXPORT(FadeToEnd);
HWY_EXPORT(SubstituteDelta);
HWY_EXPORT(Substitute);
HWY_EXPORT(FadeAndAdd);
HWY_EXPORT(DecaysOfSoftplus);
HWY_EXPORT(ExpOfGates);
HWY_EXPORT(RestOfGates);
HWY_EXPORT(Softplus);
HWY_EXPORT(UnitFactors);
HWY_EXPORT(TripleDots);
HWY_EXPORT(MakeRemovalRows);

void decay_of(index_t count, const float* log_gate, const PanelDecay& decay) {
  HWY_DYNAMIC_DISPATCH(DecayOf)(count, log_gate, decay);
}
index_t gate_products(index_t most, index_t n, Rows gates, Into upto, Into since) {
  return HWY_DYNAMIC_DISPATCH(GateProducts)(most, n, gates, upto, since);
}
void fade_to_end(index_t count, index_t n, Rows gates, Rows from, Into to) {
  HWY_DYNAMIC_DISPATCH(FadeToEnd)(count, n, gates, from, to);
}
void substitute_delta(index_t count, index_t n, Rows weights, const float* factor, Rows v, Into z) {
  HWY_DYNAMIC_DISPATCH(SubstituteDelta)(count, n, weights, factor, v, z);
}
void substitute(index_t count, index_t n, Rows weights, Into z) { HWY_DYNAMIC_DISPATCH(Substitute)(count, n, weights, z); }
void fade_and_add(index_t m, index_t n, index_t count, Rows keys, Rows values, const Fade& fade, Into sums, const Fetch& next_keys,
                  const Fetch& next_values) {
  HWY_DYNAMIC_DISPATCH(FadeAndAdd)(m, n, count, keys, values, fade, sums, next_keys, next_values);
}
void unit_factors(index_t m, index_t n, Rows from, float factor, float* to) {
  HWY_DYNAMIC_DISPATCH(UnitFactors)(m, n, from, factor, to);
}
void unit_rows(index_t m, index_t n, Rows from, Into to) {
  float factor[gated_panel];
  for (index_t i = 0; i < m; i += gated_panel) {
    const index_t rows = std::min(gated_panel, m - i);
    unit_factors(rows, n, {from.data + i * from.stride, from.stride}, 1, factor);
    scale_rows(rows, n, {from.data + i * from.stride, from.stride}, factor, {to.data + i * to.stride, to.stride});
  }
}
void triple_dots(index_t m, index_t n, Rows x, Rows y, const float* weights, float* to) {
  HWY_DYNAMIC_DISPATCH(TripleDots)(m, n, x, y, weights, to);
}
void removal_rows(index_t m, index_t n, Rows k, Rows a, const float* key_scale, const float* rate_scale, const RemovalRows& to) {
  HWY_DYNAMIC_DISPATCH(MakeRemovalRows)(m, n, k, a, key_scale, rate_scale, to);
}
void decays_of_softplus(index_t m, index_t n, Rows x, float sign, float rate, Into to) {
  HWY_DYNAMIC_DISPATCH(DecaysOfSoftplus)(m, n, x, sign, rate, to);
}
void exp_of_gates(index_t m, index_t n, Rows x, float factor, Into to) { HWY_DYNAMIC_DISPATCH(ExpOfGates)(m, n, x, factor, to); }
void rest_of_gates(index_t m, index_t n, Rows x, float factor, Into to) { HWY_DYNAMIC_DISPATCH(RestOfGates)(m, n, x, factor, to); }
void softplus(index_t m, index_t n, Rows x, float sign, Into to) { HWY_DYNAMIC_DISPATCH(Softplus)(m, n, x, sign, to); }

void project(index_t m, index_t n, Rows x, const LowRank& by, float* hidden, Into to) {
  gemm(m, by.rank, n, {x.data, x.stride}, {by.w, by.rank}, {hidden, by.rank});
  copy(m, n, {by.bias, 0}, to);
  gemm(m, n, by.rank, {hidden, by.rank}, {by.u, n}, to, {.add = true});
}

}  // namespace attn::kernels
#endif
