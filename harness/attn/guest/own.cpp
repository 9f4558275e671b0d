#include "attn/guest/own.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "attn/core/text.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

namespace {

class OwnVariant final : public Variant {
 public:
  OwnVariant(std::shared_ptr<GuestHost> host, const GuestVariant& variant, VariantName name, std::string short_name)
      : Variant(std::move(name), std::move(short_name)), host_(std::move(host)), about_(variant) {}

  const VariantInfo& info() const override { return about_.info; }
  std::span<const DType> dtypes() const override { return host_->spec().dtypes; }
  kernels::Compute compute(const Problem& p) const override { return compute_of_guest(p); }
  bool reads_layouts() const override { return false; }
  bool steps() const override { return false; }
  bool merges() const override { return false; }
  bool is_guest() const override { return true; }
  bool has_definition() const override { return about_.reference; }
  std::vector<InputSpec> inputs(const Problem&) const override { return {}; }
  Status supports_backward(const Problem&) const override { return refuse("is a guest: it runs forward"); }
  StateSpec state(const Problem& p) const override { return kept_tokens(p, p.kv_len); }

  Parameters parameters(const Problem& p) const override {
    Parameters specs;
    for (const auto& [name, shape, std] : described(p).parameters)
      specs.push_back({.name = name, .shape = shape, .init = init::normal(std), .doc = "of the guest"});
    return specs;
  }
  std::unique_ptr<Plan> plan(const Problem& p, WorkspacePlan& workspace) const override {
    return plan_of_guest(host_, name(), p, workspace.threads());
  }
  std::string note(const Problem&, const Arrays&) const override {
    const std::string ungated = about_.reference ? "" : "ungated: the guest has no reference to hold it against";
    return ungated + (ungated.empty() || host_->note().empty() ? "" : "; ") + host_->note();
  }
  Tensor<double> definition(const Problem& p, const Values<double>& in, const ParameterSet<double>& parameters) const override {
    return asked(p, in, parameters);
  }
  Tensor<float> definition(const Problem& p, const Values<float>& in, const ParameterSet<float>& parameters) const override {
    return asked(p, in, parameters);
  }

 protected:
  Status supports_options(const Problem& p) const override {
    const Status planned = host_->supports(name(), p);
    if (planned) described(p);  // by the same process, rather than by one more when the plan has that
    return planned;
  }
  Cost page_cost(const Problem& p) const override { return described(p).cost; }
  Cost backward_cost(const Problem&) const override { return {}; }

 private:
  template <class F>
  auto with_process(F f) const {
    auto conversation = host_->take();
    auto result = f(*conversation);
    host_->give_back(std::move(conversation));
    return result;
  }

  // Without a cost of its own: that its inputs are read and its output written.
  const Conversation::Description& described(const Problem& p) const {
    const auto [at, fresh] = descriptions_.try_emplace(to_string(p) + std::string(to_string(p.pass)));
    if (fresh && about_.describes) {
      at->second = with_process([&](Conversation& c) { return c.describe(name(), p); });
    } else if (fresh) {
      at->second.cost.bytes = tensor_bytes(p);
    }
    return at->second;
  }

  template <class T>
  Tensor<T> asked(const Problem& p, const Values<T>& in, const ParameterSet<T>& parameters) const {
    ATTN_ASSERT(about_.reference && in.q.extent(2) == p.q_len);
    return with_process([&](Conversation& c) {
      c.plan(name(), p);
      return c.reference({guest_tensor("q", in.q), guest_tensor("k", in.k), guest_tensor("v", in.v)}, parameters,
                         {p.batch, p.heads, p.q_len, p.value_dim});
    });
  }

  std::shared_ptr<GuestHost> host_;
  GuestVariant about_;
  mutable std::map<std::string, Conversation::Description> descriptions_;
};

Status fits(const OptionDoc& option, const std::string& value) {
  const std::string given = option.name + "=" + value;
  if (option.type == "integer") {
    const auto number = parse_integer(value);
    return number ? Status() : number.refusal();
  }
  if (option.type == "number") {
    const auto number = parse_number(value);
    return number ? Status() : number.refusal();
  }
  if (value == "yes" || value == "no") return {};
  return refuse(given + " is not one of " + option.range);
}

class OwnType final : public VariantType {
 public:
  OwnType(std::shared_ptr<GuestHost> host, const GuestVariant& variant) : host_(std::move(host)), about_(variant) {
    id = variant.id;
    family = own_family;
    info = variant.info;
    options = variant.options;
  }
  Result<std::unique_ptr<Variant>> configure(const OptionValues& given, ImplementationPtr implementation) const override {
    ATTN_ASSERT(implementation == nullptr);
    VariantName name{.id = id};
    for (const OptionDoc& option : options) name.options.add({option.name, option.default_value});
    for (const auto& [key, value] : given.all()) {
      const auto known = std::find_if(options.begin(), options.end(), [&k = key](const OptionDoc& o) { return o.name == k; });
      if (known == options.end()) return unknown(key);
      if (Status status = fits(*known, value); !status) return refuse(id + ": " + status.reason());
      name.options.set(key, value);
    }
    std::string short_name = VariantName{id, std::string(native), without_defaults(name.options, options)}.text();
    return std::unique_ptr<Variant>(std::make_unique<OwnVariant>(host_, about_, std::move(name), std::move(short_name)));
  }

 private:
  Refusal unknown(const std::string& key) const {
    std::vector<std::string> names;
    for (const OptionDoc& option : options) names.push_back(option.name);
    return refuse(id + ": unknown option '" + key + "'; " +
                  (names.empty() ? "there are no options" : "accepted: " + join(names, ", ")));
  }

  std::shared_ptr<GuestHost> host_;
  GuestVariant about_;
};

}  // namespace

std::unique_ptr<VariantType> own_variant_type(std::shared_ptr<GuestHost> host, const GuestVariant& variant) {
  return std::make_unique<OwnType>(std::move(host), variant);
}

}  // namespace attn
