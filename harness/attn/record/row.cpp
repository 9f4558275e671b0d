#include "attn/record/row.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "attn/core/text.hpp"
#include "attn/record/sink.hpp"
#include "attn/record/statistics.hpp"

namespace attn {

namespace {

std::string number(double value) {
  if (std::abs(value) == std::numeric_limits<double>::max()) return value > 0 ? "inf" : "-inf";
  return fmt::format("{:.6g}", value);
}
std::string whole(index_t value) { return std::to_string(value); }

bool timed(const Row& r) { return r.measurement.outcome == Outcome::ok && !r.measurement.samples_s.empty(); }
bool ran(const Row& r) { return r.measurement.cost.flops > 0 || r.measurement.cost.bytes > 0; }
double time_s(const Row& r) { return median(r.measurement.samples_s); }

template <class F>
std::string if_timed(const Row& r, F f) {
  return timed(r) ? number(f(r)) : "";
}
template <class F>
std::string if_gated(const Row& r, F f) {
  return r.measurement.gate.done ? number(f(r.measurement.gate)) : "";
}
template <class F>
std::string if_compared(const Row& r, F f) {
  return r.measurement.fidelity.done ? number(f(r.measurement.fidelity)) : "";
}

template <class F>
std::string if_averaged(const Row& r, F f) {
  return r.measurement.fidelity.seeds > 1 ? if_compared(r, f) : "";
}
template <class F>
std::string if_matrix(const Row& r, F f) {
  return r.measurement.fidelity.matrix.done ? number(f(r.measurement.fidelity.matrix)) : "";
}
template <class F>
std::string if_placed(const Row& r, F f) {
  return r.measurement.placed ? number(f(r.measurement.placement)) : "";
}

template <class F>
std::string if_paired(const Row& r, F f) {
  const std::vector<double> list = ratios(r.measurement);
  return timed(r) && !list.empty() ? number(f(list)) : "";
}

double interval_width(const Row& r) {
  const Interval i = median_interval(r.measurement.samples_s);
  return (i.high - i.low) / time_s(r);
}

std::string listed(const Row& r, const std::vector<double>& samples_s) {
  std::vector<std::string> parts;
  if (timed(r)) {
    for (const double s : samples_s) parts.push_back(number(s));
  }
  return join(parts, ";");
}

Roof roof_of(const Row& r) { return roof(r.measurement.cost, r.peak); }

}  // namespace

std::vector<double> ratios(const Measurement& m) {
  std::vector<double> list;
  for (std::size_t i = 0; i < std::min(m.samples_s.size(), m.against_s.size()); ++i)
    list.push_back(m.samples_s[i] / m.against_s[i]);
  return list;
}

bool meters_agree(const Measurement& m) {
  const auto booked = static_cast<double>(m.workspace_bytes + m.parameter_bytes);
  return m.peak_rss_bytes >= 0 && std::abs(static_cast<double>(m.peak_rss_bytes) - booked) <= 0.10 * booked + 4.0 * (1 << 20);
}

std::vector<Column> leading_columns() {
  using R = const Row&;
  std::vector<Column> list = {
      {"schema", "version of this list of columns", [](R) { return std::to_string(csv_schema); }},
      {"variant", "id of the variant", [](R r) { return r.id; }, true},
      {"options", "its options, canonical: name=value,...", [](R r) { return r.options; }, true},
      {"family", "its folder", [](R r) { return r.family; }, true},
      {"exactness", "exact, pattern, approximation, fitted approximation (once its tensors are learned) or different operator",
       [](R r) { return r.exactness; }, true},
  };
  for (std::size_t a = 1; a < axes().size(); ++a) {
    const Axis& axis = axes()[a];
    list.push_back({axis.name, axis.doc, [get = axis.get](R r) { return to_string(get(r.cell)); }, !axis.number});
  }
  return list;
}

std::vector<Column> measured_columns() {
  using R = const Row&;
  return {
      {"status", "ok, unsupported, inaccurate, timed_out, out_of_memory, crashed, skipped_budget",
       [](R r) { return std::string(to_string(r.measurement.outcome)); }, true},
      {"reason", "why the status is not ok", [](R r) { return r.measurement.reason; }, true},
      {"note", "what there is to know of the variant on this input", [](R r) { return r.measurement.variant_note; }, true},
      {"time_median_s", "median of the samples, seconds a run", [](R r) { return if_timed(r, time_s); }},
      {"time_mad_s", "median absolute deviation of the samples",
       [](R r) { return if_timed(r, [](R x) { return median_absolute_deviation(x.measurement.samples_s); }); }},
      {"time_min_s", "smallest sample",
       [](R r) {
         return if_timed(r, [](R x) { return *std::min_element(x.measurement.samples_s.begin(), x.measurement.samples_s.end()); });
       }},
      {"time_ci_low_s", "95 % interval of the median, lower end",
       [](R r) { return if_timed(r, [](R x) { return median_interval(x.measurement.samples_s).low; }); }},
      {"time_ci_high_s", "95 % interval of the median, upper end",
       [](R r) { return if_timed(r, [](R x) { return median_interval(x.measurement.samples_s).high; }); }},
      {"samples", "number of timed samples", [](R r) { return timed(r) ? std::to_string(r.measurement.samples_s.size()) : ""; }},
      {"unstable", "1: the interval is wider than 10 % of the median",
       [](R r) { return timed(r) ? std::to_string(interval_width(r) > unstable_above) : ""; }},
      {"mixer_share", "the mixer's share of a layer's time, in the same samples (--scope layer)",
       [](R r) { return r.measurement.mixer_share > 0 ? if_timed(r, [](R x) { return x.measurement.mixer_share; }) : ""; }},
      {"against", "variant whose samples were taken in turn with these (--against)", [](R r) { return r.measurement.against; },
       true},
      {"ratio_median", "time over that of `against`, median over pairs of neighbouring samples",
       [](R r) { return if_paired(r, [](const std::vector<double>& x) { return median(x); }); }},
      {"ratio_ci_low", "95 % interval of that median, lower end",
       [](R r) { return if_paired(r, [](const std::vector<double>& x) { return median_interval(x).low; }); }},
      {"ratio_ci_high", "95 % interval of that median, upper end",
       [](R r) { return if_paired(r, [](const std::vector<double>& x) { return median_interval(x).high; }); }},
      {"flops", "useful floating-point operations of the problem",
       [](R r) { return ran(r) ? number(r.measurement.cost.flops) : ""; }},
      {"bytes", "bytes that must move: inputs once, output once",
       [](R r) { return ran(r) ? number(r.measurement.cost.bytes) : ""; }},
      {"exps", "exponentials and the like", [](R r) { return ran(r) ? number(r.measurement.cost.exps) : ""; }},
      {"gflops_per_s", "useful flops a second",
       [](R r) { return if_timed(r, [](R x) { return 1e-9 * x.measurement.cost.flops / time_s(x); }); }},
      {"gbytes_per_s", "useful bytes a second",
       [](R r) { return if_timed(r, [](R x) { return 1e-9 * x.measurement.cost.bytes / time_s(x); }); }},
      {"ideal_time_s", "the machine's least time for this work: max of flops, bytes and exps over their peaks",
       [](R r) { return ran(r) ? number(roof_of(r).seconds) : ""; }},
      {"roof_fraction", "ideal_time_s over time_median_s",
       [](R r) { return if_timed(r, [](R x) { return roof_of(x).seconds / time_s(x); }); }},
      {"roof_binds", "which peak the ideal time comes from", [](R r) { return ran(r) ? roof_of(r).binds : ""; }, true},
      {"peak_fma_gflops", "FMA peak of this machine at the start or beside this cell, the larger; same isa and threads",
       [](R r) { return r.peak.fma_gflops > 0 ? number(r.peak.fma_gflops) : ""; }},
      {"cell_fma_gflops", "FMA rate beside this cell's samples: shows a drift of the clock",
       [](R r) { return if_timed(r, [](R x) { return x.measurement.fma_gflops; }); }},
      {"disturbed", "what else went on on the machine while this cell was measured, for the second time too; empty: nothing",
       [](R r) { return r.measurement.disturbed; }, true},
      {"remeasured", "rounds measured again because something else went on",
       [](R r) { return timed(r) ? std::to_string(r.measurement.remeasured) : ""; }},
      {"workspace_bytes", "scratch memory booked by the plan",
       [](R r) { return ran(r) ? whole(r.measurement.workspace_bytes) : ""; }},
      {"parameter_bytes", "learned tensors and random tables",
       [](R r) { return ran(r) ? whole(r.measurement.parameter_bytes) : ""; }},
      {"peak_rss_bytes", "peak of resident memory over parameters, workspace and first run, above the level after planning",
       [](R r) { return ran(r) && r.measurement.peak_rss_bytes >= 0 ? whole(r.measurement.peak_rss_bytes) : ""; }},
      {"meters_agree", "1: peak_rss_bytes is workspace_bytes + parameter_bytes within 10 % + 4 MiB",
       [](R r) { return ran(r) && r.measurement.peak_rss_bytes >= 0 ? std::to_string(meters_agree(r.measurement)) : ""; }},
      {"err_max_abs", "largest difference between fast path and definition in double",
       [](R r) { return if_gated(r, [](const GateResult& g) { return g.max_abs; }); }},
      {"err_relative", "Frobenius norm of that difference over the definition's",
       [](R r) { return if_gated(r, [](const GateResult& g) { return g.relative; }); }},
      {"err_allowance_abs", "allowed err_max_abs: twice the definition's own float error plus a floor",
       [](R r) { return if_gated(r, [](const GateResult& g) { return g.allowance_abs; }); }},
      {"err_scope", "what was compared: whole output, sampled rows, or a shorter twin problem",
       [](R r) { return r.measurement.gate.scope; }, true},
      {"fid_skill", "1 - (error / error of answering mean(V))^2 against softmax attention; 1 is perfect, 0 is useless",
       [](R r) { return if_compared(r, [](const Fidelity& f) { return f.skill; }); }},
      {"fid_relative", "Frobenius error against softmax attention, relative",
       [](R r) { return if_compared(r, [](const Fidelity& f) { return f.relative; }); }},
      {"fid_row_p50", "median over rows of the relative error",
       [](R r) { return if_compared(r, [](const Fidelity& x) { return x.row_p50; }); }},
      {"fid_row_p95", "95th percentile of it", [](R r) { return if_compared(r, [](const Fidelity& x) { return x.row_p95; }); }},
      {"fid_worst_row", "largest relative error of a row",
       [](R r) { return if_compared(r, [](const Fidelity& x) { return x.worst_row; }); }},
      {"fid_cosine_p50", "median over rows of the cosine to softmax attention",
       [](R r) { return if_compared(r, [](const Fidelity& x) { return x.cosine_p50; }); }},
      {"fid_seeds", "seeds of random tables that the fid_ columns before this one are means over",
       [](R r) { return r.measurement.fidelity.done ? std::to_string(r.measurement.fidelity.seeds) : ""; }},
      {"fid_relative_sd", "standard deviation of fid_relative over the seeds",
       [](R r) { return if_averaged(r, [](const Fidelity& x) { return x.relative_sd; }); }},
      {"fid_bias", "error of the mean over all seeds, relative: what more seeds would not average out",
       [](R r) { return if_averaged(r, [](const Fidelity& x) { return x.bias; }); }},
      {"fid_scatter", "distance of an output from that mean, relative",
       [](R r) { return if_averaged(r, [](const Fidelity& x) { return x.scatter; }); }},
      {"fid_matrix_relative",
       "Frobenius error of the matrix of weights, relative (this and what follows: first seed, --fidelity full)",
       [](R r) { return if_matrix(r, [](const MatrixFidelity& x) { return x.relative; }); }},
      {"fid_js", "Jensen-Shannon divergence of a row of weights, nats, mean",
       [](R r) { return if_matrix(r, [](const MatrixFidelity& x) { return x.js; }); }},
      {"fid_recall_1", "attention on the heaviest key of the variant over that on the truly heaviest, mean over rows",
       [](R r) { return if_matrix(r, [](const MatrixFidelity& x) { return x.recall_1; }); }},
      {"fid_recall_8", "the same for the 8 heaviest",
       [](R r) { return if_matrix(r, [](const MatrixFidelity& x) { return x.recall_8; }); }},
      {"fid_recall_32", "the same for the 32 heaviest",
       [](R r) { return if_matrix(r, [](const MatrixFidelity& x) { return x.recall_32; }); }},
      {"fid_support_mass", "attention on keys that the variant gives any weight, mean over rows",
       [](R r) { return if_matrix(r, [](const MatrixFidelity& x) { return x.support_mass; }); }},
      {"fid_spectral", "largest singular value of the error of the matrix, relative",
       [](R r) { return if_matrix(r, [](const MatrixFidelity& x) { return x.spectral; }); }},
      {"fid_reason", "why there is no fidelity, or none of the matrix",
       [](R r) { return r.measurement.fidelity.reason + r.measurement.fidelity.matrix.reason; }, true},
      {"in_logit_std", "standard deviation of the logits of a row",
       [](R r) { return if_placed(r, [](const Placement& x) { return x.logit_std; }); }},
      {"in_row_entropy", "entropy of a row of weights, nats",
       [](R r) { return if_placed(r, [](const Placement& x) { return x.row_entropy; }); }},
      {"in_perplexity", "exp(entropy of a row) over visible keys: 1 is uniform attention",
       [](R r) { return if_placed(r, [](const Placement& x) { return x.perplexity; }); }},
      {"in_sink_mass", "attention on the first key",
       [](R r) { return if_placed(r, [](const Placement& x) { return x.sink_mass; }); }},
      {"in_top32_mass", "attention on the 32 heaviest keys of a row",
       [](R r) { return if_placed(r, [](const Placement& x) { return x.top32_mass; }); }},
      {"in_q_norm2", "|q|^2/sqrt(head_dim): random features need about exp of this many",
       [](R r) { return if_placed(r, [](const Placement& x) { return x.q_norm2; }); }},
      {"in_note", "what to know of this input at this length", [](R r) { return r.measurement.note; }, true},
      {"output_file", "where the output was saved", [](R r) { return r.measurement.output_file; }, true},
      {"setup_s", "process start to first timed sample, gate excluded",
       [](R r) { return if_timed(r, [](R x) { return x.measurement.setup_s; }); }},
      {"samples_s", "every sample, seconds a run, in the order measured", [](R r) { return listed(r, r.measurement.samples_s); },
       true},
      {"against_s", "every sample of `against`, next to those", [](R r) { return listed(r, r.measurement.against_s); }, true},
      {"started", "when the cell was measured, UTC", [](R r) { return r.started; }, true},
      {"commit", "source of this attnbench", [](R r) { return r.commit; }, true},
      {"command", "repeats this row", [](R r) { return r.command; }, true},
  };
}

const std::vector<Column>& columns() {
  static const std::vector<Column> list = [] {
    std::vector<Column> all = leading_columns();
    const auto more = measured_columns();
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }();
  return list;
}

namespace {

std::string quoted(const std::string& field) {
  if (field.find_first_of(",\"\r\n") == std::string::npos) return field;
  std::string text = "\"";
  for (const char c : field) text += c == '"' ? "\"\"" : std::string(1, c);
  return text + '"';
}

}  // namespace

std::string csv_header() {
  std::vector<std::string> names;
  for (const auto& column : columns()) names.push_back(column.name);
  return join(names, ",") + "\n";
}

std::string csv_record(const std::vector<std::string>& fields) {
  std::vector<std::string> safe;
  for (const auto& field : fields) safe.push_back(quoted(field));
  return join(safe, ",") + "\n";
}

std::string csv_line(const Row& row) {
  std::vector<std::string> fields;
  for (const auto& column : columns()) fields.push_back(column.value(row));
  return csv_record(fields);
}

std::string json_line(const Row& row) {
  std::vector<std::string> record;
  for (const auto& column : columns()) record.push_back(column.value(row));
  return json_line(record);
}

std::string json_line(const std::vector<std::string>& record) {
  ATTN_ASSERT(record.size() == columns().size());
  nlohmann::ordered_json j;
  for (std::size_t c = 0; c < record.size(); ++c) {
    const Column& column = columns()[c];
    const std::string& value = record[c];
    const auto figure = parse_number(value);
    if (column.text) {
      j[column.name] = value;
    } else if (figure && std::isfinite(*figure)) {
      j[column.name] = nlohmann::ordered_json::parse(value);
    } else {
      j[column.name] = nullptr;
    }
  }
  return j.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

CsvText parse_csv(std::string_view text) {
  CsvText csv;
  std::vector<std::string> record;
  std::string field;
  bool open_quote = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (open_quote) {
      if (c != '"') {
        field += c;
      } else if (i + 1 < text.size() && text[i + 1] == '"') {
        field += text[++i];
      } else {
        open_quote = false;
      }
    } else if (c == '"') {
      open_quote = true;
    } else if (c == ',' || c == '\n') {
      if (c == '\n' && !field.empty() && field.back() == '\r') field.pop_back();
      record.push_back(std::move(field));
      field.clear();
      if (c == '\n') {
        csv.records.push_back(std::move(record));
        record.clear();
        csv.whole_bytes = i + 1;
      }
    } else {
      field += c;
    }
  }
  return csv;
}

Result<CsvText> read_csv_to_resume(const std::string& path, const std::string& header, int schema) {
  const auto text = read_file(path);
  if (!text) return text.refusal();
  if (header.starts_with(*text)) return CsvText{};
  if (!text->starts_with(header)) {
    return refuse("--resume: '" + path + "' has other columns than this attnbench writes (schema " + std::to_string(schema) +
                  "): give another --out");
  }
  CsvText old = parse_csv(*text);
  for (std::size_t r = 1; r < old.records.size(); ++r) {
    const std::size_t fields = old.records[r].size(), columns = old.records[0].size();
    if (fields != columns) {
      return refuse("--resume: line " + std::to_string(r + 1) + " of '" + path + "' has " + std::to_string(fields) +
                    " fields instead of " + std::to_string(columns));
    }
  }
  return old;
}

namespace {

std::size_t column_index(std::string_view name) {
  for (std::size_t c = 0; c < columns().size(); ++c) {
    if (columns()[c].name == name) return c;
  }
  ATTN_ASSERT(false && "a column of this schema");
  return 0;
}

}  // namespace

std::string cell_key(const std::vector<std::string>& record) {
  ATTN_ASSERT(record.size() == columns().size());
  const std::string& options = record[column_index("options")];
  std::vector<std::string> parts{record[column_index("variant")] + (options.empty() ? "" : ":" + options)};
  for (std::size_t a = 1; a < axes().size(); ++a) parts.push_back(record[column_index(axes()[a].name)]);
  return join(parts, "|");
}

const std::string& record_status(const std::vector<std::string>& record) { return record.at(column_index("status")); }

}  // namespace attn
