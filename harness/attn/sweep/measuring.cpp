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
#include "attn/sweep/estimate.hpp"
#include "attn/sweep/grid.hpp"

namespace attn {

namespace {

// All rounds of a cell as one measurement: facts of the first, samples of all.
Measurement merged(const std::vector<Measurement>& rounds) {
  Measurement whole = rounds.front();
  double fma = 0, share = 0, choice = 0;
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
    choice += round.choice_share / static_cast<double>(rounds.size());
  }
  whole.mixer_share = share;
  whole.choice_share = choice;
  whole.fma_gflops = fma;
  return whole;
}

std::string outcome_text(const Measurement& m) {
  if (m.outcome != Outcome::ok) return std::string(to_string(m.outcome)) + (m.reason.empty() ? "" : " (" + m.reason + ")");
  return m.samples_s.empty() ? "ok" : human_time(*std::min_element(m.samples_s.begin(), m.samples_s.end()));
}

}  // namespace

bool Measuring::ended(const Course& course) const {
  if (course.failed() || course.rounds.size() < schedule_.rounds()) return course.failed();
  return further_rounds_ == 0 || !schedule_.wants_more(merged(course.rounds).samples_s, course.rounds.size());
}

Status Measuring::run(const std::vector<Block>& blocks) {
  std::size_t cells = 0;
  double seconds = 0;
  for (const Block& block : blocks) {
    cells += block.cells.size();
    for (const Cell& cell : block.cells) seconds += estimate_s(cell, options_, registry_);
  }
  progress_.emplace(cells * schedule_.rounds(), seconds, options_.quiet, 1);
  if (goal_) progress_->say("each variant with the smallest budget that reaches " + goal_->text());
  Status status;
  for (std::size_t b = 0; b < blocks.size() && status && !interrupted; ++b)
    status = goal_ ? race_block(blocks[b]) : measure_block(blocks[b], b);
  progress_.reset();
  return status;
}

Measuring::Course Measuring::course_of(const Cell& cell) {
  const std::string key = cell_key(cell);
  const double round_s = estimate_s(cell, options_, registry_) / static_cast<double>(schedule_.rounds());
  Course course{cell, key, outputs_.rounds_from_before(key), outputs_.has(key), round_s, ""};
  skip(course, course.has_row ? schedule_.rounds() : std::min(course.rounds.size(), schedule_.rounds()));
  return course;
}

Status Measuring::measure_block(const Block& block, std::size_t number) {
  std::vector<Course> courses;
  for (const Cell& cell : block.cells) courses.push_back(course_of(cell));
  further_rounds_ = schedule_.further_rounds(block.cells.size());
  const auto all_have_rows = [&] { return std::ranges::all_of(courses, &Course::has_row); };
  for (std::size_t round = 0; !all_have_rows(); ++round) {
    for (const std::size_t c : schedule_.order(block, number, round)) {
      if (Status status = advance(courses[c], round); !status || interrupted) return status;
    }
  }
  return {};
}

Status Measuring::race_block(const Block& block) {
  for (const Cell& cell : block.cells) {
    const auto& rows = outputs_.rows();
    const bool found_before =
        std::any_of(rows.begin(), rows.end(), [&](const Row& row) { return same_but_budget(row.cell, cell, registry_); });
    Course course = course_of(cell);
    further_rounds_ = schedule_.further_rounds(1);
    if (found_before && !course.has_row) skip(course, schedule_.rounds() - std::min(course.rounds.size(), schedule_.rounds()));
    if (found_before) continue;
    search(course);
    if (interrupted) return {};
    for (std::size_t round = 0; !course.has_row; ++round) {
      if (Status status = advance(course, round); !status || interrupted) return status;
    }
  }
  return {};
}

void Measuring::search(Course& course) {
  if (schedule_.budget_is_used_up()) return;
  const std::string name = title(course.cell, registry_.short_text(course.cell.variant));
  progress_->say(name + ": searching for " + goal_->text());
  const auto found = fit_budget(course.cell, *goal_, worker_, options_, registry_,
                                [&](const std::string& probed) { progress_->say(name + ": " + probed); });
  if (!found) course.out_of_reach = found.reason();
  course.key = cell_key(course.cell);
  course.rounds = outputs_.rounds_from_before(course.key);
  skip(course, std::min(course.rounds.size(), schedule_.rounds()));
}

// One round further, to the row where it was the last.
Status Measuring::advance(Course& course, std::size_t round) {
  if (course.has_row) return {};
  if (course.rounds.size() <= round && !ended(course)) {
    if (round >= schedule_.rounds()) progress_->add(course.round_s), --further_rounds_;
    if (Status status = measure_round(course, round); !status || interrupted) return status;
  }
  if (!ended(course)) return {};
  skip(course, schedule_.rounds() - std::min(course.rounds.size(), schedule_.rounds()));
  course.has_row = true;
  return outputs_.write(row_of(course));
}

Status Measuring::measure_round(Course& course, std::size_t round) {
  Measurement m = measured(course, round);
  if (interrupted) return {};
  if (Status status = outputs_.note(course.key, m); !status) return status;
  progress_->end(title(course.cell, registry_.short_text(course.cell.variant)), course.round_s, outcome_text(m));
  course.rounds.push_back(std::move(m));
  return {};
}

Measurement Measuring::measured(const Course& course, std::size_t round) const {
  if (!course.out_of_reach.empty()) return failure(Outcome::unsupported, course.out_of_reach);
  if (!schedule_.budget_is_used_up()) {
    Measurement m = worker_.ask_in_quiet(course.cell, schedule_.settings(course.cell, round));
    const double run_s = m.outcome == Outcome::timed_out ? estimated_run_s(course.cell, registry_) : 0;
    if (run_s > 0) {
      m.reason += fmt::format("; by its cost a run takes about {}, and a round {}", human_time(run_s), human_time(course.round_s));
    }
    return m;
  }
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

void Measuring::skip(const Course& course, std::size_t rounds) {
  for (std::size_t r = 0; r < rounds; ++r) progress_->skip(course.round_s);
}

}  // namespace attn
