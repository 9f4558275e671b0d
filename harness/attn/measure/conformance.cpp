#include "attn/measure/conformance.hpp"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cfenv>
#include <cfloat>
#include <cmath>
#include <limits>
#include <map>

#include "attn/core/rng.hpp"
#include "attn/core/text.hpp"
#include "attn/kernels/probes.hpp"
#include "attn/measure/gate.hpp"
#include "attn/measure/gradient_check.hpp"
#include "attn/measure/trial.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

using namespace trial;

namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

template <class F>
void for_each_element(const View<float, 4>& view, index_t first_batch, index_t first_head, index_t first_row, F f) {
  for (index_t b = first_batch; b < view.extent(0); ++b)
    for (index_t h = first_head; h < view.extent(1); ++h)
      for (index_t i = first_row; i < view.extent(2); ++i)
        for (index_t d = 0; d < view.extent(3); ++d) f(view(b, h, i, d));
}

void scale(const View<float, 4>& view, float factor) {
  for_each_element(view, 0, 0, 0, [&](float& x) { x *= factor; });
}

// Processor time of this thread: other processes on the machine do not enter.
double thread_cpu_s() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// One number for three kinds of work, for its growth alone: a byte costs about as much as 4 flops, an exponential as 16.
double work_of(const Cost& cost) { return cost.flops + 4 * cost.bytes + 16 * cost.exps; }

std::string brief(double x) { return fmt::format("{:.3g}", x); }

// x in N^x, from two points.
double growth(double at_first, double at_last, index_t first, index_t last) {
  return std::log(at_last / at_first) / std::log(static_cast<double>(last) / static_cast<double>(first));
}

// The least of several calls, for at least three and about `enough_s` of them.
template <class F>
double least_cpu_s(double enough_s, F call) {
  double least_s = infinity;
  double spent_s = 0;
  for (int run = 0; run < 3 || (run < 50 && spent_s < enough_s); ++run) {
    const double begin_s = thread_cpu_s();
    call();
    const double took_s = thread_cpu_s() - begin_s;
    spent_s += took_s;
    least_s = std::min(least_s, took_s);
  }
  return least_s;
}

// Child processes, running or ended, that this process has not waited for, or has had.
bool has_children() {
  siginfo_t info{};
  return ::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 || errno != ECHILD;
}
long faults_of_children() {
  rusage usage{};
  ::getrusage(RUSAGE_CHILDREN, &usage);
  return usage.ru_minflt;
}

class Checker {
 public:
  Checker(const Variant& variant, const ConformanceOptions& options) : variant_(variant), options_(options) {}

  Finding check(const Property& property);

  void agreement() {
    const Arena arena(options_.threads);
    for_each_supported([&](const Problem& p) {
      for (const Layout layout : {Layout::dense, Layout::interleaved, Layout::padded}) {
        begin(p, to_string(layout));
        const Case c(p, layout);
        Planned planned(variant_, p, options_.threads);
        c.fill_output(0);
        planned.run(arena, c);
        judge(p, compare_with_reference(reference(p), c.out), std::string(to_string(layout)));
      }
    });
    if (finding_.cases == 0) finding_.failure = variant_.name() + " supports none of the problems tried";
  }

  void output() {
    const Arena arena(options_.threads);
    for_each_supported([&](const Problem& p) {
      for (const Layout layout : {Layout::dense, Layout::interleaved}) {
        begin(p, to_string(layout));
        const Case c(p, layout);
        Planned planned(variant_, p, options_.threads);
        const std::vector<float> on_zeros = output_of_run(planned, arena, c);
        c.fill_output(nan);
        planned.run(arena, c);
        if (!same_bits(on_zeros, c.output())) fail(p, "what the output held before is seen in it afterwards");
      }
    });
  }

  void bounds() {
    const Arena arena(options_.threads);
    for_each_supported([&](const Problem& p) {
      for (const auto& [border, words] : {std::pair{Border::guard_after, "nobody may touch what follows an array"},
                                          {Border::guard_before, "nobody may touch what precedes an array"}}) {
        begin(p, words);
        const Case c(p, Layout::dense, border);
        c.make_inputs_read_only();
        Planned planned(variant_, p, options_.threads, Workspace::Mode::checked);
        const ParameterSet<float> before = copy_of(planned.parameters);
        planned.run(arena, c);
        if (!planned.workspace.gaps_intact()) fail(p, "a booked scratch array was overrun");
        for (const auto& [name, tensor] : planned.parameters.all()) {
          if (!same_bits(tensor.values(), before[name].values())) fail(p, "parameter '" + name + "' was written to");
        }
      }
    });
  }

  void repeat() {
    const Arena arena(options_.threads);
    for_each_supported([&](const Problem& p) {
      begin(p);
      const Case c(p);
      Planned planned(variant_, p, options_.threads);
      const std::vector<float> first = output_of_run(planned, arena, c);
      for (int again = 0; again < 3; ++again) {
        if (!same_bits(first, output_of_run(planned, arena, c))) fail(p, "a second run of a plan gave other bits");
      }
      Planned second(variant_, p, options_.threads);
      if (!same_bits(first, output_of_run(second, arena, c))) fail(p, "a second plan gave other bits");
    });
  }

  void threads() {
    std::map<std::string, std::vector<float>> alone;
    for (const int count : {1, std::max(2, options_.threads), 2 * options_.threads + 1}) {
      const Arena arena(count);
      for_each_supported([&](const Problem& p) {
        begin(p, "threads=" + std::to_string(count));
        const Case c(p);
        Planned planned(variant_, p, count);
        const std::vector<float> here = output_of_run(planned, arena, c);
        if (count == 1) {
          alone[attn::to_string(p)] = here;
          return;
        }
        const std::vector<float>& there = alone[attn::to_string(p)];
        const double allowed = compare_with_reference(reference(p), c.out).allowance_abs;
        double largest = 0;
        for (std::size_t i = 0; i < here.size(); ++i) {
          const double difference = std::abs(static_cast<double>(here[i]) - static_cast<double>(there[i]));
          if (std::isnan(here[i]) != std::isnan(there[i])) largest = infinity;
          if (difference > largest) largest = difference;
        }
        if (largest > allowed) {
          fail(p, std::to_string(count) + " threads differ from one by " + brief(largest) + ", allowed " + brief(allowed));
        }
      });
    }
  }

  void scratch() {
    const Arena arena(options_.threads);
    for_each_supported([&](const Problem& p) {
      begin(p);
      const Case c(p);
      Planned planned(variant_, p, options_.threads);
      const std::vector<float> on_zeros = output_of_run(planned, arena, c);
      planned.workspace = Workspace(planned.booked, Workspace::Mode::checked);
      if (!same_bits(on_zeros, output_of_run(planned, arena, c))) fail(p, "scratch full of NaN changes the output");
    });
  }

  void gradient() {
    if (!options_.gradient) return none("left out");
    for (const Problem& p : gradient_problems(options_.thorough)) {
      if (!variant_.supports(p)) continue;
      begin(p);
      if (const std::string failure = compare_tape_with_differences(variant_, p); !failure.empty()) fail(p, failure);
    }
  }

  // Against the tape in double; besides, every element is written, a second pass gives the same bits, nothing is allocated.
  void backward() {
    const Arena arena(options_.threads);
    start_threads(arena);
    for_each_supported([&](const Problem& p) {
      if (!variant_.supports_backward(p)) return;
      for (const Layout layout : {Layout::dense, Layout::interleaved}) {
        begin(p, to_string(layout));
        const Case c(p, layout);
        Planned planned(variant_, p, options_.threads, Workspace::Mode::checked, Purpose::training);
        planned.run(arena, c);
        const bool gaps_were_intact = planned.workspace.gaps_intact();
        c.make_inputs_read_only();

        const Case gradients(p, layout, Border::guard_after);
        ParameterGradients of_parameters(variant_.parameters(p));
        const BackwardArrays arrays{c.out, gradients.out, gradients.q, gradients.k, gradients.v, of_parameters};
        fill_normal(gradients.out);
        const auto pass = [&] {
          for (const auto* view : {&gradients.q, &gradients.k, &gradients.v}) for_each_element(*view, 0, 0, 0, [](float& x) { x = nan; });
          if (options_.meter != nullptr) options_.meter->start();
          arena.execute([&] { planned.plan->backward(c.inputs(), planned.parameters, arrays, planned.workspace); });
          return options_.meter != nullptr ? options_.meter->stop() : OutsideCalls{};
        };
        pass();
        for (const auto& [argument, error, norm, allowed] :
             compare_backward_with_tape(variant_, p, c.inputs(), planned.parameters, arrays)) {
          if (!(error <= allowed)) fail(p, "the gradient of " + argument + " is off by " + brief(error) + " of " + brief(norm));
        }
        const auto written = [&] {
          std::vector<std::vector<float>> list;
          for (const auto* view : {&gradients.q, &gradients.k, &gradients.v}) {
            const Tensor<float> copy = Tensor<float>::from(*view);
            list.emplace_back(copy.values().begin(), copy.values().end());
          }
          return list;
        };
        const auto first = written();
        const OutsideCalls calls = pass();
        if (calls.allocations != 0) fail(p, "allocations in a backward pass, the first by " + calls.first_allocation_by);
        const auto second = written();
        for (std::size_t i = 0; i < first.size(); ++i) {
          if (!same_bits(first[i], second[i])) fail(p, "a second backward pass gave other bits");
        }
        if (gaps_were_intact && !planned.workspace.gaps_intact()) fail(p, "a booked array was overrun in a backward pass");
      }
    });
    if (finding_.cases == 0) none("has no backward pass");
  }

  void allocations() {
    if (options_.meter == nullptr) return none("this program counts no allocations");
    const Arena arena(options_.threads);
    start_threads(arena);
    for_each_supported([&](const Problem& p) {
      begin(p);
      const Case c(p);
      Planned planned(variant_, p, options_.threads);
      // What a library sets up at its first call, once on each thread, is not the run's: the least of three runs counts.
      planned.run(arena, c);
      OutsideCalls calls;
      for (int run = 0; run == 0 || (run < 3 && calls.allocations != 0); ++run) {
        options_.meter->start();
        planned.run(arena, c);
        calls = options_.meter->stop();
      }
      if (calls.allocations != 0)
        fail(p, std::to_string(calls.allocations) + " allocations in a run, the first by " + calls.first_allocation_by);
    });
  }

  void arena() {
    if (options_.meter == nullptr) return none("this program counts no starts of threads");
    const Arena arena(options_.threads);
    start_threads(arena);
    const bool children_before = has_children();
    const long faults_before = faults_of_children();
    for_each_supported([&](const Problem& p) {
      begin(p);
      const Case c(p);
      options_.meter->start();
      Planned planned(variant_, p, options_.threads);
      planned.run(arena, c);
      planned.run(arena, c);
      const OutsideCalls calls = options_.meter->stop();
      if (calls.threads != 0) fail(p, std::to_string(calls.threads) + " threads started, the first by " + calls.first_thread_by);
      if (!children_before && has_children()) fail(p, "a process was started");
      if (faults_of_children() != faults_before) fail(p, "a process was started and has ended");
    });
  }

  // Rows from t on change in Q, K and V; outputs before t must keep their bits. Where Q and K of later rows may decide who
  // attends to whom, only V changes: the decision then stands, and V shows every weight that a later row has.
  void causality() {
    if (variant_.info().causality == Causality::never) return none("has no causal form");
    const Arena arena(options_.threads);
    for_each_supported([&](const Problem& p) {
      if (!p.causal) return;
      const Case c(p);
      Planned planned(variant_, p, options_.threads);
      std::vector<float> before;
      for (const index_t t : {p.q_len - 1, p.q_len / 2, p.q_len / 3}) {  // from the end: earlier rows are still as they were
        const index_t position = p.query_position(t);
        if (t < 1 || position < 0) continue;
        begin(p, "rows from " + std::to_string(t) + " on changed");
        if (before.empty()) before = output_of_run(planned, arena, c);
        const auto disturb = [](float& x) { x = -1.5f * x + 0.25f; };
        if (!variant_.info().membership_sees_future) {
          for_each_element(c.q, 0, 0, t, disturb);
          for_each_element(c.k, 0, 0, position, disturb);
        }
        for_each_element(c.v, 0, 0, position, disturb);
        const std::vector<float> after = output_of_run(planned, arena, c);
        for (index_t head = 0; head < p.batch * p.heads; ++head) {
          const auto rows = [&](const std::vector<float>& all) {
            return std::span(all).subspan(static_cast<std::size_t>(head * p.q_len * p.value_dim),
                                          static_cast<std::size_t>(t * p.value_dim));
          };
          if (!same_bits(rows(before), rows(after))) fail(p, "rows before " + std::to_string(t) + " changed with later ones");
        }
      }
    });
  }

  // The last batch item and kv head group change; outputs of the others must keep their bits.
  void heads() {
    const Arena arena(options_.threads);
    for_each_supported([&](const Problem& p) {
      if (groups_of(p) < 2) return;
      begin(p);
      const Case c(p);
      Planned planned(variant_, p, options_.threads);
      const std::vector<float> before = output_of_run(planned, arena, c);
      for (const auto* tensor : {&c.q, &c.k, &c.v}) for_each_in_last_group(p, *tensor, [](float& x) { x = 0.5f - x; });
      const std::vector<float> after = output_of_run(planned, arena, c);
      const std::size_t kept = before.size() - before.size() / static_cast<std::size_t>(groups_of(p));
      if (!same_bits(std::span(before).first(kept), std::span(after).first(kept)))
        fail(p, "another head's inputs changed this head's output");
    });
    if (finding_.cases == 0 && finding_.failure.empty()) none("supports no problem of several heads or batch items");
  }

  // f(a V + b W) = a f(V) + b f(W), where the definition says so. V and W are multiples of 1/64 and a and b powers of two, so
  // that a V + b W is exact; a is large, so that a bound on values shows.
  void linearity() {
    if (variant_.info().reads == Reads::x) return none("reads no V");
    const Arena arena(options_.threads);
    for (const Problem& p : small_problems()) {
      if (!variant_.supports(p) || !linear_in_v(p)) continue;
      begin(p);
      constexpr float a = 256, b = -2;
      Case c(p);
      Planned planned(variant_, p, options_.threads);
      const Tensor<float> first = multiples(Tensor<float>::from(c.v)), second = flip(first, 2);
      const auto run_with = [&](const Tensor<float>& v, double& allowed) {
        v.copy_to(c.v);
        std::vector<float> out = output_of_run(planned, arena, c);
        allowed = compare_with_reference(evaluate_definition(variant_, p, c.inputs(), planned.parameters), c.out).allowance_abs;
        return out;
      };
      double of_first = 0, of_second = 0, of_both = 0;
      const auto f = run_with(first, of_first), g = run_with(second, of_second), both = run_with(first * a + second * b, of_both);
      const double allowed = std::abs(a) * of_first + std::abs(b) * of_second + of_both;
      double largest = 0;
      for (std::size_t i = 0; i < f.size(); ++i) {
        const double difference = std::abs(double{both[i]} - (double{a} * f[i] + double{b} * g[i]));
        if (!(difference <= largest)) largest = difference;
      }
      if (!(largest <= allowed))
        fail(p, "f(aV + bW) differs from a f(V) + b f(W) by " + brief(largest) + ", allowed " + brief(allowed));
    }
    if (finding_.cases == 0) none("its definition is not linear in V");
  }

  // Problems drawn at random: what is not refused is planned, run and right.
  void supports() {
    const Arena arena(options_.threads);
    index_t refused = 0;
    for (const Problem& p : random_problems(options_.thorough ? 200 : 60)) {
      if (!variant_.supports(p)) {
        ++refused;
        continue;
      }
      begin(p);
      try {
        const Case c(p);
        Planned planned(variant_, p, options_.threads);
        c.fill_output(0);
        planned.run(arena, c);
        judge(p, compare_with_reference(reference(p), c.out), "not refused, yet");
      } catch (const std::exception& e) {
        fail(p, std::string("not refused, yet: ") + e.what());
      }
    }
    finding_.note = std::to_string(refused) + " problems more were refused";
  }

  // Growth from the shorter to the longer length, in processor time of one thread, against that of the declared cost; that
  // against what info() declares for long sequences; and no run does more declared flops than the machine can. The shorter
  // problem has more heads, so that both hold as many tokens and lie in the same caches. A busy machine shows as time that
  // the other did not take: least times are taken in turns, and until they agree or many turns have passed.
  void cost() {
    constexpr index_t shorter = 1024, longer = 4096, turns = 12;
    const auto problem = [&](index_t n, index_t heads) {
      return Problem{.batch = 1,
                     .heads = heads,
                     .kv_heads = heads,
                     .q_len = n,
                     .kv_len = n,
                     .head_dim = 64,
                     .value_dim = 64,
                     .causal = variant_.info().causality == Causality::always};
    };
    const Problem few = problem(shorter, longer / shorter), many = problem(longer, 1);
    for (const Problem& p : {few, many}) {
      if (const Status status = variant_.supports(p); !status) return none(status.reason());
    }
    const auto work = [&](const Problem& p) { return work_of(variant_.cost(p)); };
    const double declared = 1 + growth(work(few), work(many), shorter, longer);
    constexpr index_t long_enough = index_t{1} << 18;
    const double in_the_end = growth(work(problem(long_enough, 1)), work(problem(4 * long_enough, 1)), long_enough, 4 * long_enough);

    const Arena arena(1);
    const Case few_case(few), many_case(many);
    Planned few_plan(variant_, few, 1), many_plan(variant_, many, 1);
    double few_s = infinity, many_s = infinity, flops_per_s = 0, measured = 0, reached = 0;
    const auto time = [&](const Case& c, Planned& planned, double& least_s) {
      planned.run(arena, c);
      least_s = std::min(least_s, least_cpu_s(0.05, [&] { planned.run(arena, c); }));
    };
    begin(few);
    few_plan.run(arena, few_case);
    begin(many);
    const auto agrees = [&] { return std::abs(measured - declared) <= growth_slack && reached <= 1.1 * flops_per_s; };
    for (index_t turn = 0; turn < 3 || (turn < turns && !agrees()); ++turn) {
      time(few_case, few_plan, few_s);
      time(many_case, many_plan, many_s);
      constexpr index_t probe_iterations = 300'000;  // some milliseconds
      double probe_flops = 0;
      const double probe_s = least_cpu_s(0.02, [&] { probe_flops = kernels::probe_fma(probe_iterations); });
      flops_per_s = std::max(flops_per_s, probe_flops / probe_s);
      measured = 1 + growth(few_s, many_s, shorter, longer);
      reached = variant_.cost(many).flops / many_s;
    }
    finding_.note = fmt::format("time grows as N^{:.2f}, declared work as N^{:.2f}, in the end as N^{:.2f}, by info() as N^{:g}",
                                measured, declared, in_the_end, variant_.info().time_exponent);
    if (std::abs(measured - declared) > growth_slack)
      return fail(many, fmt::format("from N={} on {}", shorter, finding_.note));
    if (std::abs(in_the_end - variant_.info().time_exponent) > exponent_slack)
      return fail(problem(long_enough, 1),
                  fmt::format("work grows as N^{:.2f}, info() says N^{:g}", in_the_end, variant_.info().time_exponent));
    if (reached > 1.1 * flops_per_s)
      fail(many, fmt::format("{:.0f} declared Gflop/s, the machine's peak is {:.0f}", 1e-9 * reached, 1e-9 * flops_per_s));
  }

  void values() {
    const Arena arena(options_.threads);
    for (const Problem& p : small_problems()) {
      if (!variant_.supports(p)) continue;
      struct Scaled {
        const char* words;
        float qk, v;
      };
      for (const auto& [words, qk, v] : {Scaled{"queries and keys of zeros", 0, 1}, Scaled{"denormal queries and keys", 1e-40f, 1},
                                         Scaled{"denormal values", 1, 1e-40f}, Scaled{"logits of some hundreds", 8, 1}}) {
        begin(p, words);
        const Case c(p);
        scale(c.q, qk);
        scale(c.k, qk);
        scale(c.v, v);
        Planned planned(variant_, p, options_.threads);
        const FloatingPoint mode;
        c.fill_output(0);
        planned.run(arena, c);
        if (!(mode == FloatingPoint())) fail(p, "the run leaves another rounding mode, or flushes denormals");
        compare_where_defined(p, c, planned, words);
      }
      for (const auto& [name, poison] : {std::pair{"NaN", nan}, {"infinity", infinity}, {"minus infinity", -infinity}}) {
        for (const int which : {0, 1, 2}) {
          const std::string words = std::string(name) + " in " + "QKV"[which];
          begin(p, words);
          const Case c(p);
          const auto& tensor = which == 0 ? c.q : which == 1 ? c.k : c.v;
          for_each_in_last_group(p, tensor, [n = 0, poison = poison](float& x) mutable { x = n++ % 7 == 3 ? poison : x; });
          Planned planned(variant_, p, options_.threads);
          const std::vector<float> out = output_of_run(planned, arena, c);
          const std::size_t others = out.size() - out.size() / static_cast<std::size_t>(groups_of(p));
          if (!std::all_of(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(others),
                           [](float x) { return std::isfinite(x); }))
            fail(p, words + " of one head reaches another head's output");
        }
      }
      if (variant_.info().reads != Reads::x && linear_in_v(p)) nan_shows(p, arena);
    }
  }

 private:
  // What the floating-point unit is told to do.
  struct FloatingPoint {
    int rounding = std::fegetround();
    bool denormals = [] {
      volatile float smallest = FLT_MIN;
      return smallest / 2 > 0;
    }();
    bool operator==(const FloatingPoint&) const = default;
  };

  // The variants of the tree lie between 0.30 below (clustered_improved) and 0.16 above (weights of N^2 floats).
  static constexpr double growth_slack = 0.4;
  static constexpr double exponent_slack = 0.25;  // of info(), which knows no logarithms: reformer's N log N is N^1.16

  void none(const std::string& why) { finding_.none = why; }

  static void fill_normal(const View<float, 4>& view) {
    const Rng rng(7, "gradient of the output");
    index_t next = 0;
    for_each_element(view, 0, 0, 0, [&](float& x) { x = static_cast<float>(rng.normal(next++)); });
  }

  // The smallest, ends that no block divides, unlike lengths and grouped heads; the last is longer than default windows and blocks.
  static std::vector<Problem> gradient_problems(bool thorough) {
    std::vector<Problem> list = {
        {.batch = 1, .heads = 1, .kv_heads = 1, .q_len = 1, .kv_len = 1, .head_dim = 3, .value_dim = 3},
        {.batch = 2, .heads = 2, .kv_heads = 2, .q_len = 13, .kv_len = 13, .head_dim = 5, .value_dim = 5},
        {.batch = 1, .heads = 1, .kv_heads = 1, .q_len = 9, .kv_len = 14, .head_dim = 6, .value_dim = 3},
        {.batch = 1, .heads = 4, .kv_heads = 2, .q_len = 11, .kv_len = 11, .head_dim = 4, .value_dim = 4},
        {.batch = 1, .heads = 1, .kv_heads = 1, .q_len = 150, .kv_len = 150, .head_dim = 4, .value_dim = 4}};
    if (thorough) {
      list.push_back({.batch = 1, .heads = 2, .kv_heads = 1, .q_len = 20, .kv_len = 6, .head_dim = 8, .value_dim = 8});
      list.push_back({.batch = 1, .heads = 2, .kv_heads = 2, .q_len = 260, .kv_len = 260, .head_dim = 8, .value_dim = 8});
    }
    const std::size_t shapes = list.size();
    for (std::size_t i = 0; i < shapes; ++i) {
      Problem causal = list[i];
      causal.causal = true;
      list.push_back(causal);
    }
    return list;
  }

  void begin(const Problem& p, std::string_view how = "") {
    ++finding_.cases;
    if (options_.before) options_.before(attn::to_string(p) + (how.empty() ? "" : ", ") + std::string(how));
  }

  void fail(const Problem& p, const std::string& how) {
    if (finding_.failure.empty()) finding_.failure = variant_.name() + " at " + attn::to_string(p) + ": " + how;
  }

  void judge(const Problem& p, const GateResult& result, const std::string& with) {
    if (passed(result)) return;
    const std::string error = result.max_abs == std::numeric_limits<double>::max() ? "NaN" : brief(result.max_abs);
    fail(p, with + (with.empty() ? "" : ": ") + "error " + error + ", allowed " + brief(result.allowance_abs));
  }

  template <class F>
  void for_each_supported(F f) {
    for (const Problem& p : awkward_problems(options_.thorough)) {
      if (variant_.supports(p)) f(p);
    }
  }

  // Of the Case of this problem, which has the same values in every layout.
  const Reference& reference(const Problem& p) {
    const auto [at, fresh] = references_.try_emplace(attn::to_string(p));
    if (fresh) {
      const Case c(p);
      at->second = evaluate_definition(variant_, p, c.inputs(), make_parameters(variant_.parameters(p), parameter_seed));
    }
    return at->second;
  }

  // Heads and batch items that may not see each other.
  index_t groups_of(const Problem& p) const { return p.batch * (variant_.info().heads_independent ? p.kv_heads : 1); }

  template <class F>
  void for_each_in_last_group(const Problem& p, const View<float, 4>& tensor, F f) const {
    const index_t in_group = variant_.info().heads_independent ? tensor.extent(1) / p.kv_heads : tensor.extent(1);
    for_each_element(tensor, p.batch - 1, tensor.extent(1) - in_group, 0, f);
  }

  static std::vector<Problem> small_problems() {
    std::vector<Problem> list;
    for (const bool causal : {false, true}) {
      list.push_back(
          {.batch = 2, .heads = 2, .kv_heads = 2, .q_len = 65, .kv_len = 65, .head_dim = 16, .value_dim = 16, .causal = causal});
      list.push_back(
          {.batch = 1, .heads = 2, .kv_heads = 2, .q_len = 192, .kv_len = 192, .head_dim = 64, .value_dim = 64, .causal = causal});
    }
    return list;
  }

  static std::vector<Problem> random_problems(index_t count) {
    std::vector<Problem> list;
    const Rng rng(5, "random problems");
    index_t drawn = 0;
    const auto below = [&](index_t n) { return rng.below(drawn++, n); };
    const auto one_of = [&](std::initializer_list<index_t> values) {
      return values.begin()[below(static_cast<index_t>(values.size()))];
    };
    for (index_t i = 0; i < count; ++i) {
      Problem p{};
      p.batch = 1 + below(3);
      p.heads = 1 + below(6);
      p.kv_heads = below(3) > 0 ? p.heads : 1 + below(p.heads);
      p.q_len = one_of({1, 2, 16, 64, 128, 1 + below(20), 1 + below(200), 1 + below(200)});
      p.kv_len = below(3) > 0 ? p.q_len : 1 + below(200);
      p.head_dim = one_of({8, 16, 32, 64, 1 + below(96), 250 + below(12)});
      p.value_dim = below(3) > 0 ? p.head_dim : 1 + below(96);
      p.causal = below(2) == 0;
      list.push_back(p);
    }
    return list;
  }

  static Tensor<float> multiples(const Tensor<float>& t) {
    return tabulate<float>(t.shape(),
                           [&](index_t b, index_t h, index_t i, index_t d) { return std::round(t(b, h, i, d) * 64) / 64; });
  }

  static ParameterSet<float> copy_of(const ParameterSet<float>& parameters) {
    ParameterSet<float> copy;
    for (const auto& [name, tensor] : parameters.all())
      copy.set(name, Tensor<float>(Array<float>(tensor.shape(), tensor.values())));
    return copy;
  }

  bool linear_in_v(const Problem& p) const {
    const Case c(p);
    const ParameterSet<double> parameters = widen(make_parameters(variant_.parameters(p), parameter_seed));
    Inputs<double> in{Tensor<double>::from(c.q), Tensor<double>::from(c.k), Tensor<double>::from(c.v), {}};
    for (index_t row = 0; row < p.q_len; ++row) in.position.push_back(p.query_position(row));
    const Tensor<double> v = in.v, w = flip(v, 2);
    const auto of = [&](const Tensor<double>& values) {
      in.v = values;
      return variant_.definition(p, in, parameters);
    };
    const Tensor<double> together = of(v * 3.0 - w * 2.0), apart = of(v) * 3.0 - of(w) * 2.0;
    double largest = 0, difference = 0;
    for (index_t i = 0; i < together.size(); ++i) {
      largest = std::max(largest, std::abs(together.data()[i]));
      difference = std::max(difference, std::abs(together.data()[i] - apart.data()[i]));
    }
    return difference <= 1e-9 * largest;
  }

  // Against the definition at inputs of this case, wherever the definition in float is finite. Rounding a logit of 300 moves
  // its weight by some 1e-5, and the definition in float is one draw of that, of six binary orders: hence the thousandth of
  // the largest output. Below the smallest normal number nothing is asked but that it is finite.
  void compare_where_defined(const Problem& p, const Case& c, const Planned& planned, const std::string& words) {
    const Reference truth = evaluate_definition(variant_, p, c.inputs(), planned.parameters);
    double largest = 0;
    for (const double x : truth.exact.values()) largest = std::isfinite(x) ? std::max(largest, std::abs(x)) : largest;
    const double allowed = std::max(compare_with_reference(truth, c.out).allowance_abs, 1e-3 * largest) + FLT_MIN;
    const std::vector<float> out = c.output();
    for (std::size_t i = 0; i < out.size(); ++i) {
      const double exact = truth.exact.data()[i];
      if (!std::isfinite(truth.rounded.data()[i]) || !std::isfinite(exact)) continue;
      const double error = std::abs(out[i] - exact);
      if (!(error <= allowed)) return fail(p, words + ": " + brief(out[i]) + " instead of " + brief(exact));
    }
  }

  // V of NaN: every output that V has a part in is NaN. V of ones tells which those are.
  void nan_shows(const Problem& p, const Arena& arena) {
    begin(p, "V of NaN");
    const Case c(p);
    Planned planned(variant_, p, options_.threads);
    for_each_element(c.v, 0, 0, 0, [](float& x) { x = 1; });
    const std::vector<float> weight = output_of_run(planned, arena, c);
    for_each_element(c.v, 0, 0, 0, [](float& x) { x = nan; });
    const std::vector<float> out = output_of_run(planned, arena, c);
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (std::abs(weight[i]) > 1e-3f && !std::isnan(out[i])) return fail(p, "NaN in V is answered by " + brief(out[i]));
    }
  }

  // All workers of the arena exist from here on.
  void start_threads(const Arena& arena) const {
    arena.execute([&] { parallel_tasks(options_.threads, [](index_t, int) {}); });
  }

  const Variant& variant_;
  ConformanceOptions options_;
  Finding finding_;
  std::map<std::string, Reference> references_;
};

struct Entry {
  Property property;
  void (Checker::*check)();
};

const std::vector<Entry>& entries() {
  static const std::vector<Entry> list = {
      {{"agreement", "the fast path agrees with the definition, whatever shape and strides"}, &Checker::agreement},
      {{"output", "every output element is written, none is read"}, &Checker::output},
      {{"bounds", "nothing outside the arrays is touched, inputs and parameters are not written"}, &Checker::bounds},
      {{"repeat", "a second run, and a second plan, give the same bits"}, &Checker::repeat},
      {{"threads", "one thread and several agree"}, &Checker::threads},
      {{"scratch", "scratch memory is written before it is read"}, &Checker::scratch},
      {{"allocations", "run allocates nothing"}, &Checker::allocations},
      {{"arena", "no thread outside the arena, no process"}, &Checker::arena},
      {{"causality", "causal outputs do not depend on later rows"}, &Checker::causality},
      {{"heads", "heads and batch items do not mix"}, &Checker::heads},
      {{"linearity", "outputs are linear in V where the definition is"}, &Checker::linearity},
      {{"supports", "a problem that is not refused is planned, run and right"}, &Checker::supports},
      {{"gradient", "the definition's gradient agrees with central differences"}, &Checker::gradient},
      {{"backward", "the backward pass agrees with the definition's gradient"}, &Checker::backward},
      {{"values", "zeros, denormals, large logits, NaN and infinity do what the definition says"}, &Checker::values},
      {{"cost", "time grows with N as the declared cost does", true}, &Checker::cost},
  };
  return list;
}

Finding Checker::check(const Property& property) {
  finding_ = {.property = property.id};
  try {
    for (const Entry& entry : entries()) {
      if (entry.property.id == property.id) (this->*entry.check)();
    }
  } catch (const std::exception& e) {
    if (finding_.failure.empty()) finding_.failure = variant_.name() + ": exception: " + e.what();
  }
  if (finding_.cases == 0 && finding_.none.empty()) finding_.none = "supports no such problem";
  return finding_;
}

}  // namespace

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
    if (!property.timed) findings.push_back(checker.check(property));
  }
  return findings;
}

}  // namespace attn
