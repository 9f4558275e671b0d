#include "attn/train/job.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

namespace attn {

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
                        {"body", to_string(s.body)},
                        {"batch", s.batch},
                        {"steps", s.steps},
                        {"rate", s.rate},
                        {"seed", s.seed},
                        {"test_samples", s.test_samples},
                        {"extrapolate", s.extrapolate},
                        {"beam", s.beam},
                        {"samples", s.samples}}
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
  s.body = *parse_body(j.at("body").get<std::string>());
  s.batch = j.at("batch");
  s.steps = j.at("steps");
  s.rate = j.at("rate");
  s.seed = j.at("seed");
  s.test_samples = j.at("test_samples");
  s.extrapolate = j.at("extrapolate");
  s.beam = j.at("beam");
  s.samples = j.at("samples");
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
                        {"chrf", r.chrf ? nlohmann::json(*r.chrf) : nlohmann::json()},
                        {"levels", levels},
                        {"longer_accuracy", r.longer_accuracy},
                        {"longer_skill", r.longer_skill},
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
  if (!j.at("chrf").is_null()) r.chrf = j.at("chrf").get<double>();
  for (const auto& level : j.at("levels")) r.levels.push_back({level.at("name"), level.at("accuracy"), level.at("floor")});
  r.longer_accuracy = j.at("longer_accuracy");
  r.longer_skill = j.at("longer_skill");
  r.train_s = j.at("train_s");
  r.parameter_count = j.at("parameter_count");
  peak_memory_bytes = j.at("peak_memory_bytes");
  return r;
}

}  // namespace attn
