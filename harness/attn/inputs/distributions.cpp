// Eight laws that Q, K and V are drawn from, each for one property of trained heads. Logits are q.k/sqrt(D) everywhere;
// defaults and what the variants make of them: results/reference/notes, fidelity.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <span>
#include <vector>

#include "attn/core/rng.hpp"
#include "attn/core/text.hpp"
#include "attn/exec/arena.hpp"
#include "attn/inputs/kinds.hpp"

namespace attn {

namespace {

// One kv head of one batch item with the query heads that read it: the unit of work. Every tensor of it has its own
// stream of random numbers.
struct Group {
  const Problem& p;
  std::span<const double> argument;
  std::string_view law;
  std::uint64_t seed;
  const Tensors& tensors;
  index_t batch, kv_head;

  View<float, 2> q(index_t head) const { return tensors.q[batch][head]; }
  View<float, 2> k() const { return tensors.k[batch][kv_head]; }
  View<float, 2> v() const { return tensors.v[batch][kv_head]; }
  index_t first_head() const { return kv_head * (p.heads / p.kv_heads); }
  index_t end_head() const { return first_head() + p.heads / p.kv_heads; }
  double root_d() const { return std::sqrt(static_cast<double>(p.head_dim)); }

  Rng stream(std::string_view tensor, index_t head) const {
    const std::string name = std::string(law) + " " + std::string(tensor);
    return Rng(seed, name).substream(static_cast<std::uint64_t>(batch * p.heads + head));
  }
  Rng stream(std::string_view tensor) const { return stream(tensor, kv_head); }
};

void normal(View<float, 2> m, const Rng& rng, double std = 1) {
  const std::span values(m.data_handle(), static_cast<std::size_t>(m.size()));
  rng.normals(values);
  if (std == 1) return;
  for (float& x : values) x *= static_cast<float>(std);
}

std::vector<double> normal_vector(index_t size, const Rng& rng) {
  std::vector<double> values(static_cast<std::size_t>(size));
  for (index_t i = 0; i < size; ++i) values[static_cast<std::size_t>(i)] = rng.normal(i);
  return values;
}

// row += factor * direction
void add(float* row, double factor, const double* direction, index_t size) {
  for (index_t d = 0; d < size; ++d) row[d] += static_cast<float>(factor * direction[d]);
}

// Rows 0..count-1 of `directions` become unit vectors, orthogonal to the ones before when asked (Gram-Schmidt).
void normalise(std::vector<double>& directions, index_t count, bool orthogonal) {
  const std::size_t size = directions.size() / static_cast<std::size_t>(count);
  const auto dot = [size](const double* a, const double* b) {
    double sum = 0;
    for (std::size_t d = 0; d < size; ++d) sum += a[d] * b[d];
    return sum;
  };
  for (std::size_t r = 0; r < static_cast<std::size_t>(count); ++r) {
    double* row = &directions[r * size];
    for (std::size_t s = 0; orthogonal && s < r; ++s) {
      const double* other = &directions[s * size];
      const double projection = dot(row, other);
      for (std::size_t d = 0; d < size; ++d) row[d] -= projection * other[d];
    }
    const double norm = std::sqrt(dot(row, row));
    for (std::size_t d = 0; d < size; ++d) row[d] /= norm;
  }
}

// q, k ~ N(0, tau I): logits of standard deviation tau. v ~ N(0, I).
void iid_with(const Group& g, double tau) {
  normal(g.k(), g.stream("k"), std::sqrt(tau));
  normal(g.v(), g.stream("v"));
  for (index_t h = g.first_head(); h < g.end_head(); ++h) normal(g.q(h), g.stream("q", h), std::sqrt(tau));
}

void iid(const Group& g) { iid_with(g, g.argument[0]); }

// q = c U z, k = c U z' with z, z' ~ N(0, I_r), U orthonormal, c^2 = tau sqrt(D/r): rank r, logits of deviation tau.
void lowrank(const Group& g) {
  const index_t rank = static_cast<index_t>(g.argument[0]);
  const double c = std::sqrt(g.argument[1] * g.root_d() / std::sqrt(g.argument[0]));
  std::vector<double> basis = normal_vector(rank * g.p.head_dim, g.stream("U"));
  normalise(basis, rank, true);
  const auto fill = [&](View<float, 2> m, const Rng& rng) {
    std::vector<float> z(static_cast<std::size_t>(m.extent(0) * rank));
    rng.normals(z);
    for (index_t i = 0; i < m.extent(0); ++i) {
      std::fill_n(m.row(i), g.p.head_dim, 0.0f);
      for (index_t r = 0; r < rank; ++r) {
        add(m.row(i), c * static_cast<double>(z[static_cast<std::size_t>(i * rank + r)]),
            &basis[static_cast<std::size_t>(r * g.p.head_dim)], g.p.head_dim);
      }
    }
  };
  fill(g.k(), g.stream("k"));
  normal(g.v(), g.stream("v"));
  for (index_t h = g.first_head(); h < g.end_head(); ++h) fill(g.q(h), g.stream("q", h));
}

// C unit centroids mu; k = a mu_c + 0.7 e and q = a mu_c' + 0.7 e with a^2 = gain sqrt(D): logit about `gain` in the same
// cluster. v = sqrt(rho) nu_c + sqrt(1-rho) e.
void cluster(const Group& g) {
  const index_t clusters = static_cast<index_t>(g.argument[0]);
  const double a = std::sqrt(g.argument[1] * g.root_d());
  const double rho = g.argument[2];
  std::vector<double> mu = normal_vector(clusters * g.p.head_dim, g.stream("mu"));
  normalise(mu, clusters, false);
  const std::vector<double> nu = normal_vector(clusters * g.p.value_dim, g.stream("nu"));
  const auto attract = [&](View<float, 2> m, const Rng& member, double factor, const std::vector<double>& centres) {
    for (index_t i = 0; i < m.extent(0); ++i) {
      add(m.row(i), factor, &centres[static_cast<std::size_t>(member.below(i, clusters) * m.extent(1))], m.extent(1));
    }
  };
  normal(g.k(), g.stream("k"), 0.7);
  attract(g.k(), g.stream("cluster of k"), a, mu);
  normal(g.v(), g.stream("v"), std::sqrt(1 - rho));
  attract(g.v(), g.stream("cluster of k"), std::sqrt(rho), nu);
  for (index_t h = g.first_head(); h < g.end_head(); ++h) {
    normal(g.q(h), g.stream("q", h), 0.7);
    attract(g.q(h), g.stream("cluster of q", h), a, mu);
  }
}

// Half the dimensions are a(cos w i, sin w i) with w ~ Cauchy / lambda, so that the expected logit at distance x is
// gain exp(-|x|/lambda) (the Fourier transform of the Cauchy law); the others N(0, 1.44). v is AR(1), rho = 0.9.
void local(const Group& g) {
  const index_t waves = g.p.head_dim / 4;
  const double a = std::sqrt(g.argument[1] * g.root_d() / static_cast<double>(waves));
  std::vector<double> frequency(static_cast<std::size_t>(waves));
  const Rng rng = g.stream("frequency");
  for (index_t f = 0; f < waves; ++f) {
    frequency[static_cast<std::size_t>(f)] = std::tan(std::numbers::pi * (rng.uniform(f) - 0.5)) / g.argument[0];
  }
  const auto fill = [&](View<float, 2> m, const Rng& noise, index_t first_position) {
    normal(m, noise, 1.2);
    for (index_t i = 0; i < m.extent(0); ++i) {
      for (index_t f = 0; f < waves; ++f) {
        const double angle = frequency[static_cast<std::size_t>(f)] * static_cast<double>(first_position + i);
        m(i, 2 * f) = static_cast<float>(a * std::cos(angle));
        m(i, 2 * f + 1) = static_cast<float>(a * std::sin(angle));
      }
    }
  };
  fill(g.k(), g.stream("k"), 0);
  for (index_t h = g.first_head(); h < g.end_head(); ++h) fill(g.q(h), g.stream("q", h), g.p.query_position(0));

  constexpr double rho = 0.9;
  const auto v = g.v();
  normal(v, g.stream("v"));
  for (index_t i = 1; i < v.extent(0); ++i) {
    for (index_t d = 0; d < v.extent(1); ++d) {
      v(i, d) =
          static_cast<float>(rho * static_cast<double>(v(i - 1, d)) + std::sqrt(1 - rho * rho) * static_cast<double>(v(i, d)));
    }
  }
}

// iid:tau whose key 0 takes about mass m of every row: coordinate 0 is a in q, 0 in the keys but the first, which is
// (a, 0, ..., 0), with a^2 = sqrt(D) (ln(m/(1-m)) + ln N + tau^2/2): the sink's logit is the same in every row. Row 0 of v is
// small, as a sink's is.
void sink(const Group& g) {
  const double mass = g.argument[0];
  const double tau = g.argument[1];
  iid_with(g, tau);
  const double logit = std::log(mass / (1 - mass)) + std::log(static_cast<double>(g.p.kv_len)) + tau * tau / 2;
  const double a = std::sqrt(g.root_d() * std::abs(logit));
  for (index_t j = 0; j < g.p.kv_len; ++j) g.k()(j, 0) = 0;
  std::fill_n(g.k().row(0), g.p.head_dim, 0.0f);
  g.k()(0, 0) = static_cast<float>(std::copysign(a, logit));
  for (index_t d = 0; d < g.p.value_dim; ++d) g.v()(0, d) *= 0.05f;
  for (index_t h = g.first_head(); h < g.end_head(); ++h) {
    for (index_t i = 0; i < g.p.q_len; ++i) g.q(h)(i, 0) = static_cast<float>(a);
  }
}

// iid:tau plus a gain of min(12, Exp(rate alpha)) on every logit of a key, carried by coordinate 0: column weights are
// Pareto(alpha), a few keys are heavy for all rows.
void heavy(const Group& g) {
  iid_with(g, g.argument[1]);
  const double share = std::sqrt(g.root_d());  // of the factor sqrt(D), each of q and k carries half the exponent
  const Rng rng = g.stream("gain");
  for (index_t j = 0; j < g.p.kv_len; ++j) {
    const double gain = std::min(12.0, -std::log1p(-rng.uniform(j)) / g.argument[0]);
    g.k()(j, 0) = static_cast<float>(gain * share);
  }
  for (index_t h = g.first_head(); h < g.end_head(); ++h) {
    for (index_t i = 0; i < g.p.q_len; ++i) g.q(h)(i, 0) = static_cast<float>(share);
  }
}

// k, v ~ N(0, I); q = (gain/sqrt(D)) k_t + 0.3 e: one target key a row, uniform among those the row sees, with logit
// about `gain`.
void needle(const Group& g) {
  normal(g.k(), g.stream("k"));
  normal(g.v(), g.stream("v"));
  const float scale = static_cast<float>(g.argument[0] / g.root_d());
  for (index_t h = g.first_head(); h < g.end_head(); ++h) {
    const auto q = g.q(h);
    const Rng target = g.stream("target", h);
    normal(q, g.stream("q", h), 0.3);
    for (index_t i = 0; i < g.p.q_len; ++i) {
      const index_t visible = g.p.causal ? std::clamp<index_t>(g.p.query_position(i) + 1, 1, g.p.kv_len) : g.p.kv_len;
      const float* key = g.k().row(target.below(i, visible));
      for (index_t d = 0; d < g.p.head_dim; ++d) q.row(i)[d] += scale * key[d];
    }
  }
}

// iid:1 whose keys lie `factor` off zero in some channels, the same for every key of a head and of either sign: softmax does not see it, for
// a query's logits all move by one number, but who stores a row of keys with one scale rounds its other channels by that of these.
void outlier(const Group& g) {
  iid_with(g, 1);
  const Rng rng = g.stream("channel");
  std::vector<index_t> channels(static_cast<std::size_t>(g.p.head_dim));
  std::iota(channels.begin(), channels.end(), 0);
  for (index_t c = 0; c < static_cast<index_t>(g.argument[0]); ++c) {  // the first of a random order
    std::swap(channels[static_cast<std::size_t>(c)], channels[static_cast<std::size_t>(c + rng.below(c, g.p.head_dim - c))]);
    const auto offset = static_cast<float>(rng.uniform(g.p.head_dim + c) < 0.5 ? -g.argument[1] : g.argument[1]);
    for (index_t j = 0; j < g.p.kv_len; ++j) g.k()(j, channels[static_cast<std::size_t>(c)]) += offset;
  }
}

struct Argument {
  std::string_view name;
  double fallback, low, high;
  bool whole = false;
};

struct Law {
  std::string_view name, doc;
  std::vector<Argument> arguments;
  void (*draw)(const Group&);
  index_t least_head_dim = 1;
};

// Logits beyond some hundreds make softmax a lookup in float as well as in double; the ranges stop there.
const std::vector<Law>& laws() {
  static const std::vector<Law> all{
      {"iid",
       "q, k ~ N(0, tau I), v ~ N(0, I): a sanity check, the easiest input for whatever averages",
       {{"tau", 1, 1e-6, 100}},
       iid},
      {"lowrank", "q and k in a subspace of r dimensions", {{"r", 8, 1, 65536, true}, {"tau", 3, 1e-6, 100}}, lowrank},
      {"cluster",
       "C clusters of keys and queries with logit g inside, values of correlation rho",
       {{"C", 16, 1, 1 << 20, true}, {"g", 6, 0, 100}, {"rho", 0.7, 0, 1}},
       cluster},
      {"local",
       "logits fall off as g exp(-distance/lambda), values vary slowly",
       {{"lambda", 24, 1e-3, 1e9}, {"g", 8, 0, 100}},
       local,
       4},
      {"sink", "key 0 draws mass m of every row", {{"m", 0.6, 1e-6, 1 - 1e-6}, {"tau", 2, 1e-6, 100}}, sink},
      {"heavy", "a few keys, Pareto(alpha) in weight, draw every row", {{"alpha", 0.6, 1e-3, 1e3}, {"tau", 1.5, 1e-6, 100}}, heavy},
      {"needle", "one key among all, with logit g, for each row", {{"g", 12, 0, 100}}, needle},
      {"outlier",
       "iid:1 but for some channels of the keys that lie f off zero: what one scale a row does not hold",
       {{"channels", 2, 1, 65536, true}, {"f", 20, 0, 1e4}},
       outlier},
  };
  return all;
}

class Distribution final : public Input {
 public:
  Distribution(const Law& law, std::vector<double> arguments, std::string name)
      : Input(std::move(name)), law_(law), arguments_(std::move(arguments)) {}

  Result<Problem> adapt(const Problem& wish) const override {
    const index_t least = law_.draw == lowrank || law_.draw == outlier ? static_cast<index_t>(arguments_[0]) : law_.least_head_dim;
    if (wish.head_dim < least) {
      return refuse("input " + name() + " needs head_dim >= " + std::to_string(least) + ", not " + std::to_string(wish.head_dim));
    }
    return Input::adapt(wish);
  }

 protected:
  Status fill(const Problem& p, std::uint64_t seed, const Tensors& tensors) const override {
    parallel_tasks(p.batch * p.kv_heads, [&](index_t task, int) {
      law_.draw({p, arguments_, law_.name, seed, tensors, task / p.kv_heads, task % p.kv_heads});
    });
    return {};
  }

 private:
  const Law& law_;
  std::vector<double> arguments_;
};

std::string syntax(const Law& law) {
  std::vector<std::string> names;
  for (const auto& a : law.arguments) names.push_back(std::string(a.name) + "=" + format_number(a.fallback));
  return std::string(law.name) + "[:" + join(names, ",") + "]";
}

// Positional, "cluster:16,6,0.7", or by name, "cluster:g=6"; what is not given keeps its default.
Result<std::unique_ptr<Input>> open(const Law& law, std::string_view text) {
  const std::string shown = std::string(law.name) + ":" + std::string(text);
  const auto parts = text.empty() ? std::vector<std::string_view>{} : split(text, ',');
  if (parts.size() > law.arguments.size()) return refuse("input '" + shown + "' has too many arguments; accepted: " + syntax(law));
  std::vector<double> values;
  for (const auto& a : law.arguments) values.push_back(a.fallback);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const auto equals = parts[i].find('=');
    std::size_t at = i;
    if (equals != std::string_view::npos) {
      const auto named = [&](const Argument& a) { return a.name == trim(parts[i].substr(0, equals)); };
      at = static_cast<std::size_t>(std::find_if(law.arguments.begin(), law.arguments.end(), named) - law.arguments.begin());
      if (at == law.arguments.size()) return refuse("input '" + shown + "' has an unknown argument; accepted: " + syntax(law));
    }
    const Argument& a = law.arguments[at];
    const auto value = parse_number(trim(equals == std::string_view::npos ? parts[i] : parts[i].substr(equals + 1)));
    if (!value) return refuse("input '" + shown + "': " + value.reason());
    if (!(*value >= a.low && *value <= a.high) || (a.whole && *value != std::floor(*value))) {
      return refuse("input '" + shown + "': " + std::string(a.name) + "=" + format_number(*value) + " is outside " +
                    format_number(a.low) + ".." + format_number(a.high) + (a.whole ? ", whole numbers" : ""));
    }
    values[at] = *value;
  }
  std::vector<std::string> printed;
  for (const double value : values) printed.push_back(format_number(value));
  return std::unique_ptr<Input>(new Distribution(law, values, std::string(law.name) + ":" + join(printed, ",")));
}

}  // namespace

std::vector<InputKind> distribution_inputs() {
  std::vector<InputKind> kinds;
  for (const Law& law : laws()) {
    kinds.push_back(
        {{std::string(law.name), syntax(law), std::string(law.doc)}, [&law](std::string_view text) { return open(law, text); }});
  }
  return kinds;
}

}  // namespace attn
