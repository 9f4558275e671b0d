#include "attn/record/row.hpp"

#include <algorithm>
#include <cmath>

#include "attn/record/statistics.hpp"

namespace attn {

namespace {

// Time over that of the variant measured beside it, pair by pair of neighbouring samples; empty if there is none.
std::vector<double> ratios(const Measurement& m) {
  std::vector<double> list;
  for (std::size_t i = 0; i < std::min(m.samples_s.size(), m.against_s.size()); ++i)
    list.push_back(m.samples_s[i] / m.against_s[i]);
  return list;
}

Figures figures_of(const Cell& cell, const Measurement& m, const Peak& peak) {
  const Problem& p = cell.problem;
  Figures f;
  if (peak.fma_gflops > 0) f.peak_fma_gflops = peak.fma_gflops;
  if (peak.bf16_dot_gflops > 0) f.peak_bf16_dot_gflops = peak.bf16_dot_gflops;
  if (m.cost.flops > 0 || m.cost.bytes > 0) {
    const Roof ideal = roof(m.cost, peak,
                            {.in_place = m.in_place ? 2 * static_cast<double>(m.state_bytes) : 0,
                             .cold = cell.cache == CacheState::cold,
                             .compute = m.compute});
    f.ideal_time_s = ideal.seconds;
    f.roof_binds = ideal.binds;
  }
  if (m.outcome != Outcome::ok || m.samples_s.empty()) return f;
  const double time_s = median(m.samples_s);
  const Interval ci = median_interval(m.samples_s);
  f.time_median_s = time_s;
  f.time_mad_s = median_absolute_deviation(m.samples_s);
  f.time_min_s = *std::min_element(m.samples_s.begin(), m.samples_s.end());
  f.time_ci_low_s = ci.low;
  f.time_ci_high_s = ci.high;
  f.unstable = (ci.high - ci.low) / time_s > unstable_above ? 1 : 0;
  if (p.pass == Pass::decode) f.tokens_per_s = static_cast<double>(p.batch * p.q_len) / time_s;
  if (!m.append_s.empty()) f.append_s = median(m.append_s);
  f.gflops_per_s = 1e-9 * m.cost.flops / time_s;
  f.gbytes_per_s = 1e-9 * m.cost.bytes / time_s;
  f.roof_fraction = f.ideal_time_s.value_or(0) / time_s;
  if (const std::vector<double> list = ratios(m); !list.empty()) {
    const Interval between = median_interval(list);
    f.ratio_median = median(list);
    f.ratio_ci_low = between.low;
    f.ratio_ci_high = between.high;
  }
  return f;
}

}  // namespace

bool timed(const Row& row) { return row.measurement.outcome == Outcome::ok && !row.measurement.samples_s.empty(); }

bool meters_agree(const Measurement& m) {
  const auto booked = static_cast<double>(m.workspace_bytes + m.parameter_bytes + m.state_bytes);
  return m.peak_rss_bytes >= 0 && std::abs(static_cast<double>(m.peak_rss_bytes) - booked) <= 0.10 * booked + 4.0 * (1 << 20);
}

Row make_row(const Cell& cell, Measurement measurement, const Peak& peak) {
  Row row;
  row.cell = cell;
  row.take_name(cell.variant);
  Peak reached = peak;  // a clock that has risen since the start must not turn into a fraction above one
  reached.fma_gflops = std::max(peak.fma_gflops, measurement.fma_gflops);
  if (peak.fma_gflops > 0) reached.bf16_dot_gflops *= reached.fma_gflops / peak.fma_gflops;  // the same clock drives both
  row.figures = figures_of(cell, measurement, reached);
  row.measurement = std::move(measurement);
  return row;
}

}  // namespace attn
