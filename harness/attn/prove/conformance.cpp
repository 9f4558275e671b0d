#include "attn/prove/conformance.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "attn/core/text.hpp"
#include "attn/prove/conformance_checker.hpp"

namespace attn {

namespace conformance {

namespace {

// What a property is about, beside a variant's outputs: a guest has no definition, or computes elsewhere.
enum class About { outputs, definition, this_process };

struct Entry {
  Property property;
  void (Checker::*check)();
  About about;
};

const std::vector<Entry>& entries() {
  static const std::vector<Entry> list = {
      {{"agreement", "the fast path agrees with the definition, whatever shape and strides"},
       &Checker::agreement,
       About::definition},
      {{"output", "every output element is written, none is read"}, &Checker::output, About::outputs},
      {{"bounds", "nothing outside the arrays is touched, inputs and parameters are not written"},
       &Checker::bounds,
       About::this_process},
      {{"repeat", "a second run, and a second plan, give the same bits", false, false}, &Checker::repeat, About::outputs},
      {{"threads", "one thread and several agree", false, false}, &Checker::threads, About::definition},
      {{"scratch", "scratch memory is written before it is read", false, false}, &Checker::scratch, About::this_process},
      {{"allocations", "run allocates nothing", false, false}, &Checker::allocations, About::this_process},
      {{"arena", "no thread outside the arena, no process", false, false}, &Checker::arena, About::this_process},
      {{"causality", "causal outputs do not depend on later rows"}, &Checker::causality, About::outputs},
      {{"heads", "heads and batch items do not mix"}, &Checker::heads, About::outputs},
      {{"linearity", "outputs are linear in V where the definition is", false, false}, &Checker::linearity, About::definition},
      {{"supports", "a problem that is not refused is planned, run and right", false, false},
       &Checker::supports,
       About::definition},
      {{"gradient", "the definition's gradient agrees with central differences", false, false},
       &Checker::gradient,
       About::this_process},
      {{"backward", "the backward pass agrees with the definition's gradient"}, &Checker::backward, About::outputs},
      {{"values", "zeros, denormals, large logits, NaN and infinity do what the definition says"},
       &Checker::values,
       About::definition},
      {{"decode", "step t of a decode gives row t of the causal definition"}, &Checker::decode, About::definition},
      {{"splits", "a state takes its tokens in any split"}, &Checker::splits, About::outputs},
      {{"merge", "states of neighbouring stretches merge, in any order, to that of both"}, &Checker::merge, About::outputs},
      {{"ragged", "a sequence of a ragged batch has the bits that it has alone, and padding is never read"},
       &Checker::ragged,
       About::outputs},
      {{"pages", "keys in pages give the bits of keys in a row"}, &Checker::pages, About::outputs},
      {{"mask", "with a mask the fast path agrees with the definition, where it hides all keys from a query, too"},
       &Checker::mask,
       About::definition},
      {{"dtypes", "stored numbers give what floats of the same numbers give"}, &Checker::dtypes, About::this_process},
      {{"cost", "time grows with N as the declared cost does", true}, &Checker::cost, About::this_process},
  };
  return list;
}

}  // namespace

std::string brief(double x) { return fmt::format("{:.3g}", x); }

Finding Checker::check(const Property& property) {
  finding_ = {.property = property.id};
  try {
    for (const Entry& entry : entries()) {
      if (entry.property.id != property.id) continue;
      if (variant_.is_guest() && entry.about == About::this_process) {
        none("a guest computes in a process of its own");
      } else if (!variant_.has_definition() && entry.about == About::definition) {
        none("there is no definition to hold it against");
      } else {
        (this->*entry.check)();
      }
    }
  } catch (const std::exception& e) {
    if (finding_.failure.empty()) finding_.failure = variant_.name().text() + ": exception: " + e.what();
  }
  if (finding_.cases == 0 && finding_.none.empty()) finding_.none = "supports no such problem";
  return finding_;
}

const Reference& Checker::reference(const Problem& p) {
  const auto [at, fresh] = references_.try_emplace(attn::to_string(p));
  if (fresh) {
    const Case c = case_of(p);
    at->second = evaluate_definition(variant_, p, c.arrays(), parameters_of(p));
  }
  return at->second;
}

const ParameterSet<float>& Checker::parameters_of(const Problem& p) {
  const auto [at, fresh] = parameters_.try_emplace(attn::to_string(p));
  if (fresh) at->second = parameters_for(variant_, p);
  return at->second;
}

Planned Checker::plan(const Problem& p, int threads, Workspace::Mode mode) {
  Planned planned(variant_, p, threads);
  planned.equip(parameters_of(p), mode);
  return planned;
}

}  // namespace conformance

using namespace conformance;

const std::vector<Property>& properties() {
  static const auto list = [] {
    std::vector<Property> of_entries;
    for (const Entry& entry : entries()) of_entries.push_back(entry.property);
    return of_entries;
  }();
  return list;
}

Result<std::vector<Property>> chosen_properties(std::string_view ids) {
  if (ids == "all") return properties();
  std::vector<Property> chosen;
  for (const auto raw : split(ids, ',')) {
    const auto id = trim(raw);
    const auto found = std::find_if(properties().begin(), properties().end(), [&](const Property& p) { return p.id == id; });
    if (found == properties().end()) {
      std::vector<std::string> known;
      for (const Property& p : properties()) known.push_back(p.id);
      const std::string close = nearest(id, known);
      return refuse("unknown property '" + std::string(id) + "'" + (close.empty() ? "" : ", did you mean '" + close + "'?") +
                    " (accepted: all, " + join(known, ", ") + ")");
    }
    chosen.push_back(*found);
  }
  return chosen;
}

std::vector<Problem> awkward_problems(bool thorough) {
  std::vector<Problem> list;
  const auto add = [&](Problem p) {
    list.push_back(p);
    p.causal = true;
    list.push_back(p);
  };
  for (const index_t n : {1, 2, 63, 64, 65, 500})
    add({.batch = 1, .heads = 2, .kv_heads = 2, .q_len = n, .kv_len = n, .head_dim = 64, .value_dim = 64});
  for (const index_t d : {16, 40, 80, 128})
    add({.batch = 2, .heads = 1, .kv_heads = 1, .q_len = 130, .kv_len = 130, .head_dim = d, .value_dim = d});
  add({.batch = 1, .heads = 1, .kv_heads = 1, .q_len = 33, .kv_len = 33, .head_dim = 7, .value_dim = 7});
  add({.batch = 1, .heads = 1, .kv_heads = 1, .q_len = 97, .kv_len = 97, .head_dim = 64, .value_dim = 24});
  add({.batch = 1, .heads = 2, .kv_heads = 2, .q_len = 50, .kv_len = 211, .head_dim = 32, .value_dim = 32});
  add({.batch = 1, .heads = 2, .kv_heads = 2, .q_len = 211, .kv_len = 50, .head_dim = 32, .value_dim = 32});
  add({.batch = 1, .heads = 4, .kv_heads = 2, .q_len = 70, .kv_len = 70, .head_dim = 32, .value_dim = 32});
  if (thorough) {
    for (const index_t n : {3, 7, 127, 128, 129, 255, 509, 1000}) {
      add({.batch = 2, .heads = 3, .kv_heads = 3, .q_len = n, .kv_len = n, .head_dim = 48, .value_dim = 48});
    }
    for (const index_t d : {1, 3, 33, 96, 256})
      add({.batch = 1, .heads = 2, .kv_heads = 2, .q_len = 77, .kv_len = 77, .head_dim = d, .value_dim = d});
  }
  return list;
}

Finding check_property(const Variant& variant, const Property& property, const ConformanceOptions& options) {
  return Checker(variant, options).check(property);
}

std::vector<Finding> check_conformance(const Variant& variant, const ConformanceOptions& options) {
  Checker checker(variant, options);
  std::vector<Finding> findings;
  for (const Property& property : properties()) {
    if (!property.timed && (property.by_isa || !options.another_isa)) findings.push_back(checker.check(property));
  }
  return findings;
}

}  // namespace attn
