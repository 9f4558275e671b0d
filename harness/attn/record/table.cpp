#include "attn/record/table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "attn/cell/axes.hpp"
#include "attn/record/terminal.hpp"

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
    return three_digits(*f.ratio_median) + "x [" + three_digits(f.ratio_ci_low.value_or(0)) + ", " +
           three_digits(f.ratio_ci_high.value_or(0)) + "]";
  return baseline_s > 0 ? three_digits(f.time_median_s.value_or(0) / baseline_s) + "x" : "";
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

// A cell without a time says why in its last field, in the room of the others.
bool tells_why(const Line& line) { return line.size() > 3 && line[2].empty() && line[3].empty() && !line.back().empty(); }

constexpr std::size_t indent = 2, gap = 2;

// How many columns fit, from the first.
std::size_t fitting(const std::vector<std::size_t>& widths, std::size_t columns) {
  std::size_t count = 0, used = indent;
  while (count < widths.size() && (columns == any_width || count == 0 || used + widths[count] <= columns))
    used += widths[count++] + gap;
  return count;
}

std::string aligned(const std::vector<Line>& lines, std::size_t columns) {
  std::vector<std::size_t> widths(lines.front().size(), 0);
  for (const Line& line : lines) {
    const std::size_t own = tells_why(line) ? 2 : line.size();
    for (std::size_t c = 0; c < own; ++c) widths[c] = std::max(widths[c], line[c].size());
  }
  const std::size_t count = fitting(widths, columns);
  std::string text;
  for (const Line& line : lines) {
    std::string one(indent, ' ');
    const std::size_t own = tells_why(line) ? std::min<std::size_t>(count, 2) : count;
    for (std::size_t c = 0; c < own; ++c) {
      one += c == 0                 ? fmt::format("{:<{}}", line[c], widths[c])
             : c + 1 == line.size() ? std::string(gap, ' ') + line[c]
                                    : std::string(gap, ' ') + fmt::format("{:>{}}", line[c], widths[c]);
    }
    if (tells_why(line)) one += std::string(gap, ' ') + line.back();
    text += cut(one.substr(0, one.find_last_not_of(' ') + 1), columns) + "\n";
  }
  return text;
}

// What stands above a table, in lines that fit.
std::string above(const std::string& text, std::size_t columns, const std::string& before) {
  if (columns == any_width) return before + text;
  std::string lines;
  for (const auto& line : wrapped(text.substr(0, text.find('\n')), columns - before.size())) lines += before + line + "\n";
  return lines;
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
  if (seconds < 1e-3) return three_digits(seconds * 1e6) + " us";
  if (seconds < 1) return three_digits(seconds * 1e3) + " ms";
  return three_digits(seconds) + " s";
}

std::string human_bytes(double bytes) {
  if (bytes < 1 << 20) return three_digits(bytes / (1 << 10)) + " KiB";
  if (bytes < 1 << 30) return fmt::format("{:.4g} MiB", bytes / (1 << 20));
  return fmt::format("{:.4g} GiB", bytes / (1 << 30));
}

std::string table(const std::vector<Row>& rows, const std::string& baseline, TableStyle style, std::size_t columns) {
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
      text += above(heading((*first)->cell) + "\n", columns, "") + (placed.empty() ? "" : above(placed, columns, "  "));
    }
    text += (style == TableStyle::markdown ? as_markdown(lines) : aligned(lines, columns)) + "\n";
    first = last;
  }
  return text;
}

}  // namespace attn
