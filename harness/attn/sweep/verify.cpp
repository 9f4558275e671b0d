#include "attn/sweep/verify.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "attn/cell/values.hpp"
#include "attn/core/text.hpp"
#include "attn/program/exit.hpp"
#include "attn/program/flags.hpp"
#include "attn/program/interrupt.hpp"
#include "attn/program/process.hpp"
#include "attn/program/worker_end.hpp"
#include "attn/record/context.hpp"
#include "attn/record/sink.hpp"

namespace attn {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Finding, property, cases, none, note, failure)

namespace {

using nlohmann::json;

// A worker's answer is lines: "at CASE" before each case, a JSON object at the end.
constexpr std::string_view case_mark = "at ";

struct Answer {
  index_t cases = 0;
  std::string last_case;
  std::string finding;
};

Answer read_answer(const std::string& text) {
  Answer answer;
  for (const auto line : split(text, '\n')) {
    if (line.substr(0, case_mark.size()) == case_mark) {
      ++answer.cases;
      answer.last_case = line.substr(case_mark.size());
    } else if (!line.empty()) {
      answer.finding = line;
    }
  }
  return answer;
}

Finding finding_of(const ProcessEnd& end, const std::string& property, double timeout_s) {
  const Answer answer = read_answer(end.answer);
  if (end.how == ProcessEnd::How::answered) {
    try {
      return json::parse(answer.finding).get<Finding>();
    } catch (const std::exception&) {  // cases, but no finding
    }
  }
  ProcessEnd silent = end;
  if (end.how == ProcessEnd::How::answered) silent.how = ProcessEnd::How::silent;
  const std::string where = answer.last_case.empty() ? " before the first case" : " at " + answer.last_case;
  return {.property = property, .cases = answer.cases, .failure = no_answer(silent, timeout_s, where).reason};
}

// What a flag of an axis says; none where it is not given.
std::optional<std::string> asked(const SweepOptions& o, std::string_view axis) {
  const auto found = o.axes.find(axis);
  if (found == o.axes.end() || found->second.empty()) return {};
  return found->second.front();
}

// What this property came to over all variants.
struct Total {
  index_t cases = 0, variants = 0;  // variants that it was tried on
  std::vector<std::string> failed;
};

Total total_of(const std::string& property, const std::vector<Verdict>& verdicts) {
  Total total;
  for (const Verdict& verdict : verdicts) {
    for (const Finding& finding : verdict.findings) {
      if (finding.property != property) continue;
      total.cases += finding.cases;
      total.variants += finding.cases > 0;
      if (!finding.failure.empty()) total.failed.push_back(verdict.variant);
    }
  }
  return total;
}

std::string result_of(const Total& total) {
  if (!total.failed.empty()) return "FAILED by " + join(total.failed, ", ");
  return total.cases > 0 ? "holds" : "not tried";
}

std::string repeat_verify(const Verdict& verdict, const Finding& finding, const SweepOptions& o) {
  std::vector<std::string> arguments = {"attn_sweep", "--verify", "--variants", verdict.variant, "--property", finding.property};
  if (const auto threads = asked(o, "threads")) arguments.insert(arguments.end(), {"--threads", *threads});
  if (!o.memory_limit.empty()) arguments.insert(arguments.end(), {"--memory-limit", o.memory_limit});
  if (o.timeout_s != SweepOptions().timeout_s) arguments.insert(arguments.end(), {"--timeout", format_number(o.timeout_s)});
  for (const auto& plugin : o.plugins) arguments.insert(arguments.end(), {"--plugin", plugin});
  return shell_quoted(arguments);
}

bool any_failed(const std::vector<Verdict>& verdicts) {
  return std::any_of(verdicts.begin(), verdicts.end(), [](const Verdict& verdict) {
    return std::any_of(verdict.findings.begin(), verdict.findings.end(), [](const Finding& f) { return !f.failure.empty(); });
  });
}

// The variants asked for; with plugins and no --variants, those that the plugins brought.
Result<std::vector<std::unique_ptr<Variant>>> chosen(const SweepOptions& o, const Registry& registry) {
  if (const auto names = asked(o, "variant"); names && *names != axis_of("variant").usual) return registry.configure_list(*names);
  if (o.plugins.empty()) return registry.configure_list("all");
  Registry builtin;
  register_builtin_variants(builtin);
  std::vector<std::string> brought;
  for (const auto& type : registry.all()) {
    if (builtin.find(type->id) == nullptr) brought.push_back(type->id);
  }
  return registry.configure_list(join(brought, ","));
}

int refused(const std::string& reason) { return fail(exit_usage, "attn_sweep", reason); }

}  // namespace

int verify(const SweepOptions& o, const Registry& registry, const std::vector<std::string>& worker_arguments) {
  const auto tried = chosen_properties(o.property);
  if (!tried) return refused("--property: " + tried.reason());
  const auto variants = chosen(o, registry);
  if (!variants) return refused("--variants: " + variants.reason());
  const auto threads = parse_axis(asked(o, "threads").value_or("2"), 1, 256);
  if (!threads || threads->size() != 1)
    return refused("--threads: --verify takes one number, 1..256" + (threads ? std::string() : "; " + threads.reason()));
  const auto memory_limit_bytes = read_memory_limit(o.memory_limit);
  if (!memory_limit_bytes) return refused(memory_limit_bytes.reason());

  catch_interrupts();
  std::vector<Verdict> verdicts;
  for (const auto& variant : *variants) {
    Verdict verdict{variant->name(), registry.find(variant->id())->family, {}};
    for (const Property& property : *tried) {
      const json question = {
          {"kind", "property"}, {"variant", verdict.variant}, {"property", property.id}, {"threads", threads->front()}};
      const ProcessEnd end = run_worker(worker_arguments, question.dump(), o.timeout_s, *memory_limit_bytes, &interrupted);
      if (interrupted) break;
      verdict.findings.push_back(finding_of(end, property.id, o.timeout_s));
    }
    if (interrupted) break;
    verdicts.push_back(std::move(verdict));
    if (!o.quiet && variants->size() > 1) {
      const Verdict& v = verdicts.back();
      const auto failures =
          std::count_if(v.findings.begin(), v.findings.end(), [](const Finding& f) { return !f.failure.empty(); });
      tell(stderr,
           fmt::format("[{}/{}] {}: {}\n", verdicts.size(), variants->size(), v.variant,
                       failures == 0 ? "conforms" : fmt::format("{} of {} properties FAILED", failures, v.findings.size())));
    }
  }
  const std::string text = o.format == "json" ? verdicts_json(*tried, verdicts, o)
                           : o.format == "md" ? verdicts_markdown(*tried, verdicts)
                                              : verdicts_text(*tried, verdicts, o);
  if (!tell(stdout, text)) return exit_not_written;
  if (interrupted) return exit_interrupted;
  return any_failed(verdicts) ? exit_failed_cell : exit_ok;
}

void answer_verify(const std::string& variant, const std::string& property, const Registry& registry, ConformanceOptions options) {
  const auto chosen = chosen_properties(property);
  const auto configured = registry.configure(variant);
  ATTN_ASSERT(chosen && configured);
  options.before = [](const std::string& what) { write_whole(answer_fd, std::string(case_mark) + what + "\n"); };
  const Finding finding = check_property(**configured, chosen->front(), options);
  write_whole(answer_fd, json(finding).dump(-1, ' ', false, json::error_handler_t::replace) + "\n");
}

std::string verdicts_text(const std::vector<Property>& tried, const std::vector<Verdict>& verdicts, const SweepOptions& o) {
  std::string text = fmt::format("{:<12} {:>7} {:>9}  result\n", "property", "cases", "variants");
  for (const Property& property : tried) {
    const Total total = total_of(property.id, verdicts);
    text += fmt::format("{:<12} {:>7} {:>9}  {}\n", property.id, total.cases, total.variants,
                        total.failed.size() > 3 ? fmt::format("FAILED by {} variants", total.failed.size()) : result_of(total));
  }
  if (verdicts.size() > 1) {
    std::size_t width = 0;
    for (const Verdict& verdict : verdicts) width = std::max(width, verdict.variant.size());
    text += fmt::format("\n{:<{}} {:>7}  result\n", "variant", width, "cases");
    for (const Verdict& verdict : verdicts) {
      index_t cases = 0;
      std::vector<std::string> failed;
      for (const Finding& finding : verdict.findings) {
        cases += finding.cases;
        if (!finding.failure.empty()) failed.push_back(finding.property);
      }
      text += fmt::format("{:<{}} {:>7}  {}\n", verdict.variant, width, cases,
                          failed.empty() ? "conforms" : "FAILED " + join(failed, ", "));
    }
  } else {
    for (const Verdict& verdict : verdicts) {
      text += "\n";
      for (const Finding& finding : verdict.findings) {
        if (!finding.none.empty()) text += fmt::format("{} not tried: {}\n", finding.property, finding.none);
        if (!finding.note.empty()) text += fmt::format("{}: {}\n", finding.property, finding.note);
      }
    }
  }
  for (const Verdict& verdict : verdicts) {
    for (const Finding& finding : verdict.findings) {
      if (finding.failure.empty()) continue;
      const auto property = std::find_if(tried.begin(), tried.end(), [&](const Property& p) { return p.id == finding.property; });
      text += fmt::format("\n{}, {}: {}\n  {}\n  repeat: {}\n", verdict.variant, finding.property, property->holds, finding.failure,
                          repeat_verify(verdict, finding, o));
    }
  }
  return text;
}

std::string verdicts_markdown(const std::vector<Property>& tried, const std::vector<Verdict>& verdicts) {
  std::string text = "| property | what holds | cases | variants | result |\n|---|---|---:|---:|---|\n";
  for (const Property& property : tried) {
    const Total total = total_of(property.id, verdicts);
    text +=
        fmt::format("| `{}` | {} | {} | {} | {} |\n", property.id, property.holds, total.cases, total.variants, result_of(total));
  }
  return text;
}

std::string verdicts_json(const std::vector<Property>& tried, const std::vector<Verdict>& verdicts, const SweepOptions& o) {
  nlohmann::ordered_json document = {{"properties", json::array()}, {"variants", json::array()}};
  for (const Property& property : tried) {
    const Total total = total_of(property.id, verdicts);
    document["properties"].push_back({{"id", property.id},
                                      {"holds", property.holds},
                                      {"cases", total.cases},
                                      {"variants", total.variants},
                                      {"failed", total.failed}});
  }
  for (const Verdict& verdict : verdicts) {
    nlohmann::ordered_json one = {{"variant", verdict.variant}, {"family", verdict.family}, {"findings", json::array()}};
    for (const Finding& finding : verdict.findings) {
      nlohmann::ordered_json f = json(finding);
      f["holds"] = finding.failure.empty();
      if (!finding.failure.empty()) f["repeat"] = repeat_verify(verdict, finding, o);
      one["findings"].push_back(std::move(f));
    }
    document["variants"].push_back(std::move(one));
  }
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace attn
