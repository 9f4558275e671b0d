// What tries the properties of conformance.hpp on one variant: its methods stand by what they try in conformance_run.cpp (runs and
// their memory), conformance_meaning.cpp (what the outputs are), conformance_gradient.cpp, conformance_state.cpp,
// conformance_layouts.cpp, conformance_masks.cpp, conformance_dtypes.cpp and conformance_cost.cpp.
#pragma once

#include <functional>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "attn/prove/conformance.hpp"
#include "attn/prove/gate.hpp"
#include "attn/prove/trial.hpp"
#include "attn/variant/variant.hpp"

namespace attn::conformance {

using namespace trial;

inline constexpr float nan = std::numeric_limits<float>::quiet_NaN();
inline constexpr float infinity = std::numeric_limits<float>::infinity();

template <class F>
void for_each_element(const View<float, 4>& view, index_t first_batch, index_t first_head, index_t first_row, F f) {
  for (index_t b = first_batch; b < view.extent(0); ++b)
    for (index_t h = first_head; h < view.extent(1); ++h)
      for (index_t i = first_row; i < view.extent(2); ++i)
        for (index_t d = 0; d < view.extent(3); ++d) f(view(b, h, i, d));
}

std::string brief(double x);  // three digits

class Checker {
 public:
  Checker(const Variant& variant, ConformanceOptions options) : variant_(variant), options_(std::move(options)) {}

  Finding check(const Property& property);

  // Runs and their memory.
  void output();
  void bounds();
  void repeat();
  void threads();
  void scratch();
  void allocations();
  void arena();

  // What the outputs are.
  void agreement();
  void causality();
  void heads();
  void linearity();
  void supports();
  void values();

  // Gradients.
  void gradient();
  void backward();

  // States.
  void decode();
  void splits();
  void merge();

  // Lengths and layouts.
  void ragged();
  void pages();

  // Masks.
  void mask();

  // Number types.
  void dtypes();

  // The clock.
  void cost();

 private:
  void none(const std::string& why) { finding_.none = why; }

  void begin(const Problem& p, std::string_view how = "") {
    ++finding_.cases;
    begin_again(p, how);
  }
  // A part of a case that takes long: whoever watches sees that it goes on.
  void begin_again(const Problem& p, std::string_view how) const {
    if (options_.before) options_.before(attn::to_string(p) + (how.empty() ? "" : ", ") + std::string(how));
  }

  void fail(const Problem& p, const std::string& how) {
    if (finding_.failure.empty()) finding_.failure = variant_.name().text() + " at " + attn::to_string(p) + ": " + how;
  }

  // `where`: more words, asked for where it is the first failure.
  void judge(const Problem& p, const GateResult& result, const std::string& with, const std::function<std::string()>& where = {}) {
    if (passed(result)) return;
    const std::string error = result.max_abs == std::numeric_limits<double>::max() ? "NaN" : brief(result.max_abs);
    const std::string more = where && finding_.failure.empty() ? where() : "";
    fail(p, with + (with.empty() ? "" : ": ") + "error " + error + ", allowed " + brief(result.allowance_abs) +
                (more.empty() ? "" : "; " + more));
  }

  // For judge(), of what was planned for this case and ran on it.
  std::function<std::string()> where(const Problem& p, const Case& c, const Planned& planned, const Arena& arena,
                                     const GateResult& result) const;

  template <class F>
  void for_each_supported(F f) {
    for (const Problem& p : awkward_problems(options_.thorough)) {
      if (variant_.supports(p)) f(p);
    }
  }

  Case case_of(const Problem& p, Layout layout = Layout::dense, Border border = Border::soft) const {
    return Case(p, layout, border, named_for(variant_, p));
  }

  // The definition's output for this problem's Case, which has the same values in every layout.
  const Reference& reference(const Problem& p);

  // As trial::parameters_for and plan_trial, drawn once: a problem is planned some hundred times.
  const ParameterSet<float>& parameters_of(const Problem& p);
  Planned plan(const Problem& p, int threads, Workspace::Mode mode = Workspace::Mode::plain);

  // Heads and batch items that may not see each other.
  index_t groups_of(const Problem& p) const;

  template <class F>
  void for_each_in_last_group(const Problem& p, const View<float, 4>& tensor, F f) const {
    const index_t in_group = variant_.info().heads_independent ? tensor.extent(1) / p.kv_heads : tensor.extent(1);
    for_each_element(tensor, p.batch - 1, tensor.extent(1) - in_group, 0, f);
  }

  bool linear_in_v(const Problem& p);
  void compare_where_defined(const Problem& p, const Case& c, const Planned& planned, const std::string& words);
  void nan_shows(const Problem& p, const Arena& arena);
  void stored_steps(DType dtype, DType kv_dtype, const Arena& arena);
  void special_numbers(const Problem& p, DType dtype, DType kv_dtype, const Planned& of_floats, const Planned& of_stored,
                       const Arena& arena);

  // Calls f(problem of one step, whole problem, its arrays) for what decodes by a state of its own.
  template <class F>
  void for_each_stepped(F f);

  // All workers of the arena exist from here on.
  void start_threads(const Arena& arena) const;

  const Variant& variant_;
  ConformanceOptions options_;
  Finding finding_;
  std::map<std::string, Reference> references_;
  std::map<std::string, ParameterSet<float>> parameters_;
};

}  // namespace attn::conformance
