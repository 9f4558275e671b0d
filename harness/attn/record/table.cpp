#include "attn/record/table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "attn/cell/axes.hpp"

namespace attn {

namespace {

using Line = std::vector<std::string>;

// Where the input lies and what to know of it, from the first row that ran; with a newline.
template <class Iterator>
std::string input_line(Iterator first, Iterator last) {
  const auto ran = std::find_if(first, last, [](const Row* row) { return row->measurement.placed; });
  if (ran == last) return "";
  const Measurement& m = (*ran)->measurement;
  return to_string(m.placement) + (m.note.empty() ? "" : "; " + m.note) + "\n";
}

// All but the variant, the grid's outermost axis last: growing lengths follow each other.
std::vector<AxisValue> block_of(const Row& row) {
  std::vector<AxisValue> values;
  for (auto axis = axes().rbegin(); axis + 1 != axes().rend(); ++axis) values.push_back(axis->get(row.cell));
  return values;
}

std::string relative_time(const Figures& f, double baseline_s) {
  if (f.ratio_median)
    return fmt::format("{:.3g}x [{:.3g}, {:.3g}]", *f.ratio_median, f.ratio_ci_low.value_or(0), f.ratio_ci_high.value_or(0));
  return baseline_s > 0 ? fmt::format("{:.3g}x", f.time_median_s.value_or(0) / baseline_s) : "";
}

std::string label_of(const Row& row) { return VariantName{row.id, row.implementation, {}}.label(); }

Line line_of(const Row& row, double baseline_s) {
  const Measurement& m = row.measurement;
  const Figures& f = row.figures;
  if (!timed(row)) return {row.name, std::string(to_string(m.outcome)), "", "", "", "", m.reason};
  return {row.name,
          human_time(f.time_median_s.value_or(0)) + (f.unstable == 1 ? " ~" : "") + (m.gate.scope == ungated ? " ?" : ""),
          relative_time(f, baseline_s),
          fmt::format("{:.2f} {}", f.roof_fraction.value_or(0), f.roof_binds),
          m.peak_rss_bytes >= 0 ? human_bytes(static_cast<double>(m.peak_rss_bytes)) : "",
          m.gate.done ? fmt::format("{:.1e}", m.gate.relative) : m.gate.scope,
          row.cell.scope == Scope::layer ? fmt::format("{:.2f}", m.mixer_share)
          : m.fidelity.done              ? fmt::format("{:.3f}", m.fidelity.skill)
                                         : "-"};
}

std::string aligned(const std::vector<Line>& lines) {
  std::vector<std::size_t> widths(lines.front().size(), 0);
  for (const Line& line : lines) {
    for (std::size_t c = 0; c + 1 < line.size(); ++c) widths[c] = std::max(widths[c], line[c].size());
  }
  std::string text;
  for (const Line& line : lines) {
    std::string one = "  ";
    for (std::size_t c = 0; c < line.size(); ++c) {
      if (c == 0) {
        one += fmt::format("{:<{}}", line[c], widths[c]);
      } else if (c + 1 < line.size()) {
        one += fmt::format("  {:>{}}", line[c], widths[c]);
      } else {
        one += "  " + line[c];
      }
    }
    text += one.substr(0, one.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

std::string as_markdown(const std::vector<Line>& lines) {
  std::string text;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    text += "|";
    for (const auto& field : lines[i]) text += " " + field + " |";
    text += "\n";
    if (i == 0) {
      text += "|---|";
      for (std::size_t c = 1; c < lines[i].size(); ++c) text += "---:|";
      text += "\n";
    }
  }
  return text;
}

}  // namespace

std::string human_time(double seconds) {
  if (seconds < 1e-3) return fmt::format("{:.3g} us", seconds * 1e6);
  if (seconds < 1) return fmt::format("{:.3g} ms", seconds * 1e3);
  return fmt::format("{:.3g} s", seconds);
}

std::string human_bytes(double bytes) {
  if (bytes < 1 << 20) return fmt::format("{:.3g} KiB", bytes / (1 << 10));
  if (bytes < 1 << 30) return fmt::format("{:.4g} MiB", bytes / (1 << 20));
  return fmt::format("{:.4g} GiB", bytes / (1 << 30));
}

std::string table(const std::vector<Row>& rows, const std::string& baseline, TableStyle style) {
  std::vector<const Row*> order;
  for (const Row& row : rows) order.push_back(&row);
  std::stable_sort(order.begin(), order.end(), [](const Row* a, const Row* b) {
    const auto place = [](const Row& row) {  // a variant's own way of computing it comes first
      return std::tuple(block_of(row), row.family, row.id, row.implementation != native, row.implementation, row.options);
    };
    return place(*a) < place(*b);
  });
  std::string text;
  for (auto first = order.begin(); first != order.end();) {
    const auto last = std::find_if(first, order.end(), [&](const Row* r) { return block_of(*r) != block_of(**first); });
    double baseline_s = 0;
    std::string beside = baseline;
    for (auto row = first; row != last; ++row) {
      if (label_of(**row) == baseline && timed(**row)) baseline_s = (*row)->figures.time_median_s.value_or(0);
      if (!(*row)->measurement.against.empty()) beside = (*row)->measurement.against + ", paired";
    }
    std::vector<Line> lines = {{"variant", "time", "vs " + beside, "of roof", "memory", "error",
                                (*first)->cell.scope == Scope::layer ? "mixer's share" : "skill"}};
    for (auto row = first; row != last; ++row) lines.push_back(line_of(**row, baseline_s));
    const std::string placed = input_line(first, last);
    if (style == TableStyle::markdown) {
      text += "**" + heading((*first)->cell) + "**\n\n" + (placed.empty() ? "" : placed + "\n");
    } else {
      text += heading((*first)->cell) + "\n" + (placed.empty() ? "" : "  " + placed);
    }
    text += (style == TableStyle::markdown ? as_markdown(lines) : aligned(lines)) + "\n";
    first = last;
  }
  return text;
}

}  // namespace attn
