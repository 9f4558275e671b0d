#include "attn/variant/registry.hpp"

#include <fnmatch.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <tuple>

#include "attn/variant/alias.hpp"

namespace attn {

double q_bytes(const Problem& p) { return static_cast<double>(p.batch * p.heads * p.q_len * bytes_of(p.dtype, p.head_dim)); }
double k_bytes(const Problem& p) { return static_cast<double>(p.batch * p.kv_heads * p.kv_len * bytes_of(p.kv_dtype, p.head_dim)); }
double v_bytes(const Problem& p) {
  return static_cast<double>(p.batch * p.kv_heads * p.kv_len * bytes_of(p.kv_dtype, p.value_dim));
}
double out_bytes(const Problem& p) { return static_cast<double>(p.batch * p.heads * p.q_len * bytes_of(DType::f32, p.value_dim)); }
double tensor_bytes(const Problem& p) { return q_bytes(p) + k_bytes(p) + v_bytes(p) + out_bytes(p); }

InputSpec mask_input(const Problem& p) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  return {.name = "mask",
          .extents = {p.mask.batch, p.mask.heads, p.mask.rows, p.kv_len},
          .low = -infinity,
          .high = largest_mask,
          .drawn = [](double normal) { return normal < -0.5 ? -infinity : normal; },
          .doc = "[B,H,N,M], 1 along an axis where it is the same: is added to the logits, -inf hides a key from a query"};
}

Cost softmax_backward_cost(const Cost& forward) {
  return {.flops = 2.5 * forward.flops, .bytes = 2 * forward.bytes, .exps = forward.exps};
}

StateSpec kept_tokens(const Problem& p, Reads reads, index_t rows, index_t pinned) {
  if (rows > 0 && p.pass == Pass::decode) rows += p.q_len - 1;
  if (p.page_rows > 0) rows = p.kv_len, pinned = 0;  // pages are no ring
  const bool all = pinned + rows >= p.kv_len;
  const auto rows_of = [&](std::string name, index_t width, DType dtype) {
    const index_t heads = reads == Reads::x ? p.heads : p.kv_heads;
    return StateTensor{.name = std::move(name), .extents = {heads, all ? p.kv_len : pinned + rows, width}, .dtype = dtype};
  };
  StateSpec spec{.of_tokens = true, .pinned = all ? 0 : pinned, .page_rows = p.page_rows};
  if (reads == Reads::x) spec.tensors.push_back(rows_of("x", p.head_dim, p.dtype));
  if (reads == Reads::qkv) spec.tensors.push_back(rows_of("k", p.head_dim, p.kv_dtype));
  if (reads != Reads::x) spec.tensors.push_back(rows_of("v", p.value_dim, p.kv_dtype));
  return spec;
}

void move_up(const View<const float, 4>& x, const State& state) {
  const auto kept = state["x"].f32_out<4>();
  const index_t rows = kept.extent(2), width = kept.extent(3), tokens = x.extent(2), fresh = std::min(rows, tokens);
  for (index_t b = 0; b < kept.extent(0); ++b) {
    for (index_t h = 0; h < kept.extent(1); ++h) {
      const auto to = kept[b][h];
      std::copy(to.row(fresh), to.row(rows), to.row(0));
      for (index_t r = 0; r < fresh; ++r) std::copy_n(x[b][h].row(tokens - fresh + r), width, to.row(rows - fresh + r));
    }
  }
}

void keep_rows(const View<const float, 4>& tokens, const State& state, std::string_view name) {
  const auto kept = state[name].f32_out<4>();
  for (index_t b = 0; b < tokens.extent(0); ++b)
    for (index_t h = 0; h < tokens.extent(1); ++h)
      for (index_t t = 0; t < tokens.extent(2); ++t)
        std::copy_n(tokens[b][h].row(t), tokens.extent(3), kept[b][h].row(state.end() + t));
}

std::string_view to_string(Exactness e) {
  switch (e) {
    case Exactness::exact: return "exact";
    case Exactness::pattern: return "pattern";
    case Exactness::approximation: return "approximation";
    case Exactness::fitted: return "fitted approximation";
    case Exactness::different: return "different operator";
  }
  return "";
}

std::string_view to_string(Causality c) {
  switch (c) {
    case Causality::both: return "both";
    case Causality::never: return "bidirectional only";
    case Causality::always: return "causal only";
  }
  return "";
}

std::string_view to_string(Reads r) {
  switch (r) {
    case Reads::qkv: return "q,k,v";
    case Reads::xv: return "x,v";
    case Reads::x: return "x";
  }
  return "";
}

namespace {

std::string names_of(std::span<const DType> dtypes) {
  std::vector<std::string> names;
  for (const DType dtype : dtypes) names.emplace_back(to_string(dtype));
  return join(names, ", ");
}

}  // namespace

void Plan::absorb(const Arrays&, const ParameterSet<float>&, State&, Workspace&) const {
  ATTN_ASSERT(false && "plans no decoding");
}
void Plan::answer(const Arrays&, const ParameterSet<float>&, const State&, Workspace&) const {
  ATTN_ASSERT(false && "plans no decoding");
}
void Plan::step(const Arrays& token, const ParameterSet<float>& parameters, State& state, Workspace& workspace) const {
  absorb(token, parameters, state, workspace);
  answer(token, parameters, state, workspace);
}
void Plan::merge(State&, const State&) const { ATTN_ASSERT(false && "merges() is false"); }

Status Variant::supports(const Problem& p) const {
  const VariantInfo& i = info();
  const auto no = [&](const std::string& why) { return refuse(name().label() + " " + why + " (given: " + to_string(p) + ")"); };
  for (const auto& [extent, name] : {std::pair{p.batch, "batch"},
                                     {p.heads, "heads"},
                                     {p.kv_heads, "kv_heads"},
                                     {p.q_len, "q_len"},
                                     {p.kv_len, "kv_len"},
                                     {p.head_dim, "head_dim"},
                                     {p.value_dim, "value_dim"}}) {
    if (extent < 1) return no(std::string("needs ") + name + " of at least 1");
  }
  if (p.head_dim > widest_head || p.value_dim > widest_head)
    return no("takes head_dim and value_dim from 1 to " + std::to_string(widest_head));
  for (const auto& [dtype, name] : {std::pair{p.dtype, "dtype"}, {p.kv_dtype, "kv_dtype"}}) {
    if (std::ranges::find(dtypes(), dtype) == dtypes().end())
      return no("takes " + names_of(dtypes()) + ", not " + name + "=" + std::string(to_string(dtype)));
  }
  const DTypeFacts &of_q = facts_of(p.dtype), &of_kv = facts_of(p.kv_dtype);
  if (!of_q.of_queries) return no("takes keys and values of " + std::string(of_q.name) + ", and no queries");
  if (p.head_dim % of_kv.elements != 0 || p.value_dim % of_kv.elements != 0) {
    const std::string count = std::to_string(of_kv.elements);
    return no("takes rows of whole blocks of " + count + " numbers for kv_dtype=" + std::string(of_kv.name) + ", so multiples of " + count +
              " as head_dim and value_dim");
  }
  if (p.ragged && !reads_layouts()) return no("takes sequences of one length");
  if (p.page_rows > 0 && !reads_layouts()) return no("reads no keys from pages");
  if (p.page_rows > 0 && p.pass == Pass::forward_backward) return no("has no backward pass of keys in pages");
  if (p.ragged && p.pass == Pass::forward_backward) return no("has no backward pass of sequences of different lengths");
  if (Status masks = p.mask.given() ? supports_mask(p) : Status(); !masks) return no(masks.reason());
  if (p.heads % p.kv_heads != 0) return no("needs heads to be a multiple of kv_heads");
  if (p.causal && i.causality == Causality::never) return no("has no causal form" + (i.acausal.empty() ? "" : ": " + i.acausal));
  if (!p.causal && i.causality == Causality::always) return no("is defined for causal problems only");
  if (Status decodes = p.pass == Pass::decode ? supports_decode(p) : Status(); !decodes) return no(decodes.reason());
  if (p.kv_heads != p.heads && !i.grouped_heads) return no("has one kv head for each query head");
  if (!p.self_attention() && !i.cross && p.pass != Pass::decode) return no("needs q_len equal to kv_len");
  if (i.reads == Reads::x && p.head_dim != p.value_dim) return no("maps x to x and needs value_dim equal to head_dim");
  if (Status own = supports_options(p); !own) return no(own.reason());
  return {};
}

// Pairs that a mask hides are work as others are: which they are is known of a run's arrays alone.
Cost Variant::cost(const Problem& p) const {
  if (p.pass == Pass::decode) return step_cost(p);
  Cost forward = page_cost(p);
  forward.bytes += static_cast<double>(bytes_of(DType::f32, p.mask.batch * p.mask.heads * p.mask.rows * p.kv_len));
  return p.pass == Pass::forward ? forward : forward + backward_cost(p);
}

Cost Variant::step_cost(const Problem& p) const {
  const StateSpec kept = state(p);
  if (kept.of_tokens || !kept.updated) return page_cost(p);
  Problem tokens = p;
  tokens.kv_len = p.q_len;
  Cost cost = page_cost(tokens);
  cost.bytes += 2 * static_cast<double>(p.batch * kept.bytes());
  return cost;
}

Status Variant::supports_mask(const Problem& p) const {
  if (!takes_mask()) return refuse("takes no mask but the causal one; a file's is left out by ',mask=none' after its name");
  if (p.pass != Pass::forward) return refuse("takes a mask in forward passes alone");
  if (p.ragged || p.page_rows > 0) return refuse("takes a mask of sequences of one length whose keys lie in a row");
  return {};
}

Status Variant::supports_decode(const Problem& p) const {
  if (!p.causal) return refuse("decodes causal problems only");
  if (p.q_len > p.kv_len) return refuse("takes steps of at most as many tokens as the context has");
  if (steps()) return {};
  if (info().membership_sees_future)
    return refuse("chooses by all tokens who attends to whom: the next token would change what was answered before");
  if (!info().row_wise) return refuse("makes no row without all others, of which a step has its own");
  if (!info().cross && !info().last_rows) return refuse("takes all tokens at once: a new one changes whom the others see");
  const StateSpec kept = state(p);
  if (!kept.of_tokens) return refuse("folds tokens into no state");
  if (kept.rows() < p.kv_len && !reads_layouts()) return refuse("reads no window of its tokens");
  return {};
}

void Registry::add(std::unique_ptr<VariantType> type) {
  ATTN_ASSERT(find(type->id) == nullptr);
  types_.push_back(std::move(type));
  std::sort(types_.begin(), types_.end(),
            [](const auto& a, const auto& b) { return std::tie(a->family, a->id) < std::tie(b->family, b->id); });
}

void Registry::add(ImplementationPtr implementation) {
  ATTN_ASSERT(implementation->name != native && find(implementation->id, implementation->name) == nullptr);
  implementations_.push_back(std::move(implementation));
  std::sort(implementations_.begin(), implementations_.end(),
            [](const auto& a, const auto& b) { return std::tie(a->id, a->name) < std::tie(b->id, b->name); });
}

void Registry::remove(std::string_view id, std::string_view implementation) {
  const bool whole = implementation == native;
  if (whole) std::erase_if(types_, [&](const auto& type) { return type->id == id; });
  std::erase_if(implementations_, [&](const auto& known) { return known->id == id && (whole || known->name == implementation); });
}

const VariantType* Registry::find(std::string_view id) const {
  for (const auto& type : types_) {
    if (type->id == id) return type.get();
  }
  return nullptr;
}

ImplementationPtr Registry::find(std::string_view id, std::string_view implementation) const {
  for (const auto& known : implementations_) {
    if (known->id == id && known->name == implementation) return known;
  }
  return nullptr;
}

std::vector<ImplementationPtr> Registry::implementations(std::string_view id) const {
  std::vector<ImplementationPtr> list;
  std::copy_if(implementations_.begin(), implementations_.end(), std::back_inserter(list),
               [&](const auto& known) { return known->id == id; });
  return list;
}

VariantName Registry::as_of_today(VariantName name) const {
  if (name.id.empty() || find(name.id) != nullptr) return name;
  for (const auto& known : implementations_) {
    if (name.is_native() && known->info.formerly == name.id) return {known->id, known->name, std::move(name.options)};
  }
  const Alias* alias = find_alias(name.id);
  if (alias == nullptr || alias->name.empty()) return name;
  VariantName meant = VariantName::parse(alias->name).value();
  if (find(meant.id) == nullptr) return name;
  if (!name.is_native()) meant.implementation = name.implementation;
  if (!name.options.empty()) meant.options = std::move(name.options);
  return meant;
}

Result<std::unique_ptr<Variant>> Registry::configure(std::string_view name) const {
  const auto parsed = VariantName::parse(name);
  return parsed ? configure(*parsed) : parsed.refusal();
}

Result<std::unique_ptr<Variant>> Registry::configure(const VariantName& given) const {
  const VariantName name = as_of_today(given);
  const VariantType* type = find(name.id);
  const auto did_you_mean = [](std::string_view unknown, const std::vector<std::string>& known) {
    const std::string close = nearest(unknown, known);
    return close.empty() ? "" : ", did you mean '" + close + "'?";
  };
  if (type == nullptr) {
    if (const Alias* alias = find_alias(name.id); alias != nullptr && !alias->how.empty())
      return refuse("'" + name.id + "' is no variant of its own: it is " + std::string(alias->how));
    std::vector<std::string> ids;
    for (const auto& t : types_) ids.push_back(t->id);
    return refuse("unknown variant '" + name.id + "'" + did_you_mean(name.id, ids) + " (attn_sweep --list names them all)");
  }
  const ImplementationPtr implementation = find(name.id, name.implementation);
  if (implementation == nullptr && !name.is_native()) {
    std::vector<std::string> known{std::string(native)};
    for (const auto& other : implementations(name.id)) known.push_back(other->name);
    return refuse(name.id + " has no implementation '" + name.implementation + "'" + did_you_mean(name.implementation, known) +
                  "; accepted: " + join(known, ", "));
  }
  return type->configure(name.options, implementation);
}

// The variants that one item of a list stands for; itself where it is none of a registry's words and patterns, so that
// configure() says what is wrong with it.
std::vector<VariantName> Registry::matches(const VariantName& asked) const {
  const std::string& item = asked.id;
  std::vector<VariantName> list;
  const auto add = [&](const std::string& id, const std::string& implementation) {
    if (::fnmatch(asked.implementation.c_str(), implementation.c_str(), 0) == 0)
      list.push_back({id, implementation, asked.options});
  };
  const bool is_id = find(item) != nullptr;  // before a family of the same name
  if (item == "default" && !is_id) {
    for (const auto& type : types_) {
      if (type->info.in_default_sweep) list.push_back({type->id, std::string(native), asked.options});
      for (const auto& other : implementations(type->id)) {
        if (other->info.in_default_sweep) list.push_back({type->id, other->name, asked.options});
      }
    }
    return list;
  }
  for (const auto& type : types_) {
    const bool chosen = item == "all" || item == type->family + "/" || (item == type->family && !is_id) ||
                        ::fnmatch(item.c_str(), type->id.c_str(), 0) == 0;
    if (!chosen) continue;
    add(type->id, std::string(native));
    for (const auto& other : implementations(type->id)) add(type->id, other->name);
  }
  if (list.empty()) list.push_back(asked);
  return list;
}

Result<VariantList> Registry::configure_list(std::string_view names) const {
  const auto asked = parse_variant_names(names);
  if (!asked) return asked.refusal();
  VariantList list;
  for (const VariantName& item : *asked) {
    for (const VariantName& name : matches(item)) {
      auto variant = configure(name);
      if (!variant) return variant.refusal();
      const bool twice = std::any_of(list.begin(), list.end(), [&](const auto& v) { return v->name() == (*variant)->name(); });
      if (!twice) list.push_back(*std::move(variant));
    }
  }
  return list;
}

std::string Registry::short_text(const VariantName& name) const {
  const VariantType* type = find(name.id);
  if (type == nullptr) return name.text();
  return VariantName{name.id, name.implementation, without_defaults(name.options, type->options)}.text();
}

std::string Registry::short_text(std::string_view canonical) const { return short_text(VariantName::parse(canonical).value()); }

std::string Registry::renamed(std::string_view names) const {
  const auto asked = parse_variant_names(names);
  if (!asked) return "";
  for (const VariantName& given : *asked) {
    const VariantName name = as_of_today(given);
    if (name.id == given.id) continue;
    return given.id + (find_alias(given.id) != nullptr ? " is called " + name.text() + " here" : " is now called " + name.label());
  }
  return "";
}

const char* build_tag() { return ATTN_BUILD_TAG; }

}  // namespace attn
