#include "attn/sweep/worker.hpp"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "attn/core/text.hpp"
#include "attn/core/time.hpp"
#include "attn/exec/limits.hpp"
#include "attn/exec/seating.hpp"
#include "attn/guest/folder.hpp"
#include "attn/guest/host.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "attn/measure/machine_state.hpp"
#include "attn/measure/worker.hpp"
#include "attn/program/flags.hpp"
#include "attn/program/interrupt.hpp"
#include "attn/program/process.hpp"
#include "attn/program/worker_end.hpp"
#include "attn/ranks/crew.hpp"
#include "attn/record/sink.hpp"
#include "attn/record/table.hpp"
#include "attn/sweep/launch.hpp"

namespace attn {

namespace {

constexpr const char *cell_kind = "cell", *peak_kind = "peak", *needs_kind = "needs";

// A worker's answer begins with lines of this mark and what the cell needs: they are there, too, where it is killed.
const std::string needs_mark = "needs ";

std::string answer_peak(const std::string& text, const Registry&) {
  const auto question = nlohmann::json::parse(text);
  if (Status forced = kernels::force_isa(question.at("isa").get<std::string>()); !forced) {
    std::fprintf(stderr, "%s\n", forced.reason().c_str());  // last words
    return "";
  }
  const int threads = question.at("threads").get<int>();
  const bool pin = question.at("pin").get<bool>();
  std::optional<OnNodes> nodes;  // the roof is that of memory which lies well
  if (pin) nodes.emplace(seating(threads), Numa::local);
  const Arena arena(threads, pin ? Pinning::cores : Pinning::none);
  return to_json(measure_peak(arena, true));
}

// The process's start on the monotonic clock is what the parent noted before it forked.
std::string answer_cell(const std::string& text, const Registry& registry) {
  Cell cell;
  Settings settings;
  from_json(text, cell, settings);
  place_guests(cell.threads, settings.pin);
  pin_ranks(settings.pin);
  const auto tell = [](const Needs& needs) { write_whole(answer_fd, needs_mark + to_json(needs) + "\n"); };
  return to_json(measure_cell(registry, cell, settings, nlohmann::json::parse(text).at("started_s").get<double>(), tell));
}

// What each cell of a block takes, a line each; none where it is refused.
std::string answer_needs(const std::string& text, const Registry& registry) {
  std::string answer;
  for (const auto& question : nlohmann::json::parse(text)) {
    Cell cell;
    Settings settings;
    from_json(question.get<std::string>(), cell, settings);
    const auto needs = needs_of(registry, cell);
    answer += (needs ? needs_mark + to_json(*needs) : needs.reason()) + "\n";
  }
  return answer;
}

// Takes the lines that tell of needs out of an answer; the last of them.
std::optional<Needs> take_needs(std::string& answer) {
  std::optional<Needs> needs;
  while (answer.starts_with(needs_mark)) {
    const auto end = answer.find('\n');
    if (end == std::string::npos) return needs;  // torn
    needs = needs_from_json(answer.substr(needs_mark.size(), end - needs_mark.size()));
    answer.erase(0, end + 1);
  }
  return needs;
}

// Of all threads at once, those of ranks too.
std::pair<std::string, int> peak_key(const Cell& cell) { return {cell.isa, cell.threads * cell.ranks}; }

}  // namespace

Measurement failure(Outcome outcome, std::string reason) {
  Measurement m;
  m.outcome = outcome;
  m.reason = std::move(reason);
  return m;
}

std::string words(const Needs& needs) {
  std::vector<std::string> parts;
  const auto add = [&](const char* what, index_t bytes) {
    if (bytes > 0) parts.push_back(std::string(what) + " " + human_bytes(static_cast<double>(bytes)));
  };
  add("inputs", needs.inputs);
  add("parameters", needs.parameters);
  add("state", needs.state);
  add("workspace", needs.workspace.value_or(0));
  return human_bytes(static_cast<double>(needs.total())) + " (" + join(parts, ", ") +
         (needs.workspace ? "" : ", workspace not planned") + ")";
}

Status Worker::measure_peaks(const std::vector<Block>& blocks, const std::vector<Peak>& known) {
  constexpr double timeout_s = 120;
  for (const Block& block : blocks) {
    const Cell& cell = block.cells.front();
    const auto key = peak_key(cell);
    if (peaks_.contains(key) || interrupted) continue;
    const auto found = std::ranges::find_if(known, [&](const Peak& peak) { return std::pair(peak.isa, peak.threads) == key; });
    if (found != known.end()) {
      peaks_[key] = *found;
      continue;
    }
    const nlohmann::json question = {{"isa", cell.isa}, {"threads", key.second}, {"pin", options_.pin}};
    const ProcessEnd end = run_worker(arguments(peak_kind), question.dump(), timeout_s, 0, &interrupted);
    if (end.how == ProcessEnd::How::stopped) return {};
    if (end.how == ProcessEnd::How::timed_out) return refuse("measuring the machine's peaks took more than 120 s: it is busy");
    if (end.how != ProcessEnd::How::answered)
      return refuse("measuring the machine's peaks failed" + (end.last_words.empty() ? "" : ": " + end.last_words));
    peaks_[key] = peak_from_json(end.answer);
  }
  return {};
}

std::vector<Peak> Worker::peaks() const {
  std::vector<Peak> list;
  for (const auto& [key, peak] : peaks_) list.push_back(peak);
  return list;
}

Peak Worker::peak_of(const Cell& cell) const {
  const auto found = peaks_.find(peak_key(cell));
  return found == peaks_.end() ? Peak{} : found->second;
}

Measurement Worker::ask(const Cell& cell, const Settings& settings) const {
  nlohmann::json question = nlohmann::json::parse(to_json(cell, settings));
  question["started_s"] = monotonic_s();
  ProcessEnd end;
  if (cell.ranks == 1) {
    end = run_worker(arguments(cell_kind), question.dump(), options_.timeout_s, memory_limit_bytes_, &interrupted);
  } else {
    const auto command = rank_command(cell, options_.launcher, options_.pin, arguments(cell_kind));
    if (!command) return failure(Outcome::unsupported, command.reason());
    std::string of_rank;  // the first such line
    end =
        run_launcher(*command, question.dump(), options_.timeout_s, memory_limit_bytes_, &interrupted, [&](std::string_view line) {
          if (of_rank.empty() && tells_of_rank(line)) of_rank = line;
          return false;
        });
    if (!of_rank.empty()) end.last_words = of_rank;
  }
  remove_abandoned_guest_folders();  // it ends at once when it has answered
  const std::optional<Needs> needs = take_needs(end.answer);
  if (end.how == ProcessEnd::How::answered && end.answer.empty()) end.how = ProcessEnd::How::silent;
  const auto with_needs = [&](Measurement m) {
    if (m.outcome == Outcome::out_of_memory && needs) m.reason += "; it needs " + words(*needs);
    return m;
  };
  if (end.how == ProcessEnd::How::answered) {
    try {
      return with_needs(measurement_from_json(end.answer));
    } catch (const std::exception&) {  // torn
    }
  }
  const auto [outcome, reason] = no_answer(end, options_.timeout_s);
  return with_needs(failure(outcome, reason));
}

std::vector<Result<Needs>> Worker::needs_of(const std::vector<Cell>& cells) const {
  nlohmann::json questions = nlohmann::json::array();
  for (const Cell& cell : cells) questions.push_back(to_json(cell, Settings()));
  const ProcessEnd end = run_worker(arguments(needs_kind), questions.dump(), options_.timeout_s, memory_limit_bytes_, &interrupted);
  const auto lines = split(end.answer, '\n');
  std::vector<Result<Needs>> needs;
  for (std::size_t c = 0; c < cells.size(); ++c) {
    std::string line(c < lines.size() ? lines[c] : "");
    if (auto told = line.starts_with(needs_mark) ? take_needs(line += "\n") : std::nullopt) {
      needs.emplace_back(*told);
    } else {
      needs.emplace_back(refuse(line.empty() ? no_answer(end, options_.timeout_s).reason : line));
    }
  }
  return needs;
}

std::vector<std::string> Worker::arguments(const std::string& kind) const {
  return worker_arguments(kind, options_.plugins, prefer_from(options_.prefer), options_.guest_specs);
}

Measurement Worker::ask_and_watch(const Cell& cell, const Settings& settings) const {
  const MachineState before = read_machine_state(options_.machine_root);
  Measurement m = ask(cell, settings);
  if (m.outcome != Outcome::ok || m.samples_s.empty()) return m;
  m.disturbed = disturbance(before, read_machine_state(options_.machine_root));
  const auto peak = peaks_.find(peak_key(cell));
  if (cell.ranks == 1 && m.disturbed.empty() && peak != peaks_.end() && options_.peaks.empty())
    m.disturbed = clock_disturbance(m.fma_gflops, peak->second.fma_gflops_median);
  return m;
}

Measurement Worker::ask_in_quiet(const Cell& cell, const Settings& settings) const {
  Measurement m = ask_and_watch(cell, settings);
  if (!m.disturbed.empty() && !interrupted) {
    Measurement again = ask_and_watch(cell, settings);
    again.remeasured = again.outcome == Outcome::ok ? 1 : 0;
    m = std::move(again);
  }
  // No second attempt would help against these.
  const std::string crowded = m.outcome == Outcome::ok ? read_limits(options_.machine_root).crowded(cell.threads * cell.ranks) : "";
  if (!crowded.empty()) m.disturbed += (m.disturbed.empty() ? "" : "; ") + crowded;
  return m;
}

std::vector<WorkerKind> sweep_kinds() { return {{cell_kind, answer_cell}, {peak_kind, answer_peak}, {needs_kind, answer_needs}}; }

}  // namespace attn
