// Type erasure of a variant's page (variant.hpp) and the line that ends it. Included by registry.hpp.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "attn/core/sanitizer.hpp"
#include "attn/variant/door.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

struct NoOptions {};

inline constexpr std::array floats_only = {DType::f32};

namespace erase {

template <class V>
struct OptionsOf {
  using type = NoOptions;
  static const OptionTable<NoOptions>& table() {
    static const OptionTable<NoOptions> none;
    return none;
  }
};

template <class V>
requires requires { typename V::Options; }
struct OptionsOf<V> {
  using type = typename V::Options;
  static const OptionTable<type>& table() {
    static const OptionTable<type> declared = V::options();
    return declared;
  }
};

// A page whose run takes FloatArrays reads or writes elements itself, as floats.
template <class V>
concept ReadsFloats = requires(const V v, const FloatArrays arrays, const ParameterSet<float> parameters, Workspace workspace) {
  v.run(arrays, parameters, workspace);
};
template <class V>
using ArraysOf = std::conditional_t<ReadsFloats<V>, FloatArrays, const Arrays&>;
template <class V>
using GradientsOf = std::conditional_t<ReadsFloats<V>, FloatGradients, const Gradients&>;

template <class V>
concept HasBackward = requires(const V v, ArraysOf<V> arrays, const ParameterSet<float> parameters, GradientsOf<V> gradients,
                               Workspace workspace) {
  v.backward(arrays, parameters, gradients, workspace);
};

template <class V>
concept HasSteps = requires(const V v, ArraysOf<V> arrays, const ParameterSet<float> parameters, State state, Workspace workspace) {
  v.absorb(arrays, parameters, state, workspace);
  v.answer(arrays, parameters, state, workspace);
};
template <class V>
concept HasFusedStep = requires(const V v, ArraysOf<V> arrays, const ParameterSet<float> parameters, State state,
                                Workspace workspace) {
  v.step(arrays, parameters, state, workspace);
};
template <class V>
concept HasMerge = requires(const V v, State into, const State later) {
  v.merge(into, later);
};

// Whether its run reads Arrays::lengths and Arrays::layout: the engine says it that the page names and hands its arrays to.
template <class V>
constexpr bool reads_layouts() {
  if constexpr (requires { V::Engine::reads_layouts; }) {
    static_assert(!ReadsFloats<V>);
    return V::Engine::reads_layouts;
  } else {
    return false;
  }
}

// Whether its definition and its run add a mask to the logits: a page, or an implementation, says it.
template <class V>
constexpr bool takes_mask() {
  if constexpr (requires { V::takes_mask; }) {
    return V::takes_mask;
  } else {
    return false;
  }
}

// What its run takes without a Door: of an engine that it names and hands its arrays to, what that takes, unless the page says that it
// takes less (`dtypes`).
template <class V>
TakenTypes taken_types() {
  if constexpr (requires { V::dtypes; }) {
    return {V::dtypes, V::dtypes};
  } else if constexpr (requires { V::Engine::dtypes; }) {
    return {V::Engine::dtypes, V::Engine::kv_dtypes};
  } else {
    return {floats_only, floats_only};
  }
}

// What a page and a further implementation may both say of their fast path. Options: the page's struct, or OptionValues.
template <class V, class Options>
Status supports(const Problem& p, const Options& options) {
  if (p.page_rows > 0 && Door::inside(p, taken_types<V>(), HasSteps<V>) != p) return refuse("reads keys from pages in f32 only");
  if constexpr (requires { V::supports(p, options); }) {
    return V::supports(p, options);
  } else {
    return {};
  }
}
template <class V, class Options>
Status supports_backward(const Problem& p, const Options& options) {
  if constexpr (!HasBackward<V>) {
    return refuse("has no backward pass of its own");
  } else if constexpr (requires { V::supports_backward(p, options); }) {
    return V::supports_backward(p, options);
  } else {
    return {};
  }
}
template <class V, class Options>
std::string note(const Problem& p, const Options& options, const Arrays& arrays) {
  if constexpr (requires { V::note(p, options, FloatArrays(arrays)); }) {
    return V::note(p, options, AsFloats(arrays).views());
  } else {
    return {};
  }
}
template <class V>
kernels::Compute compute(const Problem& p) {
  if constexpr (requires { V::Engine::compute(p); }) {
    return V::Engine::compute(Door::inside(p, taken_types<V>(), HasSteps<V>));
  } else {
    return kernels::Compute::f32;
  }
}

template <class V, class Options>
class PlanOf final : public Plan {
 public:
  // `reads`: what of q, k and v.
  PlanOf(const Problem& p, const Options& o, Reads reads, WorkspacePlan& w)
      : door_(p, taken_types<V>(), reads == Reads::qkv, reads != Reads::x, HasSteps<V>, w), variant_(door_.inside(), o, w) {}
  void run(const Arrays& arrays, const ParameterSet<float>& parameters, Workspace& workspace) const override {
    ATTN_ASSERT(reads_layouts<V>() || (arrays.lengths.empty() && arrays.layout.plain()));
    through_door(arrays, workspace, [&](const Arrays& a) { variant_.run(ArraysOf<V>(a), parameters, workspace); });
  }
  void backward(const Arrays& arrays, const ParameterSet<float>& parameters, const Gradients& gradients,
                Workspace& workspace) const override {
    if constexpr (HasBackward<V>) {
      const Arrays inside = door_.copies() ? door_.as_widened(arrays, workspace) : arrays;
      variant_.backward(ArraysOf<V>(inside), parameters, GradientsOf<V>(gradients), workspace);
    } else {
      ATTN_ASSERT(false && "supports_backward() refuses");
    }
  }
  void absorb(const Arrays& tokens, const ParameterSet<float>& parameters, State& state, Workspace& workspace) const override {
    if constexpr (HasSteps<V>) {
      if (!door_.copies()) return absorb_some(tokens, parameters, state, workspace);
      for_each_part(tokens, Door::most_at_once,
                    [&](const Arrays& some) { absorb_some(door_.widened(some, workspace), parameters, state, workspace); });
    } else {
      state.append(tokens);
    }
  }
  void answer(const Arrays& queries, const ParameterSet<float>& parameters, const State& state,
              Workspace& workspace) const override {
    if constexpr (HasSteps<V>) {
      through_door(queries, workspace, [&](const Arrays& a) { variant_.answer(ArraysOf<V>(a), parameters, state, workspace); });
    } else {
      Arrays all = state.asked_by(queries);
      if constexpr (!reads_layouts<V>()) {
        all.lengths = {};
        if (state.find("k") != nullptr) all.k = all.k.first(2, state.length());
        if (state.find("v") != nullptr) all.v = all.v.first(2, state.length());
      }
      run(all, parameters, workspace);
    }
  }
  void step(const Arrays& token, const ParameterSet<float>& parameters, State& state, Workspace& workspace) const override {
    if constexpr (HasFusedStep<V>) {
      ATTN_ASSERT(tokens_in(token) == 1);
      through_door(token, workspace, [&](const Arrays& a) { variant_.step(ArraysOf<V>(a), parameters, state, workspace); });
      state.advance(1);
    } else {
      Plan::step(token, parameters, state, workspace);
    }
  }
  void merge(State& into, const State& later) const override {
    if constexpr (HasMerge<V>) {
      ATTN_ASSERT(into.end() == later.end() - later.length());
      variant_.merge(into, later);
      into.advance(later.length());
    } else {
      Plan::merge(into, later);
    }
  }

 private:
  void absorb_some(const Arrays& tokens, const ParameterSet<float>& parameters, State& state, Workspace& workspace) const {
    if constexpr (HasSteps<V>) variant_.absorb(ArraysOf<V>(tokens), parameters, state, workspace);
    state.advance(tokens_in(tokens));
  }

  template <class F>
  void through_door(const Arrays& given, const Workspace& workspace, F f) const {
    if (door_.copies()) {
      f(door_.widened(given, workspace));
    } else {
      f(given);
    }
  }

  Door door_;
  V variant_;
};

template <class I>
class ImplementationOf final : public Implementation {
 public:
  ImplementationOf(const std::string& variant, const std::string& own) {
    id = variant;
    name = own;
    info = I::info();
  }
  Status supports(const Problem& p, const OptionValues& o) const override { return erase::supports<I>(p, o); }
  Status supports_backward(const Problem& p, const OptionValues& o) const override { return erase::supports_backward<I>(p, o); }
  std::unique_ptr<Plan> plan(const Problem& p, const OptionValues& o, WorkspacePlan& w) const override {
    return std::make_unique<PlanOf<I, OptionValues>>(p, o, Reads::qkv, w);
  }
  std::span<const DType> dtypes() const override { return stored_dtypes; }
  kernels::Compute compute(const Problem& p) const override { return erase::compute<I>(p); }
  bool reads_layouts() const override { return erase::reads_layouts<I>(); }
  bool takes_mask() const override { return erase::takes_mask<I>(); }
  bool steps() const override { return HasSteps<I>; }
  bool merges() const override { return HasMerge<I>; }
  std::string note(const Problem& p, const OptionValues& o, const Arrays& arrays) const override {
    return erase::note<I>(p, o, arrays);
  }
};

// The page, computed by `implementation` or, where that is null, by itself.
template <class V>
class VariantOf final : public Variant {
 public:
  using Options = typename OptionsOf<V>::type;
  VariantOf(VariantName name, std::string short_name, VariantInfo info, Options options, ImplementationPtr implementation)
      : Variant(std::move(name), std::move(short_name)),
        info_(std::move(info)),
        options_(std::move(options)),
        implementation_(std::move(implementation)) {}

  const VariantInfo& info() const override { return info_; }

  Parameters parameters(const Problem& p) const override {
    if constexpr (requires { V::parameters(p, options_); }) {
      return V::parameters(p, options_);
    } else {
      return {};
    }
  }
  std::vector<InputSpec> inputs(const Problem& p) const override {
    std::vector<InputSpec> list;
    if constexpr (requires { V::inputs(p, options_); }) list = V::inputs(p, options_);
    if (p.mask.given()) list.push_back(mask_input(p));
    return list;
  }
  Status supports_backward(const Problem& p) const override {
    if (implementation_) return implementation_->supports_backward(p, name().options);
    return erase::supports_backward<V>(p, options_);
  }
  StateSpec state(const Problem& p) const override {
    Problem kept = p;
    if (steps()) kept.dtype = kept.kv_dtype = DType::f32;  // what tokens are folded into
    if constexpr (requires { V::state(kept, options_); }) {
      return V::state(kept, options_);
    } else {
      return kept_tokens(kept, info_.reads, p.kv_len);
    }
  }
  bool steps() const override { return implementation_ ? implementation_->steps() : HasSteps<V>; }
  bool merges() const override { return implementation_ ? implementation_->merges() : HasMerge<V>; }
  bool is_guest() const override { return implementation_ && implementation_->is_guest(); }
  std::unique_ptr<Plan> plan(const Problem& p, WorkspacePlan& w) const override {
    if (implementation_) return implementation_->plan(p, name().options, w);
    return std::make_unique<PlanOf<V, Options>>(p, options_, info_.reads, w);
  }
  Tensor<double> definition(const Problem& p, const Values<double>& in, const ParameterSet<double>& parameters) const override {
    return V::definition(p, options_, in, parameters);
  }
  Tensor<float> definition(const Problem& p, const Values<float>& in, const ParameterSet<float>& parameters) const override {
    return V::definition(p, options_, in, parameters);
  }
  std::span<const DType> dtypes() const override { return implementation_ ? implementation_->dtypes() : stored_dtypes; }
  kernels::Compute compute(const Problem& p) const override {
    return implementation_ ? implementation_->compute(p) : erase::compute<V>(p);
  }
  bool reads_layouts() const override { return implementation_ ? implementation_->reads_layouts() : erase::reads_layouts<V>(); }
  bool takes_mask() const override { return erase::takes_mask<V>() && (!implementation_ || implementation_->takes_mask()); }
  std::string note(const Problem& p, const Arrays& arrays) const override {
    if (implementation_) return implementation_->note(p, name().options, arrays);
    return erase::note<V>(p, options_, arrays);
  }

 protected:
  Cost page_cost(const Problem& p) const override { return V::cost(p, options_); }
  Cost backward_cost(const Problem& p) const override {
    if constexpr (requires { V::backward_cost(p, options_); }) {
      return V::backward_cost(p, options_);
    } else {
      return softmax_backward_cost(V::cost(p, options_));
    }
  }
  Status supports_options(const Problem& p) const override {
    if (Status status = erase::supports<V>(p, options_); !status || !implementation_) return status;
    return implementation_->supports(p, name().options);
  }

 private:
  VariantInfo info_;
  Options options_;
  ImplementationPtr implementation_;
};

template <class V>
class TypeOf final : public VariantType {
 public:
  TypeOf(const std::string& name, const std::string& folder) {
    id = name;
    family = folder;
    info = V::info();
    options = OptionsOf<V>::table().docs();
  }
  Result<std::unique_ptr<Variant>> configure(const OptionValues& given, ImplementationPtr implementation) const override {
    auto parsed = OptionsOf<V>::table().parse(given);
    if (!parsed) return refuse(id + ": " + parsed.reason());
    VariantName name{id, implementation ? implementation->name : std::string(native), OptionsOf<V>::table().print(*parsed)};
    VariantInfo own = info;
    if constexpr (requires { V::time_exponent(*parsed); }) own.time_exponent = V::time_exponent(*parsed);
    std::string short_name = VariantName{id, name.implementation, without_defaults(name.options, options)}.text();
    return std::unique_ptr<Variant>(std::make_unique<VariantOf<V>>(std::move(name), std::move(short_name), std::move(own),
                                                                   *std::move(parsed), std::move(implementation)));
  }
};

}  // namespace erase

// What a plugin's shared library exports under the C name attn_plugin.
struct PluginEntry {
  std::uint32_t abi_version;
  const char* build_tag;
  const char* id;  // of a variant, or id@implementation of a further implementation of one
  const char* family;
  void (*enter)(Registry&, const std::string& family);
};

// Grows when anything in the headers that a variant's page sees changes its layout or meaning.
inline constexpr std::uint32_t abi_version = 8;

// Pages and harness exchange C++ objects, so they must come from the same release and compiler.
const char* build_tag();

}  // namespace attn

#define ATTN_STRING_(x) #x
#define ATTN_STRING(x) ATTN_STRING_(x)
#if defined(__clang__)
#define ATTN_COMPILER "clang-" ATTN_STRING(__clang_major__)
#else
#define ATTN_COMPILER "gcc-" ATTN_STRING(__GNUC__)
#endif
#define ATTN_BUILD_TAG "attnbench-" ATTN_VERSION "-" ATTN_COMPILER ATTN_SANITIZER

#ifdef ATTN_PLUGIN
#ifndef ATTN_FAMILY
#define ATTN_FAMILY "plugin"
#endif
#define ATTN_PLUGIN_ENTRY(name, enter)              \
  extern "C" __attribute__((visibility("default"))) \
  const PluginEntry attn_plugin{abi_version, ATTN_BUILD_TAG, name, ATTN_FAMILY, enter};
#else
#define ATTN_PLUGIN_ENTRY(name, enter)
#endif

// Last line of a page, inside namespace attn. The family is the folder's name, which the build passes on.
#define ATTN_VARIANT(id, Type)                                        \
  void register_##id(Registry& registry, const std::string& family);  \
  void register_##id(Registry& registry, const std::string& family) { \
    registry.add(std::make_unique<erase::TypeOf<Type>>(#id, family)); \
  }                                                                   \
  ATTN_PLUGIN_ENTRY(#id, register_##id)

// Likewise of a file id@implementation.cpp.
#define ATTN_IMPLEMENTATION(id, implementation, Type)                                          \
  void register_##id##_at_##implementation(Registry& registry, const std::string&);            \
  void register_##id##_at_##implementation(Registry& registry, const std::string&) {           \
    registry.add(std::make_shared<const erase::ImplementationOf<Type>>(#id, #implementation)); \
  }                                                                                            \
  ATTN_PLUGIN_ENTRY(#id "@" #implementation, register_##id##_at_##implementation)
