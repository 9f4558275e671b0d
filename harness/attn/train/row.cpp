#include "attn/train/row.hpp"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "attn/core/text.hpp"
#include "attn/record/column_list.hpp"

namespace attn {

namespace {

using Columns = ColumnList<TrainRow>;

constexpr Better neither = Better::neither, lower = Better::lower, higher = Better::higher;

constexpr std::array verdicts = {
    std::pair{Verdict::ok, "ok"},
    std::pair{Verdict::still_improving, "still_improving"},
    std::pair{Verdict::inconclusive, "inconclusive"},
    std::pair{Verdict::diverged, "diverged"},
    std::pair{Verdict::refused, "refused"},
    std::pair{Verdict::timed_out, "timed_out"},
    std::pair{Verdict::out_of_memory, "out_of_memory"},
    std::pair{Verdict::crashed, "crashed"},
};

bool trained(const TrainRow& r) { return r.trained(); }
bool stepped(const TrainRow& r) { return r.result.steps > 0 && r.result.train_s > 0; }

std::string print_levels(const TrainRow& r) {
  std::vector<std::string> parts;
  if (r.trained()) {
    for (const Level& level : r.result.levels) parts.push_back(level.name + "=" + fmt::format("{:.4f}", level.accuracy));
  }
  return join(parts, ";");
}

// Which of them are floors is not written: the column floor holds the highest.
bool read_levels(TrainRow& r, const std::string& field) {
  r.result.levels.clear();
  for (const auto part : field.empty() ? std::vector<std::string_view>{} : split(field, ';')) {
    const auto equals = part.find('=');
    if (equals == std::string_view::npos) return false;
    Level& level = r.result.levels.emplace_back();
    level.name = part.substr(0, equals);
    level.floor = false;
    if (!read_field(std::string(part.substr(equals + 1)), level.accuracy)) return false;
  }
  return true;
}

void variant_columns(Columns& c) {
  c.add(
      {"schema", "version of this list of columns", "", Role::context},
      [](const TrainRow&) { return std::to_string(train_csv_schema); },
      [](TrainRow&, const std::string& field) { return field == std::to_string(train_csv_schema); });
  c.text(
      {"task", "what was learned, with the options that differ from the default", "", Role::key},
      [](auto& r) -> auto& { return r.job.task; });
  c.number(
      {"n", "tokens of a sequence", "tokens", Role::key}, [](auto& r) -> auto& { return r.job.length; });
  add_variant_columns(c, [](TrainRow& r) -> std::string& { return r.job.variant; });
}

void run_columns(Columns& c) {
  const auto layer = [&](std::string name, std::string doc, auto LayerShape::*member) {
    c.number(
        {std::move(name), std::move(doc), "", Role::key}, [member](auto& r) -> auto& { return r.job.settings.layer.*member; });
  };
  const auto setting = [&](std::string name, std::string doc, auto RunSettings::*member) {
    c.number(
        {std::move(name), std::move(doc), "", Role::key}, [member](auto& r) -> auto& { return r.job.settings.*member; });
  };
  layer("width", "of the model", &LayerShape::width);
  layer("heads", "of each mixer", &LayerShape::heads);
  setting("layers", "of the model", &RunSettings::layers);
  c.choice(
      {"body", "what carries the tokens: layers of the variant, or recurrent: gated recurrent units that it joins", "", Role::key,
       neither, Holds::text, "layers"},
      [](auto& r) -> auto& { return r.job.settings.body; }, parse_body);
  layer("mlp", "hidden units of a layer's MLP; 0: none", &LayerShape::mlp);
  layer("conv", "taps of the short convolution before a mixer; 0: none", &LayerShape::conv);
  c.choice(
      {"positions", "none, sinusoidal, learned, rotary or alibi", "", Role::key},
      [](auto& r) -> auto& { return r.job.settings.layer.positions; }, parse_positions);
  layer("causal", "1: token i sees tokens up to i only", &LayerShape::causal);
  setting("batch", "sequences a step", &RunSettings::batch);
  // Whole, not with six digits: it is given, and found again by its text.
  c.add(
      {"rate", "largest learning rate", "", Role::key}, [](const TrainRow& r) { return format_number(r.job.settings.rate); },
      [](TrainRow& r, const std::string& field) { return read_field(field, r.job.settings.rate); });
  setting("seed", "of weights and training samples; the test samples are the same for all", &RunSettings::seed);
  setting("steps_budget", "steps at most", &RunSettings::steps);
  setting("test_samples", "sequences of the test", &RunSettings::test_samples);
  c.number(
      {"extrapolate", "times as long sequences that the model is tested on, too; 1: none", "", Role::key, neither, Holds::number,
       "1"},
      [](auto& r) -> auto& { return r.job.settings.extrapolate; });
  c.number(
      {"beam", "hypotheses in the test, where answers are decoded; 1: greedy", "", Role::key, neither, Holds::number, "1"},
      [](auto& r) -> auto& { return r.job.settings.beam; });
  c.number(
      {"samples", "training samples, drawn again and again; 0: each is new", "", Role::key, neither, Holds::number, "0"},
      [](auto& r) -> auto& { return r.job.settings.samples; });
}

void accuracy_columns(Columns& c) {
  const auto figure = [&](std::string name, std::string doc, Better better, double RunResult::*member) {
    c.number_if(
        {std::move(name), std::move(doc), "", Role::accuracy, better},
        trained, [member](auto& r) -> auto& { return r.result.*member; });
  };
  c.choice(
      {"verdict",
       "ok, still_improving, inconclusive (full attention missed its bar here), diverged, refused, timed_out, out_of_memory, "
       "crashed"},
      [](auto& r) -> auto& { return r.verdict; }, parse_verdict);
  c.text(
      {"reason", "why the verdict is not ok"}, [](auto& r) -> auto& { return r.reason; });
  figure("accuracy", "share of right answers on the test samples; of decoded sequences, of those right as a whole", higher,
         &RunResult::accuracy);
  figure("accuracy_ci_low", "95 % interval over test sequences, lower end: it does not cover the choice of seed", higher,
         &RunResult::low);
  figure("accuracy_ci_high", "its upper end", higher, &RunResult::high);
  c.optional(
      {"floor", "accuracy on the same samples without the skill that the task asks for", "", Role::accuracy},
      [](auto& r) -> auto& { return r.floor; });
  c.optional(
      {"chrf", "character n-gram F-score of decoded text on the test samples, 0 to 1, chrF2", "", Role::accuracy, higher},
      [](auto& r) -> auto& { return r.result.chrf; });
  c.optional(
      {"skill", "(accuracy - floor) / (1 - floor)", "", Role::accuracy, higher}, [](auto& r) -> auto& { return r.skill; });
  c.add({"levels", "accuracies with a meaning on these samples: floors, and what a limited reach or depth allows; name=value;...",
         "", Role::accuracy, neither, Holds::text},
        print_levels, read_levels);
  const auto longer = [&](std::string name, std::string doc, double RunResult::*member) {
    c.number_if(
        {std::move(name), std::move(doc), "", Role::accuracy, higher},
        [](const TrainRow& r) { return r.trained() && r.job.settings.extrapolate > 1; },
        [member](auto& r) -> auto& { return r.result.*member; });
  };
  longer("accuracy_longer", "share of right answers on sequences `extrapolate` times as long as those of training",
         &RunResult::longer_accuracy);
  longer("skill_longer", "likewise (accuracy - floor) / (1 - floor)", &RunResult::longer_skill);
  figure("train_accuracy", "of the last 20 batches of training, before each was learned from: choose the rate by this", higher,
         &RunResult::train_accuracy);
  c.add(
      {"loss", "mean of the last 20 batches", "", Role::accuracy, lower},
      [](const TrainRow& r) { return stepped(r) && std::isfinite(r.result.loss) ? print_field(r.result.loss) : ""; },
      [](TrainRow& r, const std::string& field) {
        r.result.loss = std::nan("");
        return field.empty() || read_field(field, r.result.loss);
      });
}

void cost_columns(Columns& c) {
  c.number_if(
      {"steps", "steps taken: a solved task ends early, a diverged run where it did", "", Role::measure, lower}, stepped,
      [](auto& r) -> auto& { return r.result.steps; });
  c.number_if(
      {"steps_to_99", "steps until 20 batches in a row, before each was learned from, were answered to 99 %", "", Role::measure,
       lower},
      [](const TrainRow& r) { return r.result.steps_to_99 > 0; }, [](auto& r) -> auto& { return r.result.steps_to_99; });
  c.number_if(
      {"train_s", "seconds of training on one thread, samples included, test excluded", "s", Role::measure, lower}, stepped,
      [](auto& r) -> auto& { return r.result.train_s; });
  c.optional(
      {"train_steps_per_s", "steps a second on one thread; other runs beside it slow it down", "1/s", Role::measure, higher},
      [](auto& r) -> auto& { return r.steps_per_s; });
  c.natural(
      {"peak_memory_bytes", "peak of resident memory in training, above the level before it", "bytes", Role::measure, lower},
      [](auto& r) -> auto& { return r.peak_memory_bytes; });
  c.natural(
      {"state_bytes", "what a layer must keep of a sequence to answer later queries about it", "bytes", Role::fact, lower},
      [](auto& r) -> auto& { return r.state_bytes; });
  c.number_if(
      {"parameters", "trained numbers"}, [](const TrainRow& r) { return r.result.parameter_count > 0; },
      [](auto& r) -> auto& { return r.result.parameter_count; });
}

void origin_columns(Columns& c) {
  c.text(
      {"finished", "when the run ended, UTC", "", Role::context}, [](auto& r) -> auto& { return r.finished; });
  c.text(
      {"commit", "source of this attnbench", "", Role::context}, [](auto& r) -> auto& { return r.commit; });
  c.text(
      {"command", "repeats this row", "", Role::context}, [](auto& r) -> auto& { return r.command; });
}

}  // namespace

std::string_view to_string(Verdict verdict) {
  for (const auto& [value, name] : verdicts) {
    if (value == verdict) return name;
  }
  return "";
}

Result<Verdict> parse_verdict(std::string_view name) {
  for (const auto& [value, candidate] : verdicts) {
    if (candidate == name) return value;
  }
  return refuse("'" + std::string(name) + "' is no verdict on a run");
}

TrainRow make_train_row(const Job& job) {
  TrainRow row;
  row.job = job;
  row.take_name(job.variant);
  return row;
}

void take_result(TrainRow& row, RunResult result, index_t peak_memory_bytes) {
  row.result = std::move(result);
  row.peak_memory_bytes = peak_memory_bytes;
  if (stepped(row)) row.steps_per_s = static_cast<double>(row.result.steps) / row.result.train_s;
  if (row.result.ending == Ending::diverged) return;
  row.floor = highest_floor(row.result.levels).accuracy;
  row.skill = skill(row.result.accuracy, *row.floor);
}

const Schema<TrainRow>& train_schema() {
  static const Schema<TrainRow> schema(train_csv_schema, [] {
    Columns c;
    for (const auto add : {variant_columns, run_columns, accuracy_columns, cost_columns, origin_columns}) add(c);
    return c.take();
  }());
  return schema;
}

std::string job_key(const Job& job) { return train_schema().key(make_train_row(job)); }

}  // namespace attn
