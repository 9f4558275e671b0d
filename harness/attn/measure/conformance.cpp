#include "attn/measure/conformance.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <span>

#include "attn/core/rng.hpp"
#include "attn/measure/gate.hpp"
#include "attn/measure/gradient_check.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

namespace {

// Floats that end at a page nobody may touch, and begin behind another.
class GuardedFloats {
 public:
  explicit GuardedFloats(index_t count) : count_(static_cast<std::size_t>(count)) {
    page_ = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    inner_ = (count_ * sizeof(float) + page_ - 1) / page_ * page_;
    void* memory = ::mmap(nullptr, inner_ + 2 * page_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<std::byte*>(memory);
    ::mprotect(base_ + page_, inner_, PROT_READ | PROT_WRITE);
  }
  GuardedFloats(const GuardedFloats&) = delete;
  GuardedFloats& operator=(const GuardedFloats&) = delete;
  ~GuardedFloats() { ::munmap(base_, inner_ + 2 * page_); }

  float* data() const { return reinterpret_cast<float*>(base_ + page_ + inner_) - count_; }
  std::span<float> values() const { return {data(), count_}; }
  void make_read_only() const { ::mprotect(base_ + page_, inner_, PROT_READ); }
  void make_writable() const { ::mprotect(base_ + page_, inner_, PROT_READ | PROT_WRITE); }

 private:
  std::size_t count_, page_ = 0, inner_ = 0;
  std::byte* base_ = nullptr;
};

enum class Layout { dense, interleaved };  // interleaved: memory is [B,N,H,D], as frameworks project it

View<float, 4> view_of(const GuardedFloats& memory, index_t b, index_t h, index_t n, index_t d, Layout layout) {
  if (layout == Layout::dense) return {memory.data(), {b, h, n, d}};
  return {memory.data(), {b, h, n, d}, {n * h * d, d, h * d, 1}};
}

void fill_normal(const GuardedFloats& memory, const Rng& stream) {
  for (std::size_t i = 0; i < memory.values().size(); ++i)
    memory.data()[i] = static_cast<float>(stream.normal(static_cast<index_t>(i)));
}

void fill_nan(const GuardedFloats& memory) {
  std::fill(memory.values().begin(), memory.values().end(), std::numeric_limits<float>::quiet_NaN());
}

bool has_nan(std::span<const float> values) {
  return std::any_of(values.begin(), values.end(), [](float x) { return std::isnan(x); });
}

// Tensors of one problem, filled from a seed.
struct Case {
  Problem p;
  GuardedFloats q_memory, k_memory, v_memory, out_memory;
  View<float, 4> q, k, v, out;

  Case(const Problem& problem, Layout layout)
      : p(problem),
        q_memory(p.batch * p.heads * p.q_len * p.head_dim),
        k_memory(p.batch * p.kv_heads * p.kv_len * p.head_dim),
        v_memory(p.batch * p.kv_heads * p.kv_len * p.value_dim),
        out_memory(p.batch * p.heads * p.q_len * p.value_dim),
        q(view_of(q_memory, p.batch, p.heads, p.q_len, p.head_dim, layout)),
        k(view_of(k_memory, p.batch, p.kv_heads, p.kv_len, p.head_dim, layout)),
        v(view_of(v_memory, p.batch, p.kv_heads, p.kv_len, p.value_dim, layout)),
        out(view_of(out_memory, p.batch, p.heads, p.q_len, p.value_dim, layout)) {
    const Rng rng(7, "conformance " + to_string(p));
    for (const auto* memory : {&q_memory, &k_memory, &v_memory}) {
      fill_normal(*memory, rng.substream(static_cast<std::uint64_t>(memory - &q_memory)));
    }
  }
  FloatInputs inputs() const { return {q, k, v}; }
};

constexpr std::uint64_t parameter_seed = 11;

// A variant planned for a problem, with parameters and a checked workspace.
struct Planned {
  ParameterSet<float> parameters;
  WorkspacePlan booked;
  std::unique_ptr<Plan> plan;
  Workspace workspace;

  Planned(const Variant& variant, const Problem& p, int threads, Purpose purpose = Purpose::inference)
      : parameters(make_parameters(variant.parameters(p), parameter_seed)),
        booked(threads, purpose),
        plan(variant.plan(p, booked)),
        workspace(booked, Workspace::Mode::checked) {}

  void run(const Arena& arena, const Case& c) {
    fill_nan(c.out_memory);
    arena.execute([&] { plan->run(c.inputs(), parameters, c.out, workspace); });
  }
};

// What a backward pass reads and writes besides.
struct BackwardCase {
  GuardedFloats d_out_memory, d_q_memory, d_k_memory, d_v_memory;
  ParameterGradients d_parameters;
  BackwardArrays arrays;

  BackwardCase(const Case& c, const Parameters& specs, Layout layout)
      : d_out_memory(c.out.size()),
        d_q_memory(c.q.size()),
        d_k_memory(c.k.size()),
        d_v_memory(c.v.size()),
        d_parameters(specs),
        arrays{c.out,
               like(c.out, d_out_memory, layout),
               like(c.q, d_q_memory, layout),
               like(c.k, d_k_memory, layout),
               like(c.v, d_v_memory, layout),
               d_parameters} {
    fill_normal(d_out_memory, Rng(7, "gradient of the output"));
    d_out_memory.make_read_only();
    for (const auto* memory : {&d_q_memory, &d_k_memory, &d_v_memory}) fill_nan(*memory);
  }
  static View<float, 4> like(const View<float, 4>& x, const GuardedFloats& memory, Layout layout) {
    return view_of(memory, x.extent(0), x.extent(1), x.extent(2), x.extent(3), layout);
  }

  // Of q, k, v and the trainable parameters, in the order of DefinitionFunction.
  std::vector<Tensor<float>> gradients(const Parameters& specs) const {
    std::vector<Tensor<float>> list;
    for (const auto& view : {arrays.d_q, arrays.d_k, arrays.d_v}) list.push_back(Tensor<float>::from(view));
    for (const auto& spec : specs) {
      if (spec.trainable) list.push_back(Tensor<float>(spec.shape, d_parameters[spec.name].values()));
    }
    return list;
  }
};

std::vector<float> copy_of(const Case& c) { return {c.out_memory.values().begin(), c.out_memory.values().end()}; }

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

class Checker {
 public:
  Checker(const Variant& variant, const ConformanceOptions& options)
      : variant_(variant), options_(options), arena_(options.threads), one_thread_(1) {}

  std::vector<Property> check() {
    for (const Problem& p : awkward_problems(options_.thorough)) {
      if (!variant_.supports(p)) continue;
      check_runs(p);
      if (p.causal) check_causality(p);
      if (p.batch * p.heads > 1) check_independence(p);
      if (variant_.supports_backward(p)) check_backward(p);
    }
    if (options_.gradient) {
      for (const Problem& p : gradient_problems(options_.thorough)) {
        if (variant_.supports(p)) check_gradient(p);
      }
    }
    return {agreement_, written_, repeatable_, threads_, gaps_, no_allocation_, causality_, independence_, gradient_, backward_};
  }

 private:
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

  void check_gradient(const Problem& p) {
    ++gradient_.cases;
    if (const std::string failure = compare_tape_with_differences(variant_, p); !failure.empty()) fail(gradient_, p, failure);
  }

  // Against the tape in double; the same bits twice, nothing allocated, every element written.
  void check_backward(const Problem& p) {
    const Parameters specs = variant_.parameters(p);
    for (const auto& [layout, arena] : {std::pair{Layout::dense, &arena_}, {Layout::interleaved, &one_thread_}}) {
      const Case c(p, layout);
      for (const auto* memory : {&c.q_memory, &c.k_memory, &c.v_memory}) memory->make_read_only();
      Planned planned(variant_, p, arena->threads(), Purpose::training);
      planned.run(*arena, c);
      judge(agreement_, c, gate(c, planned), "planned for training, ");
      c.out_memory.make_read_only();
      const BackwardCase back(c, specs, layout);
      const auto run = [&] { planned.plan->backward(c.inputs(), planned.parameters, back.arrays, planned.workspace); };
      arena->execute(run);
      const std::vector<Tensor<float>> first = back.gradients(specs);
      compare_with_tape(c, planned, back, first);

      const index_t before = options_.allocations != nullptr ? options_.allocations() : 0;
      arena->execute(run);
      if (options_.allocations != nullptr && options_.allocations() != before) fail(no_allocation_, p, "allocations in backward");
      const std::vector<Tensor<float>> second = back.gradients(specs);
      for (std::size_t i = 0; i < first.size(); ++i) {
        if (!same_bits(first[i].values(), second[i].values())) fail(repeatable_, p, "a second backward pass gave other bits");
      }
      if (!planned.workspace.gaps_intact()) fail(gaps_, p, "a booked array was overrun in backward");
    }
  }

  void compare_with_tape(const Case& c, const Planned& planned, const BackwardCase& back, const std::vector<Tensor<float>>& given) {
    const auto errors = compare_backward_with_tape(variant_, c.p, c.inputs(), planned.parameters, back.arrays);
    for (std::size_t i = 0; i < errors.size(); ++i) {
      const auto& [argument, error, size, allowed] = errors[i];
      ++backward_.cases;
      if (has_nan(given[i].values())) fail(written_, c.p, "NaN in the gradient of " + argument);
      if (!(error <= allowed)) {
        fail(backward_, c.p, "the gradient of " + argument + " is off by " + format_number(error) + " of " + format_number(size));
      }
    }
  }

  void fail(Property& property, const Problem& p, const std::string& how) {
    if (property.failure.empty()) property.failure = variant_.name() + " at " + to_string(p) + ": " + how;
  }

  GateResult gate(const Case& c, const Planned& planned) const {
    return check_against_definition(variant_, c.p, c.inputs(), planned.parameters, parameter_seed, c.out, arena_);
  }

  void judge(Property& property, const Case& c, const GateResult& result, const std::string& with) {
    ++property.cases;
    if (!passed(result)) {
      fail(property, c.p, with + "error " + format_number(result.max_abs) + ", allowed " + format_number(result.allowance_abs));
    }
  }

  void check_runs(const Problem& p) {
    for (const Layout layout : {Layout::dense, Layout::interleaved}) {
      const Case c(p, layout);
      c.q_memory.make_read_only();
      c.k_memory.make_read_only();
      c.v_memory.make_read_only();
      Planned planned(variant_, p, options_.threads);
      planned.run(arena_, c);
      const std::vector<float> first = copy_of(c);
      ++written_.cases;
      if (has_nan(first)) fail(written_, p, "NaN in the output");
      judge(agreement_, c, gate(c, planned), layout == Layout::dense ? "" : "[B,N,H,D] in memory, ");

      const index_t before = options_.allocations != nullptr ? options_.allocations() : 0;
      arena_.execute([&] { planned.plan->run(c.inputs(), planned.parameters, c.out, planned.workspace); });
      if (options_.allocations != nullptr) {
        ++no_allocation_.cases;
        if (const index_t count = options_.allocations() - before; count != 0)
          fail(no_allocation_, p, std::to_string(count) + " allocations");
      }
      ++repeatable_.cases;
      if (!same_bits(first, copy_of(c))) fail(repeatable_, p, "a second run gave other bits");
      ++gaps_.cases;
      if (!planned.workspace.gaps_intact()) fail(gaps_, p, "a booked array was overrun");

      Planned alone(variant_, p, 1);
      alone.run(one_thread_, c);
      judge(threads_, c, gate(c, alone), "one thread, ");
    }
  }

  // Rows from t on change in Q, K and V; outputs before t must keep their bits. Where Q and K of later rows may decide who
  // attends to whom, only V changes: the decision then stands, and V shows every weight that a later row has.
  void check_causality(const Problem& p) {
    const Case c(p, Layout::dense);
    Planned planned(variant_, p, options_.threads);
    planned.run(arena_, c);
    const std::vector<float> before = copy_of(c);
    for (const index_t t : {p.q_len - 1, p.q_len / 2, p.q_len / 3}) {  // from the end: earlier rows are still as they were
      const index_t position = p.query_position(t);
      if (t < 1 || position < 0) continue;
      const auto disturb = [&](const View<float, 4>& tensor, index_t from) {
        for (index_t b = 0; b < tensor.extent(0); ++b)
          for (index_t h = 0; h < tensor.extent(1); ++h)
            for (index_t i = from; i < tensor.extent(2); ++i)
              for (index_t d = 0; d < tensor.extent(3); ++d) tensor(b, h, i, d) = -1.5f * tensor(b, h, i, d) + 0.25f;
      };
      if (!variant_.info().membership_sees_future) {
        disturb(c.q, t);
        disturb(c.k, position);
      }
      disturb(c.v, position);
      planned.run(arena_, c);
      ++causality_.cases;
      const std::vector<float> after = copy_of(c);
      for (index_t head = 0; head < p.batch * p.heads; ++head) {
        const auto rows = [&](const std::vector<float>& all) {
          return std::span(all).subspan(static_cast<std::size_t>(head * p.q_len * p.value_dim),
                                        static_cast<std::size_t>(t * p.value_dim));
        };
        if (!same_bits(rows(before), rows(after)))
          fail(causality_, p, "rows before " + std::to_string(t) + " changed with later ones");
      }
    }
  }

  // The last batch item and kv head group change; outputs of the others must keep their bits.
  void check_independence(const Problem& p) {
    const Case c(p, Layout::dense);
    Planned planned(variant_, p, options_.threads);
    planned.run(arena_, c);
    const std::vector<float> before = copy_of(c);
    const auto disturb = [&](const GuardedFloats& memory, index_t heads) {
      const std::size_t of_last = memory.values().size() / static_cast<std::size_t>(heads);
      for (float& x : memory.values().last(of_last)) x = 0.5f - x;
    };
    const bool by_head = variant_.info().heads_independent;
    const index_t groups = p.batch * (by_head ? p.kv_heads : 1);
    if (groups < 2) return;
    disturb(c.q_memory, groups);
    disturb(c.k_memory, groups);
    disturb(c.v_memory, groups);
    planned.run(arena_, c);
    ++independence_.cases;
    const std::size_t kept = before.size() - before.size() / static_cast<std::size_t>(groups);
    if (!same_bits(std::span(before).first(kept), c.out_memory.values().first(kept)))
      fail(independence_, p, "another head's inputs changed this head's output");
  }

  const Variant& variant_;
  ConformanceOptions options_;
  Arena arena_, one_thread_;
  Property agreement_{"the fast path agrees with the definition", 0, {}};
  Property written_{"every output element is written", 0, {}};
  Property repeatable_{"a second run gives the same bits", 0, {}};
  Property threads_{"one thread agrees with the definition as several do", 0, {}};
  Property gaps_{"booked scratch is not overrun", 0, {}};
  Property no_allocation_{"run allocates nothing", 0, {}};
  Property causality_{"causal outputs do not depend on later rows", 0, {}};
  Property independence_{"heads and batch items do not mix", 0, {}};
  Property gradient_{"the definition's gradient agrees with central differences", 0, {}};
  Property backward_{"the backward pass agrees with the definition's gradient", 0, {}};
};

}  // namespace

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

std::vector<Property> check_conformance(const Variant& variant, const ConformanceOptions& options) {
  return Checker(variant, options).check();
}

}  // namespace attn
