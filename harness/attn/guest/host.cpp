#include "attn/guest/host.hpp"

#include <algorithm>
#include <set>

#include "attn/core/text.hpp"
#include "attn/core/time.hpp"
#include "attn/exec/limits.hpp"
#include "attn/exec/resident.hpp"
#include "attn/exec/seating.hpp"
#include "attn/guest/own.hpp"
#include "attn/variant/remote_plan.hpp"

namespace attn {

namespace {

GuestPlace& place_of_this_process() {
  static GuestPlace place;
  return place;
}

std::vector<GuestTensor> inputs_of(const Arrays& arrays) {
  std::vector<GuestTensor> inputs;
  const auto add = [&](const std::string& name, const Array& array) {
    if (!array.empty()) inputs.push_back(guest_tensor(name, array));  // a step brings what its variant reads
  };
  add("q", arrays.q), add("k", arrays.k), add("v", arrays.v);
  for (const auto& [name, array] : arrays.more) add(name, array);
  return inputs;
}

class GuestPlan final : public RemotePlan {
 public:
  GuestPlan(std::shared_ptr<GuestHost> host, const VariantName& name, const Problem& p, int threads)
      : host_(std::move(host)), conversation_(host_->take(threads)), dtype_(p.dtype), kv_dtype_(p.kv_dtype) {
    host_->noted(conversation_->plan(name, p));
  }
  ~GuestPlan() override { host_->give_back(std::move(conversation_)); }

  void run(const Arrays& arrays, const ParameterSet<float>& parameters, Workspace&) const override {
    check_dtypes(arrays);
    conversation_->load(inputs_of(arrays), parameters);
    if (metered_) {
      conversation_->run(1);
    } else {
      meter_first_run();
    }
    conversation_->output(arrays.out.f32_out());
  }

  double runs(index_t times) override {
    const GuestProcess& process = conversation_->process();
    const double used_s = process.processor_s(), waited_s = process.waited_s();
    const double begin_s = monotonic_s(), theirs_s = conversation_->run(times), ours_s = monotonic_s() - begin_s;
    clocks_.push_back({times, ours_s, theirs_s, process.processor_s() - used_s, process.waited_s() - waited_s});
    return theirs_s;
  }
  Status clock_agrees() const override;
  index_t peak_bytes() const override { return peak_bytes_; }

 private:
  // A row must not say bf16 where the guest was handed floats.
  void check_dtypes(const Arrays& arrays) const {
    for (const auto& [array, wanted] : {std::pair{&arrays.q, dtype_}, {&arrays.k, kv_dtype_}, {&arrays.v, kv_dtype_}}) {
      if (!array->empty() && array->dtype() != wanted)
        throw RemoteError(RemoteError::Kind::refused, "inputs are " + std::string(to_string(array->dtype())) + " here, not " +
                                                          std::string(to_string(wanted)) + " as the guest was asked to take");
    }
  }
  void meter_first_run() const {
    const pid_t process = conversation_->process().id();
    const bool readable = reset_peak_resident(process);
    const index_t level = resident_bytes(process);
    conversation_->run(1);
    const index_t peak = peak_resident_bytes(process);
    peak_bytes_ = readable && level >= 0 && peak >= 0 ? std::max<index_t>(0, peak - level) : -1;
    metered_ = true;
  }

  struct Clocks {
    index_t times;
    double ours_s, theirs_s, used_s, waited_s;
  };
  std::shared_ptr<GuestHost> host_;
  mutable std::unique_ptr<Conversation> conversation_;
  DType dtype_, kv_dtype_;
  mutable bool metered_ = false;
  mutable index_t peak_bytes_ = -1;
  std::vector<Clocks> clocks_;
};

// A guest's seconds lie within ours. What ours have besides is the way there and back, and on a busy machine the time that either side
// waited for a processor. Its threads cannot have used more time of processors than there was, and what they spin after a run: threads of
// OpenMP look for work some milliseconds before they sleep.
Status GuestPlan::clock_agrees() const {
  constexpr double granule_s = 1e-6, way_s = 2e-4, spin_s = 3e-3, share = 0.05;
  const int threads = conversation_->process().place().threads;
  double ours_s = 0, theirs_s = 0, used_s = 0, waited_s = 0, ways_s = 0;
  for (const Clocks& c : clocks_) {
    if (!(c.theirs_s > 0) || c.theirs_s > c.ours_s + granule_s)
      return refuse("the guest says that " + std::to_string(c.times) + " runs took " + three_digits(c.theirs_s) + " s, of the " +
                    three_digits(c.ours_s) + " s that passed here");
    ours_s += c.ours_s, theirs_s += c.theirs_s, used_s += c.used_s, waited_s += c.waited_s, ways_s += way_s;
  }
  const std::string says = "the guest says that its runs took " + three_digits(theirs_s) + " s, ";
  const double spun_s = (threads - 1) * spin_s * static_cast<double>(clocks_.size());
  if ((1 - share) * used_s > threads * (theirs_s + ways_s) + spun_s)
    return refuse(says + "in which its " + std::to_string(threads) + " threads cannot have used " + three_digits(used_s) +
                  " s of processors");
  if (theirs_s + waited_s + ways_s < (1 - share) * ours_s) return refuse(says + "where " + three_digits(ours_s) + " s passed here");
  return {};
}

class GuestImplementation final : public Implementation {
 public:
  GuestImplementation(std::shared_ptr<GuestHost> host, const std::string& variant) : host_(std::move(host)) {
    id = variant;
    name = host_->spec().name;
    info.title = "a guest: " + host_->spec().title;
  }
  Status supports(const Problem& p, const OptionValues& options) const override { return host_->supports({id, name, options}, p); }
  Status supports_backward(const Problem&, const OptionValues&) const override { return refuse("is a guest: it runs forward"); }
  std::unique_ptr<Plan> plan(const Problem& p, const OptionValues& options, WorkspacePlan& workspace) const override {
    return plan_of_guest(host_, {id, name, options}, p, workspace.threads());
  }
  std::span<const DType> dtypes() const override { return host_->spec().dtypes; }
  kernels::Compute compute(const Problem& p) const override { return compute_of_guest(p); }
  bool reads_layouts() const override { return false; }
  bool steps() const override { return false; }
  bool merges() const override { return false; }
  bool is_guest() const override { return true; }
  std::string note(const Problem&, const OptionValues&, const Arrays&) const override { return host_->note(); }

 private:
  std::shared_ptr<GuestHost> host_;
};

}  // namespace

void place_guests(int threads, bool pin) {
  GuestPlace& place = place_of_this_process();
  place = {.threads = threads};
  if (!pin) return;
  const int distinct = std::min(threads, static_cast<int>(allowed_processors().size()));
  const Seating taken = seating(distinct);
  for (const Processor& seat : taken.seats()) place.processors.push_back(seat.number);
}

std::unique_ptr<Conversation> GuestHost::take(int threads) {
  GuestPlace place = place_of_this_process();
  if (threads > 0 && threads != place.threads) place = {.threads = threads};
  const auto fit = std::find_if(idle_.begin(), idle_.end(), [&](const auto& c) { return c->process().place() == place; });
  if (fit == idle_.end()) return std::make_unique<Conversation>(spec_.command, place);
  auto taken = std::move(*fit);
  idle_.erase(fit);
  return taken;
}

void GuestHost::give_back(std::unique_ptr<Conversation> conversation) {
  if (!conversation->failed()) idle_.push_back(std::move(conversation));
}

Status GuestHost::supports(const VariantName& name, const Problem& p) {
  if (p.pass == Pass::forward_backward) return refuse("is a guest: it runs forward");
  if (p.dtype != p.kv_dtype) return refuse("is a guest: it takes one number type for q, k and v");
  auto conversation = take();
  Status status;
  try {
    noted(conversation->plan(name, p));
  } catch (const RemoteError& e) {
    if (!e.refused()) throw;
    status = refuse(e.what());
  }
  give_back(std::move(conversation));
  return status;
}

kernels::Compute compute_of_guest(const Problem& p) {
  return p.dtype == DType::bf16 ? kernels::Compute::bf16_dot : kernels::Compute::f32;
}

std::unique_ptr<Plan> plan_of_guest(const std::shared_ptr<GuestHost>& host, const VariantName& name, const Problem& p,
                                    int threads) {
  return std::make_unique<GuestPlan>(host, name, p, threads);
}

Status register_guest(const GuestSpec& spec, Registry& registry) {
  for (const GuestVariant& variant : spec.variants) {
    const VariantType* known = registry.find(variant.id);
    if (known != nullptr && known->family == own_family)
      return refuse("guest '" + spec.name + "' brings variant '" + variant.id + "', which another guest has brought");
    if (registry.find(variant.id, spec.name) != nullptr)
      return refuse("guest '" + spec.name + "' brings '" + variant.id + "@" + spec.name + "', which exists already");
  }
  const auto host = std::make_shared<GuestHost>(spec);
  for (const GuestVariant& variant : spec.variants) {
    if (registry.find(variant.id) != nullptr) {
      registry.add(std::make_shared<const GuestImplementation>(host, variant.id));
    } else {
      registry.add(own_variant_type(host, variant));
    }
  }
  return {};
}

Status register_guests(const std::vector<std::string>& given, Registry& registry) {
  std::set<std::string> names;
  for (const std::string& text : given) {
    const auto spec = read_guest_spec(text);
    if (!spec) return spec.refusal();
    if (Status status = register_guest(*spec, registry); !status) return status;
    names.insert(spec->name);
  }
  const auto shipped = shipped_guests();
  if (!shipped) return shipped.refusal();
  for (const GuestSpec& spec : *shipped) {
    if (names.contains(spec.name)) continue;
    if (Status status = register_guest(spec, registry); !status) return status;
  }
  return {};
}

}  // namespace attn
