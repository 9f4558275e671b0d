#include "attn/prove/difference.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "attn/core/text.hpp"
#include "attn/prove/sampled_rows.hpp"
#include "attn/variant/planned.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

namespace {

constexpr index_t longest = 1024;
// Of all definitions that the weights of a query are found with: some seconds.
constexpr index_t most_pairs = 100'000'000;
constexpr std::size_t parts_told = 4;

// The element that is furthest off; one that is not finite on one side only is further off than all others.
struct Worst {
  index_t batch = 0, head = 0, query = 0, channel = 0;
  double given = 0, expected = 0, error = -1;
};

double error_of(double given, double expected) {
  if (std::isnan(given) && std::isnan(expected)) return 0;
  const double error = given == expected ? 0 : std::abs(given - expected);
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

Worst worst_of(const Tensor<double>& expected, const View<const float, 4>& output) {
  Worst worst;
  for (index_t b = 0; b < output.extent(0); ++b)
    for (index_t h = 0; h < output.extent(1); ++h)
      for (index_t i = 0; i < output.extent(2); ++i)
        for (index_t d = 0; d < output.extent(3); ++d) {
          const double given = output(b, h, i, d), error = error_of(given, expected(b, h, i, d));
          if (error > worst.error) worst = {b, h, i, d, given, expected(b, h, i, d), error};
        }
  return worst;
}

std::vector<index_t> queries_off(const Tensor<double>& expected, const View<const float, 4>& output, const Worst& at,
                                 double allowed) {
  std::vector<index_t> off;
  for (index_t i = 0; i < output.extent(2); ++i) {
    double largest = 0;
    for (index_t d = 0; d < output.extent(3); ++d)
      largest = std::max(largest, error_of(output(at.batch, at.head, i, d), expected(at.batch, at.head, i, d)));
    if (largest > allowed) off.push_back(i);
  }
  return off;
}

// The weights of one query: channel c of the output, where V is one for key first + c alone in channel c, is the weight of that key.
class Probe {
 public:
  Probe(const Variant& variant, const Problem& p, const Arrays& in, const ParameterSet<float>& parameters, const Worst& at)
      : variant_(variant),
        p_(p),
        at_(at),
        in_(in),
        parameters_(widen(parameters)),
        v_(static_cast<std::size_t>(p.batch * p.kv_heads * p.kv_len * p.value_dim)),
        out_memory_(output_buffer(p)) {
    in_.v = View<const float, 4>(v_.data(), {p.batch, p.kv_heads, p.kv_len, p.value_dim});
    in_.out = output_view(p, out_memory_);
  }

  // Of the run and of the definition; none where they do not explain the outputs.
  struct Weights {
    std::vector<double> run, definition;
  };
  std::optional<Weights> weights(const std::function<void(const Arrays&)>& run, const View<const float, 4>& v,
                                 std::span<const double> definition_row) {
    Weights found;
    for (index_t first = 0; first < p_.kv_len; first += p_.value_dim) {
      const index_t count = std::min(p_.value_dim, p_.kv_len - first);
      set(first, count, 1);
      run(in_);
      const View<const float, 4> out = in_.out.f32();
      const std::vector<double> defined = definition();
      for (index_t c = 0; c < count; ++c) {
        found.run.push_back(out(at_.batch, at_.head, at_.query, c));
        found.definition.push_back(defined[static_cast<std::size_t>(c)]);
      }
      set(first, count, 0);
    }
    if (!explains(found.definition, v, definition_row)) return {};
    return found;
  }

 private:
  void set(index_t first, index_t count, float value) {
    for (index_t head = 0; head < p_.batch * p_.kv_heads; ++head)
      for (index_t c = 0; c < count; ++c) v_[static_cast<std::size_t>((head * p_.kv_len + first + c) * p_.value_dim + c)] = value;
  }

  std::vector<double> definition() const {
    const bool alone = variant_.info().row_wise;
    const std::vector<index_t> rows = alone ? std::vector{at_.query} : all_rows(p_.q_len);
    const Tensor<double> out = variant_.definition(p_, take_values<double>(p_, in_, rows), parameters_);
    std::vector<double> row;
    for (index_t d = 0; d < p_.value_dim; ++d) row.push_back(out(at_.batch, at_.head, alone ? 0 : at_.query, d));
    return row;
  }

  // Rounding leaves 1e-12; biases and channels that are mixed leave more than this.
  bool explains(const std::vector<double>& weights, const View<const float, 4>& v, std::span<const double> row) const {
    const index_t kv_head = at_.head / (p_.heads / p_.kv_heads);
    double missed = 0, largest = 0;
    for (index_t d = 0; d < p_.value_dim; ++d) {
      double sum = 0;
      for (index_t j = 0; j < p_.kv_len; ++j) sum += weights[static_cast<std::size_t>(j)] * double{v(at_.batch, kv_head, j, d)};
      missed = std::max(missed, std::abs(sum - row[static_cast<std::size_t>(d)]));
      largest = std::max(largest, std::abs(row[static_cast<std::size_t>(d)]));
    }
    return missed <= 1e-6 * largest;
  }

  const Variant& variant_;
  const Problem& p_;
  const Worst& at_;
  Arrays in_;
  const ParameterSet<double> parameters_;
  std::vector<float> v_;
  Buffer out_memory_;
};

// The run may have been given another layout; here each number counts once.
bool comparable(const Problem& p, const Arrays& in) {
  return p.pass == Pass::forward && !p.ragged && p.page_rows == 0 && in.v.dtype() == DType::f32 && in.q.dtype() == DType::f32 &&
         p.q_len <= longest && p.kv_len <= longest;
}

}  // namespace

std::string ranges_text(std::span<const index_t> numbers) {
  std::vector<std::string> parts;
  std::size_t left_out = 0;
  for (std::size_t first = 0; first < numbers.size();) {
    std::size_t last = first;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    if (parts.size() < parts_told) {
      parts.push_back(first == last ? fmt::format("{}", numbers[first]) : fmt::format("{}..{}", numbers[first], numbers[last]));
    } else {
      left_out += last + 1 - first;
    }
    first = last + 1;
  }
  return join(parts, ", ") + (left_out > 0 ? fmt::format(" and {} more", left_out) : "");
}

std::string weights_text(index_t query, std::span<const double> run, std::span<const double> definition) {
  double scale = 0;
  for (const auto side : {run, definition})
    for (const double w : side) scale = std::max(scale, std::isfinite(w) ? std::abs(w) : 0);
  // Of floats: below the first nothing is there, above the second something is.
  const double nothing = 1e-7 * scale, something = 1e-5 * scale;
  std::vector<index_t> more, fewer;
  double more_sum = 0, fewer_sum = 0, run_sum = 0, definition_sum = 0, furthest = 0;
  std::size_t key = 0;
  for (std::size_t j = 0; j < run.size(); ++j) {
    const double r = std::abs(run[j]), d = std::abs(definition[j]);
    if (d <= nothing && !(r <= something)) more.push_back(static_cast<index_t>(j)), more_sum += run[j];
    if (r <= nothing && d > something) fewer.push_back(static_cast<index_t>(j)), fewer_sum += definition[j];
    run_sum += run[j], definition_sum += definition[j];
    if (const double off = error_of(run[j], definition[j]); off > furthest) furthest = off, key = j;
  }
  const auto keys = [](const std::vector<index_t>& list, double sum) {
    return fmt::format("key{} {} ({:.3g}{})", list.size() == 1 ? "" : "s", ranges_text(list), sum,
                       list.size() == 1 ? "" : " in all");
  };
  std::vector<std::string> parts;
  if (!more.empty()) parts.push_back(fmt::format("weighs {}, which the definition does not", keys(more, more_sum)));
  if (!fewer.empty()) parts.push_back(fmt::format("does not weigh {}, which the definition does", keys(fewer, fewer_sum)));
  if (parts.empty() && furthest > 1e-4 * scale)
    parts.push_back(
        fmt::format("weighs the same keys as the definition, key {} by {:.3g} instead of {:.3g}, all of them by {:.3g} instead "
                    "of {:.3g}",
                    key, run[key], definition[key], run_sum, definition_sum));
  return parts.empty() ? "" : fmt::format("query {} {}", query, join(parts, " and "));
}

std::string where_it_differs(const Variant& variant, const Problem& p, const Arrays& in, const ParameterSet<float>& parameters,
                             double allowed, const std::function<void(const Arrays&)>& run) {
  if (!comparable(p, in)) return "";
  const View<const float, 4> output = in.out.f32();
  const Tensor<double> expected = variant.definition(p, take_values<double>(p, in, all_rows(p.q_len)), widen(parameters));
  const Worst at = worst_of(expected, output);
  const std::vector<index_t> off = queries_off(expected, output, at, allowed);
  std::string text =
      fmt::format("worst at batch {}, head {}, query {}, channel {}: {:.4g} instead of {:.4g}; quer{} {} of that head {} off",
                  at.batch, at.head, at.query, at.channel, at.given, at.expected, off.size() == 1 ? "y" : "ies", ranges_text(off),
                  off.size() == 1 ? "is" : "are");
  std::vector<double> row;
  for (index_t d = 0; d < p.value_dim; ++d) row.push_back(expected(at.batch, at.head, at.query, d));
  const index_t pairs = variant.info().row_wise ? 0 : p.batch * p.heads * p.q_len * p.kv_len;
  if (variant.info().reads != Reads::qkv || pairs * (p.kv_len / p.value_dim) > most_pairs) return text;
  const auto found = Probe(variant, p, in, parameters, at).weights(run, in.v.f32(), row);
  const std::string weights = found ? weights_text(at.query, found->run, found->definition) : "";
  return text + (weights.empty() ? "" : "; " + weights);
}

}  // namespace attn
