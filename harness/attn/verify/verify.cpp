#include "attn/verify/verify.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "attn/cell/axes.hpp"
#include "attn/cell/values.hpp"
#include "attn/core/sanitizer.hpp"
#include "attn/core/text.hpp"
#include "attn/core/time.hpp"
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

#if defined(ATTN_ANY_SANITIZER)
constexpr double slower = 10;
#else
constexpr double slower = 1;
#endif

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

// How long a worker may be silent: cases of one variant take alike, and what takes much longer than all others hangs.
class Patience {
 public:
  double operator()(std::string_view answer) {
    const double now_s = monotonic_s();
    if (answer.empty()) {
      started_s_ = 0;  // a process of its own, whose start is no case
    } else {
      if (started_s_ > 0) longest_s_ = std::max(longest_s_, now_s - started_s_);
      started_s_ = now_s;
    }
    return longest_s_ > 0 ? std::clamp(much_longer * longest_s_, least_s, most_s) : most_s;
  }
  double longest_s() const { return longest_s_; }

 private:
  static constexpr double much_longer = 30, least_s = 5 * slower, most_s = 10 * slower;
  double longest_s_ = 0, started_s_ = 0;
};

// After so many the other properties would hang too.
constexpr int most_hangs = 3;

Finding finding_of(const ProcessEnd& end, const std::string& property, double timeout_s, const Patience& patience) {
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
  Finding finding{.property = property, .cases = answer.cases, .failure = no_answer(silent, timeout_s, where).reason};
  if (end.silent_s > 0) {
    finding.failure = fmt::format("hangs: nothing for {:.1f} s{}", end.silent_s, where);
    if (patience.longest_s() > 0) finding.failure += fmt::format("; no other case took more than {:.2g} s", patience.longest_s());
  }
  return finding;
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

VariantFindings verify_one(const Variant& variant, const std::vector<Property>& tried, index_t threads, index_t memory_limit_bytes,
                           const VerifyOptions& o, const Registry& registry) {
  VariantFindings one{variant.name().text(), variant.short_name(), registry.find(variant.name().id)->family, {}};
  Patience patience;
  // A guest may take long to start.
  std::function<double(std::string_view)> patient;
  if (!variant.is_guest()) patient = std::ref(patience);
  int hangs = 0;
  for (const Property& property : tried) {
    if (hangs == most_hangs) {
      one.findings.push_back({.property = property.id, .none = fmt::format("{} other properties hung", hangs)});
      continue;
    }
    const json question = {{"variant", one.variant}, {"property", property.id}, {"threads", threads}};
    const ProcessEnd end = run_worker(worker_arguments("property", o.plugins, prefer_from(o.prefer), o.guest_specs),
                                      question.dump(), o.timeout_s, memory_limit_bytes, &interrupted, {}, patient);
    remove_abandoned_guest_folders();  // it ends at once when it has answered
    if (interrupted) break;
    one.findings.push_back(finding_of(end, property.id, o.timeout_s, patience));
    hangs += end.how == ProcessEnd::How::timed_out;
    if (!o.quiet && end.how == ProcessEnd::How::timed_out)
      tell(stderr, one.name + ", " + property.id + ": " + one.findings.back().failure + "\n");
  }
  return one;
}

std::string verdict(const VariantFindings& v) {
  const auto failures = std::count_if(v.findings.begin(), v.findings.end(), [](const Finding& f) { return !f.failure.empty(); });
  return v.variant + ": " + (failures == 0 ? "conforms" : fmt::format("{} of {} properties FAILED", failures, v.findings.size()));
}

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
    found.push_back(verify_one(*variant, *tried, threads->front(), *memory_limit_bytes, o, registry));
    if (interrupted) {
      found.pop_back();
      break;
    }
    if (!o.quiet && variants->size() > 1)
      tell(stderr, fmt::format("[{}/{}] {}\n", found.size(), variants->size(), verdict(found.back())));
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
