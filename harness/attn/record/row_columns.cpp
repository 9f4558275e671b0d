// The columns of a sweep's CSV.
#include "attn/cell/axes.hpp"
#include "attn/record/column_list.hpp"
#include "attn/record/row.hpp"

namespace attn {

namespace {

using Columns = ColumnList<Row>;

constexpr Better neither = Better::neither, lower = Better::lower, higher = Better::higher;

bool ran(const Row& r) { return r.measurement.cost.flops > 0 || r.measurement.cost.bytes > 0; }

void variant_columns(Columns& c) {
  c.add(
      {"schema", "version of this list of columns", "", Role::context}, [](const Row&) { return std::to_string(csv_schema); },
      [](Row&, const std::string& field) { return field == std::to_string(csv_schema); });
  add_variant_columns(c, [](Row& r) -> std::string& { return r.cell.variant; });
}

// The cell's, but for the variant's.
void cell_columns(Columns& c) {
  for (std::size_t a = 1; a < axes().size(); ++a) {
    const Axis& axis = axes()[a];
    c.add(
        {axis.name, axis.doc, axis.unit, Role::key, neither, axis.number ? Holds::number : Holds::text,
         axis.quiet ? axis.usual : ""},
        [get = axis.get](const Row& r) { return to_string(get(r.cell)); },
        [read = axis.read, set = axis.set, get = axis.get](Row& r, const std::string& field) {
          const auto value = read(field);
          if (!value) return false;
          set(r.cell, *value);
          return to_string(get(r.cell)) == field;  // not so where the number is too large for what it counts
        });
  }
}

void outcome_columns(Columns& c) {
  c.choice(
      {"status", "ok, unsupported, inaccurate, timed_out, out_of_memory, crashed, skipped_budget"},
      [](auto& r) -> auto& { return r.measurement.outcome; }, parse_outcome);
  c.text(
      {"reason", "why the status is not ok"}, [](auto& r) -> auto& { return r.measurement.reason; });
  c.text(
      {"note", "what there is to know of the variant on this input"}, [](auto& r) -> auto& { return r.measurement.variant_note; });
}

void follows(Columns& c, ColumnInfo info, std::optional<double> Figures::*member) {
  c.optional(
      std::move(info), [member](auto& r) -> auto& { return r.figures.*member; });
}

void time_columns(Columns& c) {
  const auto figure = [&](std::string name, std::string doc, std::string unit, std::optional<double> Figures::*member) {
    follows(c, {std::move(name), std::move(doc), std::move(unit), Role::measure, lower}, member);
  };
  figure("time_median_s", "median of the samples, seconds a run; of a decode, a step", "s", &Figures::time_median_s);
  figure("time_mad_s", "median absolute deviation of the samples", "s", &Figures::time_mad_s);
  figure("time_min_s", "smallest sample", "s", &Figures::time_min_s);
  figure("time_ci_low_s", "95 % interval of the median, lower end", "s", &Figures::time_ci_low_s);
  figure("time_ci_high_s", "95 % interval of the median, upper end", "s", &Figures::time_ci_high_s);
  c.derived({"samples", "number of timed samples", "", Role::measure},
            [](const Row& r) { return timed(r) ? print_field(r.measurement.samples_s.size()) : ""; });
  figure("unstable", "1: the interval is wider than 10 % of the median", "", &Figures::unstable);
  follows(c,
          {"tokens_per_s", "of a decode: new tokens of all sequences a second, step over time_median_s", "tokens/s", Role::measure,
           higher},
          &Figures::tokens_per_s);
  figure("append_s", "of a decode: what of a step takes up its tokens, median of samples of its own", "s", &Figures::append_s);
  c.number_if(
      {"parallelism",
       "work over span of a run: the time of all its tasks over that of the longest of each region, serial parts in both; more "
       "threads than "
       "this cannot all be busy",
       "", Role::measure, higher},
      [](const Row& r) { return timed(r) && r.measurement.parallelism > 0; },
      [](auto& r) -> auto& { return r.measurement.parallelism; });
  c.number_if(
      {"choice_share", "the share of the same samples that goes into choosing keys from the data", "", Role::measure, lower},
      [](const Row& r) { return timed(r) && r.measurement.choice_share > 0; },
      [](auto& r) -> auto& { return r.measurement.choice_share; });
  c.number_if(
      {"mixer_share", "the mixer's share of a layer's time, in the same samples (--scope layer)", "", Role::measure},
      [](const Row& r) { return timed(r) && r.measurement.mixer_share > 0; },
      [](auto& r) -> auto& { return r.measurement.mixer_share; });
  c.text(
      {"against", "variant whose samples were taken in turn with these (--against)"},
      [](auto& r) -> auto& { return r.measurement.against; });
  figure("ratio_median", "time over that of `against`, median over pairs of neighbouring samples", "", &Figures::ratio_median);
  figure("ratio_ci_low", "95 % interval of that median, lower end", "", &Figures::ratio_ci_low);
  figure("ratio_ci_high", "95 % interval of that median, upper end", "", &Figures::ratio_ci_high);
}

void work_columns(Columns& c) {
  c.add(
      {"compute", "what products are made with, whatever their operands are stored as: f32; bf16_dot: bf16 operands, sums in f32",
       "", Role::fact, neither, Holds::text},
      [](const Row& r) { return ran(r) ? std::string(to_string(r.measurement.compute)) : ""; },
      [](Row& r, const std::string& field) {
        return field.empty() || read_field(field, r.measurement.compute, kernels::parse_compute);
      });
  const auto work = [&](std::string name, std::string doc, std::string unit, double Cost::*member) {
    c.number_if(
        {std::move(name), std::move(doc), std::move(unit)}, ran, [member](auto& r) -> auto& { return r.measurement.cost.*member; });
  };
  work("flops", "useful floating-point operations of the problem", "flops", &Cost::flops);
  work("bytes", "bytes that must move: inputs once, output once", "bytes", &Cost::bytes);
  work("exps", "exponentials and the like", "", &Cost::exps);
  follows(c, {"gflops_per_s", "useful flops a second", "GFLOP/s", Role::measure, higher}, &Figures::gflops_per_s);
  follows(c, {"gbytes_per_s", "useful bytes a second", "GB/s", Role::measure, higher}, &Figures::gbytes_per_s);
  follows(c, {"ideal_time_s", "the machine's least time for this work: max of flops, bytes and exps over their peaks", "s"},
          &Figures::ideal_time_s);
  follows(c, {"roof_fraction", "ideal_time_s over time_median_s", "", Role::measure, higher}, &Figures::roof_fraction);
  c.text(
      {"roof_binds", "which peak the ideal time comes from"}, [](auto& r) -> auto& { return r.figures.roof_binds; });
}

void machine_columns(Columns& c) {
  follows(c,
          {"peak_fma_gflops", "FMA peak of this machine at the start or beside this cell, the larger; same isa and threads",
           "GFLOP/s", Role::context},
          &Figures::peak_fma_gflops);
  follows(c,
          {"peak_bf16_dot_gflops", "likewise of sums of bf16 products, where this instruction set has an instruction for them",
           "GFLOP/s", Role::context},
          &Figures::peak_bf16_dot_gflops);
  c.number_if(
      {"cell_fma_gflops", "FMA rate beside this cell's samples: shows a drift of the clock", "GFLOP/s", Role::context}, timed,
      [](auto& r) -> auto& { return r.measurement.fma_gflops; });
  c.text(
      {"disturbed", "what else went on on the machine while this cell was measured, for the second time too; empty: nothing", "",
       Role::context},
      [](auto& r) -> auto& { return r.measurement.disturbed; });
  c.number_if(
      {"remeasured", "rounds measured again because something else went on", "", Role::context}, timed,
      [](auto& r) -> auto& { return r.measurement.remeasured; });
}

void meter_columns(Columns& c) {
  const auto meter = [&](std::string name, std::string doc, std::string unit, double RunMeters::*member) {
    c.natural(
        {std::move(name), std::move(doc), std::move(unit), Role::measure, lower}, [member](auto& r) -> auto& {
          return r.measurement.meters.*member;
        });
  };
  meter("cycles", "of all threads, in user space, a run; this and what follows where the machine shows it, in runs of their own",
        "", &RunMeters::cycles);
  meter("instructions", "likewise", "", &RunMeters::instructions);
  meter("llc_misses", "likewise: misses of the last-level cache", "", &RunMeters::cache_misses);
  meter("joules", "energy of all packages, a run, whoever else used them", "J", &RunMeters::joules);
  c.text(
      {"meters_reason", "why there are no cycles, instructions and misses, or no joules", "", Role::context},
      [](auto& r) -> auto& { return r.measurement.meters.unsupported; });
}

void memory_columns(Columns& c) {
  c.number_if(
      {"workspace_bytes", "scratch memory booked by the plan", "bytes", Role::measure, lower}, ran,
      [](auto& r) -> auto& { return r.measurement.workspace_bytes; });
  c.number_if(
      {"parameter_bytes", "learned tensors and random tables", "bytes", Role::measure, lower}, ran,
      [](auto& r) -> auto& { return r.measurement.parameter_bytes; });
  c.number_if(
      {"state_bytes", "of a decode: what is kept of the context to answer its steps, of all sequences", "bytes", Role::measure,
       lower},
      [](const Row& r) { return ran(r) && r.cell.problem.pass == Pass::decode; },
      [](auto& r) -> auto& { return r.measurement.state_bytes; });
  const auto metered = [](const Row& r) { return ran(r) && r.measurement.peak_rss_bytes >= 0; };
  c.add(
      {"peak_rss_bytes", "peak of resident memory over parameters, workspace, state and first run, above the level after planning",
       "bytes", Role::measure, lower},
      [metered](const Row& r) { return metered(r) ? print_field(r.measurement.peak_rss_bytes) : ""; },
      [](Row& r, const std::string& field) {
        r.measurement.peak_rss_bytes = -1;
        return field.empty() || read_field(field, r.measurement.peak_rss_bytes);
      });
  c.derived({"meters_agree", "1: peak_rss_bytes is workspace_bytes + parameter_bytes + state_bytes within 10 % + 4 MiB", "",
             Role::measure},
            [metered](const Row& r) { return metered(r) ? std::to_string(meters_agree(r.measurement)) : ""; });
}

void rank_columns(Columns& c) {
  const auto figure = [&](std::string name, std::string doc, std::string unit, Better better, auto RankFigures::*member) {
    c.part(
        {std::move(name), std::move(doc), std::move(unit), Role::measure, better},
        [](auto& r) -> auto& { return r.measurement.over_ranks; },
        [member](auto& r) -> auto& { return r.measurement.ranks.*member; });
  };
  figure("rank_sent_bytes", "over ranks: bytes of the messages of a run, of the rank that sends most; counted where they leave",
         "bytes", lower, &RankFigures::sent_bytes);
  figure("rank_sent_bytes_formula", "the same by formula", "bytes", neither, &RankFigures::sent_bytes_formula);
  figure("rank_messages", "over ranks: messages of a run, of the rank that sends most", "", lower, &RankFigures::sent_messages);
  figure("rank_messages_formula", "the same by formula", "", neither, &RankFigures::sent_messages_formula);
  figure("rank_held_bytes", "over ranks: a rank's tensors and booked workspace, of the largest", "bytes", lower,
         &RankFigures::held_bytes);
  figure("rank_exposed", "over ranks: share of the time that the same run takes less when no message is sent", "", lower,
         &RankFigures::exposed);
  figure("rank_messages_s", "over ranks: time of the same messages without arithmetic", "s", lower, &RankFigures::messages_s);
  figure("rank_imbalance", "over ranks: longest arithmetic of a rank over the mean of all", "", lower, &RankFigures::imbalance);
}

void error_columns(Columns& c) {
  const auto gate = [&](std::string name, std::string doc, Better better, double GateResult::*member) {
    c.part(
        {std::move(name), std::move(doc), "", Role::accuracy, better}, [](auto& r) -> auto& { return r.measurement.gate.done; },
        [member](auto& r) -> auto& { return r.measurement.gate.*member; });
  };
  gate("err_max_abs", "largest difference between fast path and definition in double", lower, &GateResult::max_abs);
  gate("err_relative", "Frobenius norm of that difference over the definition's", lower, &GateResult::relative);
  gate("err_allowance_abs", "allowed err_max_abs: twice the definition's own float error plus a floor", neither,
       &GateResult::allowance_abs);
  c.part(
      {"storage_error", "what rounding Q, K and V to dtype and kv_dtype does to the definition: Frobenius error, relative", "",
       Role::accuracy, lower},
      [](auto& r) -> auto& { return r.measurement.stored; }, [](auto& r) -> auto& { return r.measurement.storage_error; });
  c.text(
      {"err_scope",
       "what was compared: whole output, sampled rows, or a shorter twin problem; 'ungated': there is no definition to compare "
       "with",
       "", Role::accuracy},
      [](auto& r) -> auto& { return r.measurement.gate.scope; });
}

void fidelity_columns(Columns& c) {
  const auto done = [](auto& r) -> auto& { return r.measurement.fidelity.done; };
  const auto mean = [&](std::string name, std::string doc, Better better, double Fidelity::*member) {
    c.part(
        {std::move(name), std::move(doc), "", Role::accuracy, better},
        done, [member](auto& r) -> auto& { return r.measurement.fidelity.*member; });
  };
  const auto over_seeds = [&](std::string name, std::string doc, double Fidelity::*member) {
    c.number_if(
        {std::move(name), std::move(doc), "", Role::accuracy, lower},
        [](const Row& r) { return r.measurement.fidelity.done && r.measurement.fidelity.seeds > 1; },
        [member](auto& r) -> auto& { return r.measurement.fidelity.*member; });
  };
  mean("fid_skill", "1 - (error / error of answering mean(V))^2 against softmax attention; 1 is perfect, 0 is useless", higher,
       &Fidelity::skill);
  mean("fid_relative", "Frobenius error against softmax attention, relative", lower, &Fidelity::relative);
  mean("fid_row_p50", "median over rows of the relative error", lower, &Fidelity::row_p50);
  mean("fid_row_p95", "95th percentile of it", lower, &Fidelity::row_p95);
  mean("fid_worst_row", "largest relative error of a row", lower, &Fidelity::worst_row);
  mean("fid_cosine_p50", "median over rows of the cosine to softmax attention", higher, &Fidelity::cosine_p50);
  c.part(
      {"fid_seeds", "seeds of random tables that the fid_ columns before this one are means over", "", Role::accuracy}, done,
      [](auto& r) -> auto& { return r.measurement.fidelity.seeds; });
  over_seeds("fid_relative_sd", "standard deviation of fid_relative over the seeds", &Fidelity::relative_sd);
  over_seeds("fid_bias", "error of the mean over all seeds, relative: what more seeds would not average out", &Fidelity::bias);
  over_seeds("fid_scatter", "distance of an output from that mean, relative", &Fidelity::scatter);
}

void matrix_columns(Columns& c) {
  const auto matrix = [&](std::string name, std::string doc, Better better, double MatrixFidelity::*member) {
    c.part(
        {std::move(name), std::move(doc), "", Role::accuracy, better},
        [](auto& r) -> auto& { return r.measurement.fidelity.matrix.done; },
        [member](auto& r) -> auto& { return r.measurement.fidelity.matrix.*member; });
  };
  matrix("fid_matrix_relative",
         "Frobenius error of the matrix of weights, relative (this and what follows: first seed, --fidelity full)", lower,
         &MatrixFidelity::relative);
  matrix("fid_js", "Jensen-Shannon divergence of a row of weights, nats, mean", lower, &MatrixFidelity::js);
  matrix("fid_recall_1", "attention on the heaviest key of the variant over that on the truly heaviest, mean over rows", higher,
         &MatrixFidelity::recall_1);
  matrix("fid_recall_8", "the same for the 8 heaviest", higher, &MatrixFidelity::recall_8);
  matrix("fid_recall_32", "the same for the 32 heaviest", higher, &MatrixFidelity::recall_32);
  matrix("fid_support_mass", "attention on keys that the variant gives any weight, mean over rows", higher,
         &MatrixFidelity::support_mass);
  matrix("fid_support_mass_p05", "its 5th percentile over the rows of all heads", higher, &MatrixFidelity::support_mass_p05);
  matrix("fid_spectral", "largest singular value of the error of the matrix, relative", lower, &MatrixFidelity::spectral);
  c.add(
      {"fid_reason", "why there is no fidelity, or none of the matrix", "", Role::accuracy, neither, Holds::text},
      [](const Row& r) { return r.measurement.fidelity.reason + r.measurement.fidelity.matrix.reason; },
      [](Row& r, const std::string& field) { return r.measurement.fidelity.reason = field, true; });
}

void input_columns(Columns& c) {
  const auto placed = [&](std::string name, std::string doc, std::string unit, double Placement::*member) {
    c.part(
        {std::move(name), std::move(doc), std::move(unit)}, [](auto& r) -> auto& { return r.measurement.placed; },
        [member](auto& r) -> auto& { return r.measurement.placement.*member; });
  };
  placed("in_logit_std", "standard deviation of the logits of a row", "", &Placement::logit_std);
  placed("in_row_entropy", "entropy of a row of weights, nats", "nats", &Placement::row_entropy);
  placed("in_perplexity", "exp(entropy of a row) over visible keys: 1 is uniform attention", "", &Placement::perplexity);
  placed("in_sink_mass", "attention on the first key", "", &Placement::sink_mass);
  placed("in_top32_mass", "attention on the 32 heaviest keys of a row", "", &Placement::top32_mass);
  placed("in_q_norm2", "|q|^2/sqrt(head_dim): random features need about exp of this many", "", &Placement::q_norm2);
  c.text(
      {"in_note", "what to know of this input at this length"}, [](auto& r) -> auto& { return r.measurement.note; });
}

void origin_columns(Columns& c) {
  const auto samples = [&](std::string name, std::string doc, std::vector<double> Measurement::*member) {
    c.add(
        {std::move(name), std::move(doc), "s", Role::measure, neither, Holds::text},
        [member](const Row& r) { return timed(r) ? print_list(r.measurement.*member) : ""; },
        [member](Row& r, const std::string& field) { return read_list(field, r.measurement.*member); });
  };
  c.text(
      {"output_file", "where the output was saved", "", Role::context}, [](auto& r) -> auto& { return r.measurement.output_file; });
  c.number_if(
      {"setup_s", "process start to first timed sample, gate excluded", "s", Role::measure, lower}, timed,
      [](auto& r) -> auto& { return r.measurement.setup_s; });
  samples("samples_s", "every sample, seconds a run, in the order measured; value;value;...", &Measurement::samples_s);
  samples("against_s", "every sample of `against`, next to those", &Measurement::against_s);
  c.text(
      {"started", "when the cell was measured, UTC", "", Role::context}, [](auto& r) -> auto& { return r.started; });
  c.text(
      {"commit", "source of this attnbench", "", Role::context}, [](auto& r) -> auto& { return r.commit; });
  c.text(
      {"command", "repeats this row", "", Role::context}, [](auto& r) -> auto& { return r.command; });
}

}  // namespace

const Schema<Row>& row_schema() {
  static const Schema<Row> schema(csv_schema, [] {
    Columns c;
    for (const auto add :
         {variant_columns, cell_columns, outcome_columns, time_columns, work_columns, machine_columns, meter_columns,
          memory_columns, rank_columns, error_columns, fidelity_columns, matrix_columns, input_columns, origin_columns})
      add(c);
    return c.take();
  }());
  return schema;
}

}  // namespace attn
