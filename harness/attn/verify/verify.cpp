#include "attn/verify/verify.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "attn/cell/axes.hpp"
#include "attn/cell/values.hpp"
#include "attn/core/text.hpp"
#include "attn/guest/folder.hpp"
#include "attn/guest/host.hpp"
#include "attn/guest/spec.hpp"
#include "attn/program/exit.hpp"
#include "attn/program/flags.hpp"
#include "attn/program/interrupt.hpp"
#include "attn/program/process.hpp"
#include "attn/program/renamed.hpp"
#include "attn/program/worker_end.hpp"
#include "attn/record/sink.hpp"
#include "attn/verify/findings.hpp"

namespace attn {

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
      return finding_from_json(answer.finding);
    } catch (const std::exception&) {  // cases, but no finding
    }
  }
  ProcessEnd silent = end;
  if (end.how == ProcessEnd::How::answered) silent.how = ProcessEnd::How::silent;
  const std::string where = answer.last_case.empty() ? " before the first case" : " at " + answer.last_case;
  return {.property = property, .cases = answer.cases, .failure = no_answer(silent, timeout_s, where).reason};
}

// The variants asked for; with plugins or guests and no --variants, those that they brought.
Result<VariantList> chosen(const VerifyOptions& o, const Registry& registry) {
  if (o.variants && *o.variants != axis_of("variant").usual) return registry.configure_list(*o.variants);
  Registry builtin;
  register_builtin_variants(builtin);
  if (o.plugins.empty() && o.guests.empty()) return builtin.configure_list("*@*");
  std::set<std::string> guests;  // the user's
  for (const std::string& text : o.guest_specs) guests.insert(read_guest_spec(text).value().name);
  std::vector<std::string> brought;
  for (const auto& type : registry.all()) {
    if (builtin.find(type->id) == nullptr) brought.push_back(type->id);
  }
  for (const auto& other : registry.all_implementations()) {
    if (other->is_guest() ? guests.contains(other->name) : builtin.find(other->id, other->name) == nullptr)
      brought.push_back(VariantName{.id = other->id, .implementation = other->name}.text());
  }
  return registry.configure_list(join(brought, ","));
}

int refused(const std::string& reason) { return fail(exit_usage, "attn_sweep", reason); }

}  // namespace

int verify(const VerifyOptions& o, const Registry& registry) {
  const auto tried = chosen_properties(o.property);
  if (!tried) return refused("--property: " + tried.reason());
  const auto variants = chosen(o, registry);
  if (!variants) return refused("--variants: " + variants.reason());
  tell_of_renamed(registry, {o.variants.value_or("")}, "attn_sweep");
  const auto threads = parse_axis(o.threads.value_or("2"), 1, 256);
  if (!threads || threads->size() != 1)
    return refused("--threads: --verify takes one number, 1..256" + (threads ? std::string() : "; " + threads.reason()));
  const auto memory_limit_bytes = read_memory_limit(o.memory_limit);
  if (!memory_limit_bytes) return refused(memory_limit_bytes.reason());

  catch_interrupts();
  std::vector<VariantFindings> found;
  for (const auto& variant : *variants) {
    VariantFindings one{variant->name().text(), variant->short_name(), registry.find(variant->name().id)->family, {}};
    for (const Property& property : *tried) {
      const json question = {{"variant", one.variant}, {"property", property.id}, {"threads", threads->front()}};
      const ProcessEnd end = run_worker(worker_arguments("property", o.plugins, o.guest_specs), question.dump(), o.timeout_s,
                                        *memory_limit_bytes, &interrupted);
      remove_abandoned_guest_folders();  // it ends at once when it has answered
      if (interrupted) break;
      one.findings.push_back(finding_of(end, property.id, o.timeout_s));
    }
    if (interrupted) break;
    found.push_back(std::move(one));
    if (!o.quiet && variants->size() > 1) {
      const VariantFindings& v = found.back();
      const auto failures =
          std::count_if(v.findings.begin(), v.findings.end(), [](const Finding& f) { return !f.failure.empty(); });
      tell(stderr,
           fmt::format("[{}/{}] {}: {}\n", found.size(), variants->size(), v.variant,
                       failures == 0 ? "conforms" : fmt::format("{} of {} properties FAILED", failures, v.findings.size())));
    }
  }
  const std::string text = o.format == "json" ? findings_json(*tried, found, o)
                           : o.format == "md" ? findings_markdown(*tried, found)
                                              : findings_text(*tried, found, o);
  if (!tell(stdout, text)) return exit_not_written;
  if (interrupted) return exit_interrupted;
  return any_failed(found) ? exit_failed_cell : exit_ok;
}

WorkerKind verify_kind(CallMeter* meter) {
  return {"property", [meter](const std::string& text, const Registry& registry) {
            const json question = json::parse(text);
            const auto property = chosen_properties(question.at("property").get<std::string>());
            const auto variant = registry.configure(question.at("variant").get<std::string>());
            ATTN_ASSERT(property && variant);
            place_guests(question.at("threads").get<int>(), false);
            ConformanceOptions options{.threads = question.at("threads").get<int>(), .meter = meter};
            options.before = [](const std::string& what) { write_whole(answer_fd, std::string(case_mark) + what + "\n"); };
            return to_json(check_property(**variant, property->front(), options)) + "\n";
          }};
}

}  // namespace attn
