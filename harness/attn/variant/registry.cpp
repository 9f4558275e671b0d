#include "attn/variant/registry.hpp"

#include <fnmatch.h>

#include <algorithm>
#include <tuple>

namespace attn {

double tensor_bytes(const Problem& p) {
  const index_t queries = p.batch * p.heads * p.q_len, keys = p.batch * p.kv_heads * p.kv_len;
  return static_cast<double>(queries * bytes_of(p.dtype, p.head_dim) + queries * bytes_of(DType::f32, p.value_dim) +
                             keys * (bytes_of(p.kv_dtype, p.head_dim) + bytes_of(p.kv_dtype, p.value_dim)));
}

Cost softmax_backward_cost(const Cost& forward) {
  return {.flops = 2.5 * forward.flops, .bytes = 2 * forward.bytes, .exps = forward.exps};
}

index_t token_bytes(const Problem& p, Reads reads) {
  const index_t row = reads == Reads::x    ? bytes_of(p.dtype, p.head_dim)
                      : reads == Reads::xv ? bytes_of(p.kv_dtype, p.value_dim)
                                           : bytes_of(p.kv_dtype, p.head_dim) + bytes_of(p.kv_dtype, p.value_dim);
  return p.kv_heads * p.kv_len * row;
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

std::string Variant::name() const {
  const std::string options = options_text();
  return options.empty() ? id() : id() + ":" + options;
}

Status Variant::supports(const Problem& p) const {
  const VariantInfo& i = info();
  const auto no = [&](const std::string& why) { return refuse(id() + " " + why + " (given: " + to_string(p) + ")"); };
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
  if (p.heads % p.kv_heads != 0) return no("needs heads to be a multiple of kv_heads");
  if (p.kv_heads != p.heads && !i.grouped_heads) return no("has one kv head for each query head");
  if (p.causal && i.causality == Causality::never) return no("has no causal form");
  if (!p.causal && i.causality == Causality::always) return no("is defined for causal problems only");
  if (!p.self_attention() && !i.cross) return no("needs q_len equal to kv_len");
  if (i.reads == Reads::x && p.head_dim != p.value_dim) return no("maps x to x and needs value_dim equal to head_dim");
  if (Status own = supports_options(p); !own) return no(own.reason());
  return {};
}

void Registry::add(std::unique_ptr<VariantType> type) {
  ATTN_ASSERT(find(type->id) == nullptr);
  types_.push_back(std::move(type));
  std::sort(types_.begin(), types_.end(),
            [](const auto& a, const auto& b) { return std::tie(a->family, a->id) < std::tie(b->family, b->id); });
}

const VariantType* Registry::find(std::string_view id) const {
  for (const auto& type : types_) {
    if (type->id == id) return type.get();
  }
  return nullptr;
}

Result<std::unique_ptr<Variant>> Registry::configure(std::string_view name) const {
  const auto colon = name.find(':');
  const auto id = trim(name.substr(0, colon));
  const VariantType* type = find(id);
  if (type == nullptr) {
    std::vector<std::string> ids;
    for (const auto& t : types_) ids.push_back(t->id);
    const std::string close = nearest(id, ids);
    return refuse("unknown variant '" + std::string(id) + "'" + (close.empty() ? "" : ", did you mean '" + close + "'?") +
                  " (attn_sweep --list names them all)");
  }
  return type->configure(colon == std::string_view::npos ? std::string_view{} : name.substr(colon + 1));
}

Result<std::vector<std::unique_ptr<Variant>>> Registry::configure_list(std::string_view names) const {
  // A comma separates variants and options alike; an item with '=' but no ':' before it continues the variant before.
  std::vector<std::string> items;
  for (const auto raw : split(names, ',')) {
    const auto item = trim(raw);
    const auto equals = item.find('=');
    const bool continues = equals != std::string_view::npos && item.substr(0, equals).find(':') == std::string_view::npos;
    if (continues && items.empty()) return refuse("'" + std::string(item) + "' is an option without a variant before it");
    if (continues) {
      items.back() += "," + std::string(item);
    } else {
      items.emplace_back(item);
    }
  }
  std::vector<std::unique_ptr<Variant>> list;
  for (const auto& item : items) {
    const bool is_id = find(item) != nullptr;  // before a family of the same name
    std::vector<std::string> matches;
    for (const auto& type : types_) {
      if (item == "all" || item == type->family + "/" || (item == type->family && !is_id) ||
          ::fnmatch(item.c_str(), type->id.c_str(), 0) == 0)
        matches.push_back(type->id);
    }
    if (matches.empty()) matches.push_back(item);  // options, or unknown: configure() says which
    for (const auto& name : matches) {
      auto variant = configure(name);
      if (!variant) return variant.refusal();
      const bool twice = std::any_of(list.begin(), list.end(), [&](const auto& v) { return v->name() == (*variant)->name(); });
      if (!twice) list.push_back(*std::move(variant));
    }
  }
  return list;
}

const char* build_tag() { return ATTN_BUILD_TAG; }

}  // namespace attn
