#include "attn/variant/registry.hpp"

#include "attn/variant/variant.hpp"
#include "catch.hpp"

using namespace attn;

namespace {

// V shifted by `by`.
struct Shift {
  struct Options {
    index_t by = 1;
    bool wrap = false;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>().integer("by", &Options::by, 0, 9, "").flag("wrap", &Options::wrap, "");
  }
  static VariantInfo info() { return {.title = "Shift", .in_default_sweep = true}; }
  static Status supports(const Problem& p, const Options& o) { return o.by < p.kv_len ? Status() : refuse("needs more keys"); }
  static Cost cost(const Problem&, const Options& o) { return {.flops = static_cast<double>(o.by)}; }
  template <class T>
  static Tensor<T> definition(const Problem&, const Options&, const Values<T>& in, const ParameterSet<T>&) {
    return in.v;
  }
  Shift(const Problem&, const Options&, WorkspacePlan&) {}
  void run(const FloatArrays& a, const ParameterSet<float>&, Workspace&) const { a.out(0, 0, 0, 0) = -1; }
  void backward(const FloatArrays&, const ParameterSet<float>&, const FloatGradients&, Workspace&) const {}
};

// Writes what it was told.
struct Elsewhere {
  static ImplementationInfo info() { return {.title = "elsewhere", .in_default_sweep = true, .formerly = "old_shift"}; }
  static Status supports(const Problem& p, const OptionValues& o) {
    return o.flag("wrap") && p.causal ? refuse("wraps no causal problem") : Status();
  }
  static std::string note(const Problem&, const OptionValues& o, const FloatArrays&) { return "by " + o["by"]; }
  Elsewhere(const Problem&, const OptionValues& o, WorkspacePlan&) : by_(o.integer("by")) {}
  void run(const FloatArrays& a, const ParameterSet<float>&, Workspace&) const {
    a.out(0, 0, 0, 0) = static_cast<float>(by_);
  }

 private:
  index_t by_;
};
struct Faster : Elsewhere {
  using Elsewhere::Elsewhere;
  static ImplementationInfo info() { return {.title = "faster"}; }
};

const Registry& registry() {
  static const Registry whole = [] {
    Registry r;
    r.add(std::make_shared<const erase::ImplementationOf<Elsewhere>>("shift", "elsewhere"));  // before its variant
    r.add(std::make_unique<erase::TypeOf<Shift>>("shift", "moves"));
    r.add(std::make_unique<erase::TypeOf<Shift>>("shift_more", "moves"));
    r.add(std::make_shared<const erase::ImplementationOf<Faster>>("shift_more", "faster"));
    return r;
  }();
  return whole;
}

std::vector<std::string> short_names(const char* list) {
  const auto variants = registry().configure_list(list);
  if (!variants) return {variants.reason()};
  std::vector<std::string> names;
  for (const auto& variant : *variants) names.push_back(variant->short_name());
  return names;
}

using Names = std::vector<std::string>;

Problem problem(index_t n, bool causal = false) {
  return {.q_len = n, .kv_len = n, .head_dim = 1, .value_dim = 1, .causal = causal};
}

float first_output(const Variant& variant) {
  const Problem p = problem(9);
  WorkspacePlan booked(1);
  const auto plan = variant.plan(p, booked);
  Workspace workspace(booked);
  float out = 0;
  Arrays arrays;
  arrays.out = View<float, 4>(&out, {1, 1, 1, 1});
  plan->run(arrays, {}, workspace);
  return out;
}

}  // namespace

TEST_CASE("a configured variant's name has every option, its short name those that are not the default") {
  const auto usual = registry().configure("shift"), chosen = registry().configure("shift@elsewhere:by=2");
  REQUIRE((usual && chosen));
  CHECK((*usual)->name().text() == "shift:by=1,wrap=no");
  CHECK((*usual)->short_name() == "shift");
  CHECK((*chosen)->name().text() == "shift@elsewhere:by=2,wrap=no");
  CHECK((*chosen)->short_name() == "shift@elsewhere:by=2");
  for (const auto& variant : {&*usual, &*chosen}) {
    const auto again = registry().configure((*variant)->name().text());
    REQUIRE(again);
    CHECK((*again)->name() == (*variant)->name());
    CHECK(registry().short_text((*variant)->name()) == (*variant)->short_name());
  }
  CHECK(registry().short_text({.id = "unknown", .options = {{{"by", "1"}}}}) == "unknown:by=1");
}

TEST_CASE("an implementation computes, and the page says what") {
  const auto page = *registry().configure("shift:by=3"), other = *registry().configure("shift@elsewhere:by=3");
  CHECK(first_output(*page) == -1);
  CHECK(first_output(*other) == 3);
  CHECK(other->cost(problem(9)).flops == 3);
  CHECK(other->info().title == "Shift");
  CHECK(page->note(problem(9), {}).empty());
  CHECK(other->note(problem(9), {}) == "by 3");
  CHECK(page->supports_backward(problem(9)));
  CHECK_FALSE(other->supports_backward(problem(9)));
}

TEST_CASE("an implementation takes what its variant and itself take") {
  const auto other = *registry().configure("shift@elsewhere:by=3,wrap=yes");
  CHECK(other->supports(problem(9)));
  CHECK(other->supports(problem(3)).reason().find("shift@elsewhere needs more keys") == 0);
  CHECK(other->supports(problem(9, true)).reason().find("shift@elsewhere wraps no causal problem") == 0);
  CHECK((*registry().configure("shift:by=3,wrap=yes"))->supports(problem(9, true)));
}

TEST_CASE("variants and implementations that nobody registered are refused with what there is") {
  const auto reason = [](const char* name) { return registry().configure(name).reason(); };
  CHECK(reason("shft").find("unknown variant 'shft', did you mean 'shift'?") == 0);
  CHECK(reason("shift@elsewher") ==
        "shift has no implementation 'elsewher', did you mean 'elsewhere'?; accepted: native, elsewhere");
  CHECK(reason("shift@faster").find("accepted: native, elsewhere") != std::string::npos);
  CHECK(reason("shift:bye=1").find("shift: unknown option 'bye', did you mean 'by'?") == 0);
}

TEST_CASE("words and patterns stand for native implementations, unless '@' asks for others") {
  CHECK(short_names("all") == Names{"shift", "shift_more"});
  CHECK(short_names("moves") == Names{"shift", "shift_more"});
  CHECK(short_names("moves/") == Names{"shift", "shift_more"});
  CHECK(short_names("*") == Names{"shift", "shift_more"});
  CHECK(short_names("shift@*") == Names{"shift", "shift@elsewhere"});
  CHECK(short_names("*@*") == Names{"shift", "shift@elsewhere", "shift_more", "shift_more@faster"});
  CHECK(short_names("*@faster") == Names{"shift_more@faster"});
  CHECK(short_names("shift@*:by=2,wrap=yes") == Names{"shift:by=2,wrap=yes", "shift@elsewhere:by=2,wrap=yes"});
  CHECK(short_names("shift,shift:by=1,shift@native") == Names{"shift"});
}

TEST_CASE("the default is what pages and implementations say of themselves") {
  CHECK(short_names("default") == Names{"shift", "shift@elsewhere", "shift_more"});
  CHECK(short_names("shift_more,default") == Names{"shift_more", "shift", "shift@elsewhere"});
}

TEST_CASE("an id of before means the implementation that it became, and says so") {
  CHECK(short_names("old_shift:by=2") == Names{"shift@elsewhere:by=2"});
  CHECK(registry().renamed("shift_more,old_shift:by=2") == "old_shift is now called shift@elsewhere");
  CHECK(registry().renamed("shift,all,shift@elsewhere").empty());
  CHECK(registry().renamed("left=3").empty());
}
