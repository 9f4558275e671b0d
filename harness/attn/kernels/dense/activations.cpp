#include "attn/kernels/dense/activations.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/dense/activations.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cmath>

#include "attn/kernels/dense/activations-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {

// f(vector at column j of row i, i, j, lanes that count) -> vector.
template <class Fn>
HWY_INLINE void EachVector(index_t m, index_t n, Rows from, Into to, Fn f) {
  for (index_t i = 0; i < m; ++i) {
    const float* x = from.data + i * from.stride;
    float* y = to.data + i * to.stride;
    for (index_t j = 0; j < n; j += kLanes) store_first(f(load_first(x + j, n - j), i, j, n - j), y + j, n - j);
  }
}

void Gelu(index_t m, index_t n, Rows from, const float* plus, Into to) {
  const F d;
  EachVector(m, n, from, to, [=](V x, index_t i, index_t, index_t) HWY_ATTR {
    const V y = hn::Add(x, hn::Set(d, plus[i])), half = hn::Mul(y, hn::Set(d, 0.5f));
    return hn::MulAdd(half, erf_lanes(hn::Mul(y, hn::Set(d, 0.707106781f))), half);
  });
}

void Sigmoid(index_t m, index_t n, Rows from, float factor, float plus, Into to) {
  const F d;
  const V f = hn::Set(d, factor), p = hn::Set(d, plus);
  EachVector(m, n, from, to, [=](V x, index_t, index_t, index_t) HWY_ATTR { return sigmoid_lanes(hn::MulAdd(x, f, p)); });
}

void LayerNorm(index_t m, index_t n, Rows from, float eps, Into to) {
  const F d;
  const float share = 1.0f / static_cast<float>(n);
  for (index_t i = 0; i < m; ++i) {
    const float* x = from.data + i * from.stride;
    V sum = hn::Zero(d), squares = hn::Zero(d);
    for (index_t j = 0; j < n; j += kLanes) sum = hn::Add(sum, load_first(x + j, n - j));
    const V mean = hn::Set(d, hn::GetLane(hn::SumOfLanes(d, sum)) * share);
    for (index_t j = 0; j < n; j += kLanes) {
      V c = hn::Sub(load_first(x + j, n - j), mean);
      if (n - j < kLanes) c = hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(n - j)), c);
      squares = hn::MulAdd(c, c, squares);
    }
    const V factor = hn::Set(d, 1.0f / std::sqrt(hn::GetLane(hn::SumOfLanes(d, squares)) * share + eps));
    for (index_t j = 0; j < n; j += kLanes)
      store_first(hn::Mul(hn::Sub(load_first(x + j, n - j), mean), factor), to.data + i * to.stride + j, n - j);
  }
}

void AddToRows(index_t m, index_t n, Rows from, const float* plus, Into to) {
  EachVector(m, n, from, to, [=](V x, index_t i, index_t, index_t) HWY_ATTR { return hn::Add(x, hn::Set(F(), plus[i])); });
}

void Gate(index_t m, index_t n, Rows from, const float* plus, Rows by, Into to) {
  EachVector(m, n, from, to, [=](V x, index_t i, index_t j, index_t count) HWY_ATTR {
    return hn::Mul(hn::Add(x, hn::Set(F(), plus[i])), load_first(by.data + i * by.stride + j, count));
  });
}

void SigmoidGate(index_t m, index_t n, Rows from, Rows by, Into to) {
  EachVector(m, n, from, to, [=](V x, index_t i, index_t j, index_t count) HWY_ATTR {
    return hn::Mul(x, sigmoid_lanes(load_first(by.data + i * by.stride + j, count)));
  });
}

void Divide(index_t m, index_t n, Rows from, Rows by, float least, Into to) {
  EachVector(m, n, from, to, [=](V x, index_t i, index_t j, index_t count) HWY_ATTR {
    return hn::Div(x, hn::Max(load_first(by.data + i * by.stride + j, count), hn::Set(F(), least)));
  });
}

void Exp(index_t m, index_t n, Rows from, const float* plus, Into to) {
  EachVector(m, n, from, to,
             [=](V x, index_t i, index_t, index_t) HWY_ATTR { return exp_lanes(hn::Add(x, hn::Set(F(), plus[i]))); });
}

void ExpAlone(index_t m, index_t n, Rows from, Into to) {
  EachVector(m, n, from, to, [](V x, index_t, index_t, index_t) HWY_ATTR { return exp_lanes(x); });
}

void Tanh(index_t m, index_t n, Rows from, Into to) {
  EachVector(m, n, from, to, [](V x, index_t, index_t, index_t) HWY_ATTR { return tanh_lanes(x); });
}

void Multiply(index_t m, index_t n, Rows from, Rows by, Into to) {
  EachVector(m, n, from, to, [=](V x, index_t i, index_t j, index_t count) HWY_ATTR {
    return hn::Mul(x, load_first(by.data + i * by.stride + j, count));
  });
}

// The bits of positive floats are in their order, and those of negative ones and of NaN above them all.
bool GatedQuotient(index_t m, index_t n, Rows x, Rows by, Rows gate, float least, float most, Into to) {
  const hn::RebindToUnsigned<F> du;
  const auto low = hn::BitCast(du, hn::Set(F(), least)), high = hn::BitCast(du, hn::Set(F(), most));
  auto furthest = hn::Zero(du);
  EachVector(m, n, x, to, [&](V value, index_t i, index_t j, index_t count) HWY_ATTR {
    const V divisor = load_first(by.data + i * by.stride + j, count);
    const auto above = hn::Sub(hn::BitCast(du, divisor), low);
    // Lanes past the last column are zeros.
    furthest = hn::Max(furthest, count >= kLanes ? above : hn::IfThenElseZero(hn::FirstN(du, static_cast<size_t>(count)), above));
    return hn::Mul(hn::Div(value, divisor), sigmoid_lanes(load_first(gate.data + i * gate.stride + j, count)));
  });
  return hn::AllFalse(du, hn::Gt(furthest, hn::Sub(high, low)));
}

void GruGates(index_t n, const float* x, const float* own, float* h) {
  for (index_t j = 0; j < n; j += kLanes) {
    const auto block = [=](const float* from, index_t b) HWY_ATTR { return load_first(from + b * n + j, n - j); };
    const V r = sigmoid_lanes(hn::Add(block(x, 0), block(own, 0))), z = sigmoid_lanes(hn::Add(block(x, 1), block(own, 1)));
    const V candidate = tanh_lanes(hn::MulAdd(r, block(own, 2), block(x, 2)));
    const V before = load_first(h + j, n - j);
    store_first(hn::MulAdd(z, hn::Sub(before, candidate), candidate), h + j, n - j);
  }
}

void LstmGates(index_t n, const float* x, const float* own, float* h, float* memory) {
  for (index_t j = 0; j < n; j += kLanes) {
    const auto sum = [=](index_t b)
                         HWY_ATTR { return hn::Add(load_first(x + b * n + j, n - j), load_first(own + b * n + j, n - j)); };
    const V i = sigmoid_lanes(sum(0)), f = sigmoid_lanes(sum(1)), g = tanh_lanes(sum(2)), o = sigmoid_lanes(sum(3));
    const V kept = hn::MulAdd(f, load_first(memory + j, n - j), hn::Mul(i, g));
    store_first(kept, memory + j, n - j);
    store_first(hn::Mul(o, tanh_lanes(kept)), h + j, n - j);
  }
}

void MeanByExp(index_t m, index_t n, const BiasedKeys& b, Rows v, float* to) {
  const F d;
  const auto logit = [&](index_t i, index_t j) HWY_ATTR {
    const float* key = b.k.data + i * b.k.stride;
    const bool biased = i >= b.first && i < b.first + b.biases;
    return hn::Add(b.shared ? hn::Set(d, key[0]) : load_first(key + j, n - j), hn::Set(d, biased ? b.bias[i - b.first] : 0.0f));
  };
  for (index_t j = 0; j < n; j += kLanes) {
    V top = logit(0, j), weights = hn::Zero(d), sum = hn::Zero(d);
    for (index_t i = 1; i < m; ++i) top = hn::Max(logit(i, j), top);
    for (index_t i = 0; i < m; ++i) {
      const V weight = exp_lanes(hn::Sub(logit(i, j), top));
      weights = hn::Add(weights, weight);
      sum = hn::MulAdd(weight, load_first(v.data + i * v.stride + j, n - j), sum);
    }
    store_first(hn::Div(sum, weights), to + j, n - j);
  }
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

#define ATTN_ROWS(name, Kernel, parameters, ...) \
  HWY_EXPORT(Kernel);                            \
  void name parameters { HWY_DYNAMIC_DISPATCH(Kernel)(__VA_ARGS__); }

ATTN_ROWS(gelu, Gelu, (index_t m, index_t n, Rows from, const float* plus, Into to), m, n, from, plus, to)
ATTN_ROWS(sigmoid, Sigmoid, (index_t m, index_t n, Rows from, float factor, float plus, Into to), m, n, from, factor, plus, to)
ATTN_ROWS(layer_norm, LayerNorm, (index_t m, index_t n, Rows from, float eps, Into to), m, n, from, eps, to)
ATTN_ROWS(add_to_rows, AddToRows, (index_t m, index_t n, Rows from, const float* plus, Into to), m, n, from, plus, to)
ATTN_ROWS(gate, Gate, (index_t m, index_t n, Rows from, const float* plus, Rows by, Into to), m, n, from, plus, by, to)
ATTN_ROWS(gru_gates, GruGates, (index_t n, const float* x, const float* own, float* h), n, x, own, h)
ATTN_ROWS(lstm_gates, LstmGates, (index_t n, const float* x, const float* own, float* h, float* memory), n, x, own, h, memory)
ATTN_ROWS(sigmoid_gate, SigmoidGate, (index_t m, index_t n, Rows from, Rows by, Into to), m, n, from, by, to)
ATTN_ROWS(divide, Divide, (index_t m, index_t n, Rows from, Rows by, float least, Into to), m, n, from, by, least, to)
ATTN_ROWS(exp, Exp, (index_t m, index_t n, Rows from, const float* plus, Into to), m, n, from, plus, to)
ATTN_ROWS(exp, ExpAlone, (index_t m, index_t n, Rows from, Into to), m, n, from, to)
ATTN_ROWS(tanh, Tanh, (index_t m, index_t n, Rows from, Into to), m, n, from, to)
ATTN_ROWS(multiply, Multiply, (index_t m, index_t n, Rows from, Rows by, Into to), m, n, from, by, to)
ATTN_ROWS(mean_by_exp, MeanByExp, (index_t m, index_t n, const BiasedKeys& keys, Rows v, float* to), m, n, keys, v, to)

HWY_EXPORT(GatedQuotient);
bool gated_quotient(index_t m, index_t n, Rows x, Rows by, Rows gate, float least, float most, Into to) {
  return HWY_DYNAMIC_DISPATCH(GatedQuotient)(m, n, x, by, gate, least, most, to);
}

}  // namespace attn::kernels
#endif
