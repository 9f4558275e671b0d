#include "attn/train/job.hpp"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "attn/core/text.hpp"
#include "attn/record/row.hpp"

namespace attn {

namespace {

std::string number(double value) { return fmt::format("{:.6g}", value); }
std::string whole(index_t value) { return std::to_string(value); }

template <class F>
std::string if_trained(const TrainRow& r, F f) {
  return r.trained() ? f(r) : "";
}

bool stepped(const TrainRow& r) { return r.result.steps > 0 && r.result.train_s > 0; }
double floor_of(const TrainRow& r) { return highest_floor(r.result.levels).accuracy; }

std::string levels_text(const TrainRow& r) {
  std::vector<std::string> parts;
  for (const Level& level : r.result.levels) parts.push_back(level.name + "=" + fmt::format("{:.4f}", level.accuracy));
  return join(parts, ";");
}

}  // namespace

std::string_view to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::ok: return "ok";
    case Verdict::still_improving: return "still_improving";
    case Verdict::inconclusive: return "inconclusive";
    case Verdict::diverged: return "diverged";
    case Verdict::refused: return "refused";
    case Verdict::timed_out: return "timed_out";
    case Verdict::out_of_memory: return "out_of_memory";
    case Verdict::crashed: return "crashed";
  }
  return "";
}

const std::vector<TrainColumn>& train_columns() {
  using R = const TrainRow&;
  static const std::vector<TrainColumn> list = {
      {"schema", "version of this list of columns", [](R) { return std::to_string(train_schema); }},
      {"task", "what was learned, with the options that differ from the default", [](R r) { return r.job.task; }},
      {"n", "tokens of a sequence", [](R r) { return whole(r.job.length); }},
      {"variant", "id of the variant", [](R r) { return r.id; }},
      {"options", "its options, canonical: name=value,...", [](R r) { return r.options; }},
      {"family", "its folder", [](R r) { return r.family; }},
      {"exactness", "exact, pattern, approximation or different operator", [](R r) { return r.exactness; }},
      {"width", "of the model", [](R r) { return whole(r.job.settings.layer.width); }},
      {"heads", "of each mixer", [](R r) { return whole(r.job.settings.layer.heads); }},
      {"layers", "of the model", [](R r) { return whole(r.job.settings.layers); }},
      {"mlp", "hidden units of a layer's MLP; 0: none", [](R r) { return whole(r.job.settings.layer.mlp); }},
      {"conv", "taps of the short convolution before a mixer; 0: none", [](R r) { return whole(r.job.settings.layer.conv); }},
      {"positions", "none, sinusoidal, learned, rotary or alibi",
       [](R r) { return std::string(to_string(r.job.settings.layer.positions)); }},
      {"causal", "1: token i sees tokens up to i only", [](R r) { return whole(r.job.settings.layer.causal); }},
      {"batch", "sequences a step", [](R r) { return whole(r.job.settings.batch); }},
      {"rate", "largest learning rate", [](R r) { return number(r.job.settings.rate); }},
      {"seed", "of weights and training samples; the test samples are the same for all",
       [](R r) { return std::to_string(r.job.settings.seed); }},
      {"steps_budget", "steps at most", [](R r) { return whole(r.job.settings.steps); }},
      {"verdict",
       "ok, still_improving, inconclusive (full attention missed its bar here), diverged, refused, timed_out, out_of_memory, "
       "crashed",
       [](R r) { return std::string(to_string(r.verdict)); }},
      {"reason", "why the verdict is not ok", [](R r) { return r.reason; }},
      {"accuracy", "share of right answers on the test samples",
       [](R r) { return if_trained(r, [](R x) { return number(x.result.accuracy); }); }},
      {"accuracy_ci_low", "95 % interval over test sequences, lower end: it does not cover the choice of seed",
       [](R r) { return if_trained(r, [](R x) { return number(x.result.low); }); }},
      {"accuracy_ci_high", "its upper end", [](R r) { return if_trained(r, [](R x) { return number(x.result.high); }); }},
      {"floor", "accuracy on the same samples without the skill that the task asks for",
       [](R r) { return if_trained(r, [](R x) { return number(floor_of(x)); }); }},
      {"skill", "(accuracy - floor) / (1 - floor)",
       [](R r) { return if_trained(r, [](R x) { return number(skill(x.result.accuracy, floor_of(x))); }); }},
      {"levels", "accuracies with a meaning on these samples: floors, and what a limited reach or depth allows; name=value;...",
       [](R r) { return if_trained(r, levels_text); }},
      {"train_accuracy", "of the last 20 batches of training, each new to the model: choose the rate by this",
       [](R r) { return if_trained(r, [](R x) { return number(x.result.train_accuracy); }); }},
      {"loss", "mean of the last 20 batches",
       [](R r) { return stepped(r) && std::isfinite(r.result.loss) ? number(r.result.loss) : ""; }},
      {"steps", "steps taken: a solved task ends early, a diverged run where it did",
       [](R r) { return stepped(r) ? whole(r.result.steps) : ""; }},
      {"steps_to_99", "steps until 20 batches in a row, each new to the model, were answered to 99 %",
       [](R r) { return r.result.steps_to_99 > 0 ? whole(r.result.steps_to_99) : ""; }},
      {"train_s", "seconds of training on one thread, samples included, test excluded",
       [](R r) { return stepped(r) ? number(r.result.train_s) : ""; }},
      {"train_steps_per_s", "steps a second on one thread; other runs beside it slow it down",
       [](R r) { return stepped(r) ? number(static_cast<double>(r.result.steps) / r.result.train_s) : ""; }},
      {"peak_memory_bytes", "peak of resident memory in training, above the level before it",
       [](R r) { return r.peak_memory_bytes >= 0 ? whole(r.peak_memory_bytes) : ""; }},
      {"state_bytes", "what a layer must keep of a sequence to answer later queries about it",
       [](R r) { return r.state_bytes >= 0 ? whole(r.state_bytes) : ""; }},
      {"parameters", "trained numbers", [](R r) { return r.result.parameter_count > 0 ? whole(r.result.parameter_count) : ""; }},
      {"test_samples", "sequences of the test", [](R r) { return whole(r.job.settings.test_samples); }},
      {"finished", "when the run ended, UTC", [](R r) { return r.finished; }},
      {"commit", "source of this attnbench", [](R r) { return r.commit; }},
      {"command", "repeats this row", [](R r) { return r.command; }},
  };
  return list;
}

std::string train_header() {
  std::vector<std::string> names;
  for (const auto& column : train_columns()) names.push_back(column.name);
  return csv_record(names);
}

std::string train_line(const TrainRow& row) {
  std::vector<std::string> fields;
  for (const auto& column : train_columns()) fields.push_back(column.value(row));
  return csv_record(fields);
}

std::string train_columns_text() {
  std::string text;
  for (const auto& column : train_columns()) text += fmt::format("{:<20} {}\n", column.name, column.doc);
  return text;
}

namespace {

constexpr std::array key_columns = {"task", "n",         "variant", "options", "width", "heads", "layers",       "mlp",
                                    "conv", "positions", "causal",  "batch",   "rate",  "seed",  "steps_budget", "test_samples"};

std::size_t column_index(std::string_view name) {
  for (std::size_t c = 0; c < train_columns().size(); ++c) {
    if (train_columns()[c].name == name) return c;
  }
  ATTN_ASSERT(false && "a column of this schema");
  return 0;
}

}  // namespace

const std::string& field(const std::vector<std::string>& record, std::string_view column) {
  ATTN_ASSERT(record.size() == train_columns().size());
  return record[column_index(column)];
}

std::string job_key(const Job& job) {
  TrainRow row;
  row.job = job;
  const auto colon = job.variant.find(':');
  row.id = job.variant.substr(0, colon);
  row.options = colon == std::string::npos ? "" : job.variant.substr(colon + 1);
  std::vector<std::string> parts;
  for (const char* name : key_columns) parts.push_back(train_columns()[column_index(name)].value(row));
  return join(parts, "|");
}

std::string job_key(const std::vector<std::string>& record) {
  std::vector<std::string> parts;
  for (const char* name : key_columns) parts.push_back(field(record, name));
  return join(parts, "|");
}

std::string to_json(const Job& job) {
  const RunSettings& s = job.settings;
  return nlohmann::json{{"task", job.task},
                        {"variant", job.variant},
                        {"length", job.length},
                        {"width", s.layer.width},
                        {"heads", s.layer.heads},
                        {"mlp", s.layer.mlp},
                        {"conv", s.layer.conv},
                        {"positions", to_string(s.layer.positions)},
                        {"causal", s.layer.causal},
                        {"layers", s.layers},
                        {"batch", s.batch},
                        {"steps", s.steps},
                        {"rate", s.rate},
                        {"seed", s.seed},
                        {"test_samples", s.test_samples}}
      .dump();
}

Job job_from_json(const std::string& text) {
  const auto j = nlohmann::json::parse(text);
  Job job{j.at("task"), j.at("variant"), j.at("length"), {}};
  RunSettings& s = job.settings;
  s.layer = {.width = j.at("width"),
             .heads = j.at("heads"),
             .mlp = j.at("mlp"),
             .conv = j.at("conv"),
             .positions = *parse_positions(j.at("positions").get<std::string>()),
             .causal = j.at("causal")};
  s.layers = j.at("layers");
  s.batch = j.at("batch");
  s.steps = j.at("steps");
  s.rate = j.at("rate");
  s.seed = j.at("seed");
  s.test_samples = j.at("test_samples");
  return job;
}

// JSON has no NaN; a diverged run's loss is null.
std::string to_json(const RunResult& r, index_t peak_memory_bytes) {
  nlohmann::json levels = nlohmann::json::array();
  for (const Level& level : r.levels)
    levels.push_back({{"name", level.name}, {"accuracy", level.accuracy}, {"floor", level.floor}});
  return nlohmann::json{{"diverged", r.ending == Ending::diverged},
                        {"steps", r.steps},
                        {"steps_to_99", r.steps_to_99},
                        {"loss", r.loss},
                        {"train_accuracy", r.train_accuracy},
                        {"still_improving", r.still_improving},
                        {"accuracy", r.accuracy},
                        {"low", r.low},
                        {"high", r.high},
                        {"levels", levels},
                        {"train_s", r.train_s},
                        {"parameter_count", r.parameter_count},
                        {"peak_memory_bytes", peak_memory_bytes}}
      .dump();
}

RunResult result_from_json(const std::string& text, index_t& peak_memory_bytes) {
  const auto j = nlohmann::json::parse(text);
  RunResult r;
  r.ending = j.at("diverged").get<bool>() ? Ending::diverged : Ending::finished;
  r.steps = j.at("steps");
  r.steps_to_99 = j.at("steps_to_99");
  r.loss = j.at("loss").is_null() ? std::nan("") : j.at("loss").get<double>();
  r.train_accuracy = j.at("train_accuracy");
  r.still_improving = j.at("still_improving");
  r.accuracy = j.at("accuracy");
  r.low = j.at("low");
  r.high = j.at("high");
  for (const auto& level : j.at("levels")) r.levels.push_back({level.at("name"), level.at("accuracy"), level.at("floor")});
  r.train_s = j.at("train_s");
  r.parameter_count = j.at("parameter_count");
  peak_memory_bytes = j.at("peak_memory_bytes");
  return r;
}

}  // namespace attn
