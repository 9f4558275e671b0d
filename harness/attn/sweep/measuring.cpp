#include "attn/sweep/measuring.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "attn/cell/axes.hpp"
#include "attn/core/text.hpp"
#include "attn/core/time.hpp"
#include "attn/program/interrupt.hpp"
#include "attn/record/context.hpp"
#include "attn/record/table.hpp"
#include "attn/sweep/grid.hpp"

namespace attn {

namespace {

// All rounds of a cell as one measurement: facts of the first, samples of all.
Measurement merged(const std::vector<Measurement>& rounds) {
  Measurement whole = rounds.front();
  double fma = 0, share = 0;
  for (std::size_t r = 0; r < rounds.size(); ++r) {
    const Measurement& round = rounds[r];
    if (round.outcome != Outcome::ok) {
      whole.outcome = round.outcome;
      whole.reason = round.reason;
    }
    if (r > 0) {
      whole.samples_s.insert(whole.samples_s.end(), round.samples_s.begin(), round.samples_s.end());
      whole.against_s.insert(whole.against_s.end(), round.against_s.begin(), round.against_s.end());
      whole.append_s.insert(whole.append_s.end(), round.append_s.begin(), round.append_s.end());
      whole.remeasured += round.remeasured;
    }
    if (whole.disturbed.empty()) whole.disturbed = round.disturbed;
    whole.setup_s = std::min(whole.setup_s, round.setup_s);
    fma += round.fma_gflops / static_cast<double>(rounds.size());
    share += round.mixer_share / static_cast<double>(rounds.size());
  }
  whole.mixer_share = share;
  whole.fma_gflops = fma;
  return whole;
}

std::string outcome_text(const Measurement& m) {
  if (m.outcome != Outcome::ok) return std::string(to_string(m.outcome)) + (m.reason.empty() ? "" : " (" + m.reason + ")");
  return m.samples_s.empty() ? "ok" : human_time(*std::min_element(m.samples_s.begin(), m.samples_s.end()));
}

}  // namespace

bool Measuring::Course::ended(std::size_t all) const {
  return rounds.size() >= all || (!rounds.empty() && rounds.back().outcome != Outcome::ok);
}

Status Measuring::run(const std::vector<Block>& blocks) {
  std::size_t cells = 0;
  for (const Block& block : blocks) cells += block.cells.size();
  const std::size_t steps = cells * schedule_.rounds();
  progress_.emplace(steps, static_cast<double>(steps), options_.quiet);
  Status status;
  for (std::size_t b = 0; b < blocks.size() && status && !interrupted; ++b) status = measure_block(blocks[b], b);
  progress_.reset();
  return status;
}

Status Measuring::measure_block(const Block& block, std::size_t number) {
  std::vector<Course> courses;
  for (const Cell& cell : block.cells) {
    const std::string key = cell_key(cell);
    courses.push_back({cell, key, outputs_.rounds_from_before(key), outputs_.has(key)});
    skip(courses.back().has_row ? schedule_.rounds() : courses.back().rounds.size());
  }
  for (std::size_t round = 0; round < schedule_.rounds(); ++round) {
    for (const std::size_t c : schedule_.order(block, number, round)) {
      Course& course = courses[c];
      if (course.has_row) continue;
      if (course.rounds.size() <= round && !course.ended(schedule_.rounds())) {
        if (Status status = measure_round(course, round); !status || interrupted) return status;
      }
      if (!course.ended(schedule_.rounds())) continue;
      skip(schedule_.rounds() - course.rounds.size());
      if (Status status = outputs_.write(row_of(course)); !status) return status;
      course.has_row = true;
    }
  }
  return {};
}

Status Measuring::measure_round(Course& course, std::size_t round) {
  Measurement m = measured(course, round);
  if (interrupted) return {};
  if (Status status = outputs_.note(course.key, m); !status) return status;
  progress_->end(title(course.cell, registry_.short_text(course.cell.variant)), 1, outcome_text(m));
  course.rounds.push_back(std::move(m));
  return {};
}

Measurement Measuring::measured(const Course& course, std::size_t round) const {
  if (const auto unreached = out_of_reach_.find(course.key); unreached != out_of_reach_.end())
    return failure(Outcome::unsupported, unreached->second);
  if (!schedule_.budget_is_used_up()) return worker_.ask_in_quiet(course.cell, schedule_.settings(course.cell, round));
  if (course.rounds.empty())
    return failure(Outcome::skipped_budget, fmt::format("--budget {} s was used up", format_number(options_.budget_s)));
  // A cell with rounds behind it has a row to show: the budget only keeps it from more samples.
  Measurement m = course.rounds.back();
  m.samples_s.clear();
  m.against_s.clear();
  m.append_s.clear();
  return m;
}

Row Measuring::row_of(const Course& course) const {
  Row row = make_row(course.cell, merged(course.rounds), worker_.peak_of(course.cell));
  row.describe(registry_);
  row.started = utc_now();
  row.commit = source_commit();
  row.command = repeat_command(course.cell, options_);
  return row;
}

void Measuring::skip(std::size_t rounds) {
  for (std::size_t r = 0; r < rounds; ++r) progress_->skip(1);
}

}  // namespace attn
