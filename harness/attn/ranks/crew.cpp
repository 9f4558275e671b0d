#include "attn/ranks/crew.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <map>
#include <optional>
#include <vector>

#include "attn/core/text.hpp"
#include "attn/core/time.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "attn/ranks/member.hpp"
#include "attn/variant/remote_plan.hpp"

namespace attn {

namespace {

bool pinned = false;

// What the first rank tells the others.
enum class Verb : std::int64_t { plan, deal, first_run, runs, parts, report, collect, forget, done };
struct Command {
  Verb verb;
  std::int64_t plan, value;
};

// What a rank tells the first one of a plan.
struct Report {
  Traffic counted, formula;
  std::int64_t peak_bytes, held_bytes;
  std::array<double, 3> seconds;  // by Timed
};

template <class T>
std::span<std::byte> bytes_of_object(T& object) {
  return {reinterpret_cast<std::byte*>(&object), sizeof object};
}
template <class T>
std::span<const std::byte> bytes_of_object(const T& object) {
  return {reinterpret_cast<const std::byte*>(&object), sizeof object};
}

template <class T>
void send(Communicator& ranks, int to, const T& object) {
  ranks.start_send(to, bytes_of_object(object));
  ranks.wait();
}
template <class T>
T receive(Communicator& ranks, int from) {
  T object{};
  ranks.receive_idly(from, bytes_of_object(object));
  return object;
}

// Of any length: its size first.
template <class Elements>
void send_all(Communicator& ranks, int to, const Elements& elements) {
  send(ranks, to, static_cast<std::int64_t>(elements.size()));
  if (elements.empty()) return;
  ranks.start_send(to, std::as_bytes(std::span(elements.data(), elements.size())));
  ranks.wait();
}
template <class Elements>
Elements receive_all(Communicator& ranks, int from) {
  Elements elements(static_cast<std::size_t>(receive<std::int64_t>(ranks, from)), {});
  if (!elements.empty()) ranks.receive_idly(from, std::as_writable_bytes(std::span(elements.data(), elements.size())));
  return elements;
}

void send_parameters(Communicator& ranks, int to, const ParameterSet<float>& set) {
  send(ranks, to, static_cast<std::int64_t>(set.all().size()));
  for (const auto& [name, tensor] : set.all()) {
    send_all(ranks, to, name);
    send_all(ranks, to, tensor.shape());
    send_all(ranks, to, std::vector<float>(tensor.data(), tensor.data() + tensor.size()));
  }
}
ParameterSet<float> receive_parameters(Communicator& ranks, int from) {
  ParameterSet<float> set;
  for (auto left = receive<std::int64_t>(ranks, from); left > 0; --left) {
    auto name = receive_all<std::string>(ranks, from);
    auto shape = receive_all<Shape>(ranks, from);
    set.set(std::move(name), Tensor<float>(std::move(shape), receive_all<std::vector<float>>(ranks, from)));
  }
  return set;
}

std::array<double, 3> time_parts(const Member& member, Workspace& workspace, index_t times) {
  constexpr int repeats = 3;
  std::array<std::array<double, repeats>, 3> all{};
  for (std::size_t i = 0; i < repeats; ++i)
    for (const Timed what : {Timed::whole, Timed::arithmetic, Timed::messages})
      all[static_cast<std::size_t>(what)][i] = member.timed(workspace, what, times) / static_cast<double>(times);
  std::array<double, 3> median{};
  for (std::size_t w = 0; w < 3; ++w) std::ranges::sort(all[w]), median[w] = all[w][repeats / 2];
  return median;
}

const SchemeKind& kind_of(std::string_view name) {
  const auto kinds = scheme_kinds();
  const auto found = std::ranges::find_if(kinds, [&](const SchemeKind* kind) { return kind->name == name; });
  ATTN_ASSERT(found != kinds.end());
  return **found;
}

// The first rank's plan: it tells the others what to do, and does its own part.
class LeadersPlan final : public RemotePlan {
 public:
  LeadersPlan(const SchemeKind& kind, std::unique_ptr<Variant> variant, const Problem& p, WorkspacePlan& workspace)
      : ranks_(ranks_of_this_process()),
        number_(++plans_),
        threads_(workspace.threads()),
        arena_(threads_, pinned ? Pinning::cores : Pinning::none),
        variant_(std::move(variant)) {
    tell(Verb::plan);
    for_others([&](int rank) {
      for (const std::string& word : {std::string(build_tag()), std::string(kind.name), variant_->name().text(),
                                      std::string(kernels::active_isa()), std::to_string(threads_), std::to_string(pinned)})
        send_all(ranks_, rank, word);
      send(ranks_, rank, p);
    });
    const index_t booked = workspace.bytes();
    member_.emplace(kind, *variant_, p, ranks_, workspace);
    workspace_bytes_ = workspace.bytes() - booked;
    std::string other;
    for_others([&](int rank) {
      const auto belief = receive_all<std::string>(ranks_, rank);
      if (belief != member_->belief() && other.empty())
        other = "rank " + std::to_string(rank) + " sees another problem: " + belief + "; the first one " + member_->belief();
    });
    if (other.empty()) return;
    tell(Verb::forget);
    throw RemoteError(RemoteError::Kind::failed, other);
  }
  ~LeadersPlan() override { tell(Verb::forget); }

  void run(const Arrays& arrays, const ParameterSet<float>& parameters, Workspace& workspace) const override {
    workspace_ = &workspace;
    deal(arrays, parameters);
    tell(Verb::first_run);
    arena_.execute([&] { member_->first_run(workspace); });
    collect(arrays);
    take_reports();
    for (int rank = 0; rank < ranks_.size(); ++rank) {
      const auto& [counted, formula] = std::pair(reports_[at(rank)].counted, reports_[at(rank)].formula);
      if (counted == formula) continue;
      throw RemoteError(RemoteError::Kind::failed, "rank " + std::to_string(rank) + " sent " + std::to_string(counted.bytes) +
                                                       " bytes in " + std::to_string(counted.messages) + " messages, by formula " +
                                                       std::to_string(formula.bytes) + " in " + std::to_string(formula.messages));
    }
  }

  double runs(index_t times) override {
    tell(Verb::runs, times);
    double mine = 0;
    arena_.execute([&] { mine = member_->timed(*workspace_, Timed::whole, times); });
    const double all_s = ranks_.largest(mine);
    run_s_ = all_s / static_cast<double>(times);
    return all_s;
  }
  Status clock_agrees() const override { return {}; }  // these are clocks of this program
  index_t peak_bytes() const override {
    std::int64_t most = -1;
    for (const Report& report : reports_) most = std::max(most, report.peak_bytes);
    return most;
  }
  std::optional<RankFigures> over_ranks() override;

 private:
  static std::size_t at(int rank) { return static_cast<std::size_t>(rank); }
  template <class F>
  void for_others(F f) const {
    for (int rank = 1; rank < ranks_.size(); ++rank) f(rank);
  }
  void tell(Verb verb, std::int64_t value = 0) const {
    for_others([&](int rank) { send(ranks_, rank, Command{verb, number_, value}); });
  }

  void deal(const Arrays& arrays, const ParameterSet<float>& parameters) const {
    tell(Verb::deal);
    for (int rank = ranks_.size() - 1; rank >= 0; --rank) {
      const Buffer message(size(member_->dealt_bytes(rank)));
      member_->pack_inputs(arrays, rank, message.data());
      if (rank == 0) {
        member_->take_inputs(message.data(), member_->share(parameters, rank));
        continue;
      }
      if (message.bytes() > 0) {
        ranks_.start_send(rank, {message.data(), message.bytes()});
        ranks_.wait();
      }
      send_parameters(ranks_, rank, member_->share(parameters, rank));
    }
  }

  void collect(const Arrays& arrays) const {
    tell(Verb::collect);
    for (int rank = 0; rank < ranks_.size(); ++rank) {
      const Buffer message(size(member_->output_bytes(rank)));
      if (rank == 0)
        member_->pack_output(message.data());
      else if (message.bytes() > 0)
        ranks_.receive_idly(rank, {message.data(), message.bytes()});
      member_->unpack_output(message.data(), arrays, rank);
    }
  }

  void take_reports() const {
    tell(Verb::report);
    reports_.assign(
        1, {member_->counted(), member_->formula(), member_->peak_bytes(), member_->array_bytes() + workspace_bytes_, seconds_});
    for_others([&](int rank) { reports_.push_back(receive<Report>(ranks_, rank)); });
  }

  static inline std::int64_t plans_ = 0;
  Communicator& ranks_;
  std::int64_t number_;
  int threads_;
  Arena arena_;
  std::unique_ptr<Variant> variant_;
  mutable std::optional<Member> member_;
  index_t workspace_bytes_ = 0;
  mutable Workspace* workspace_ = nullptr;  // of the last run
  mutable std::vector<Report> reports_;
  std::array<double, 3> seconds_{};
  double run_s_ = 0;
};

std::optional<RankFigures> LeadersPlan::over_ranks() {
  constexpr double least_s = 0.01;
  const auto times = static_cast<index_t>(std::clamp(least_s / std::max(run_s_, 1e-9), 1.0, 1e4));
  tell(Verb::parts, times);
  arena_.execute([&] { seconds_ = time_parts(*member_, *workspace_, times); });
  take_reports();
  RankFigures f;
  std::array<double, 3> slowest{};
  double sum_s = 0;
  for (const Report& report : reports_) {
    f.sent_bytes = std::max<index_t>(f.sent_bytes, report.counted.bytes);
    f.sent_bytes_formula = std::max<index_t>(f.sent_bytes_formula, report.formula.bytes);
    f.sent_messages = std::max<index_t>(f.sent_messages, report.counted.messages);
    f.sent_messages_formula = std::max<index_t>(f.sent_messages_formula, report.formula.messages);
    f.held_bytes = std::max<index_t>(f.held_bytes, report.held_bytes);
    for (std::size_t w = 0; w < 3; ++w) slowest[w] = std::max(slowest[w], report.seconds[w]);
    sum_s += report.seconds[1];
  }
  f.exposed = std::max(0.0, slowest[0] - slowest[1]) / slowest[0];
  f.messages_s = slowest[2];
  f.imbalance = slowest[1] * static_cast<double>(reports_.size()) / sum_s;
  return f;
}

class RankImplementation final : public Implementation {
 public:
  RankImplementation(const SchemeKind& kind, const VariantType& type) : kind_(kind), type_(type) {
    id = type.id;
    name = kind.name;
    info.title = kind.title;
  }
  Status supports(const Problem& p, const OptionValues& options) const override {
    return kind_.supports(*page(options), p, ranks_of_this_process().size());
  }
  Status supports_backward(const Problem&, const OptionValues&) const override { return refuse("runs forward over ranks"); }
  std::unique_ptr<Plan> plan(const Problem& p, const OptionValues& options, WorkspacePlan& workspace) const override {
    return std::make_unique<LeadersPlan>(kind_, page(options), p, workspace);
  }
  std::span<const DType> dtypes() const override { return stored_dtypes; }
  kernels::Compute compute(const Problem& p) const override { return page({})->compute(p); }
  bool reads_layouts() const override { return false; }
  bool steps() const override { return false; }
  bool merges() const override { return false; }
  bool is_guest() const override { return true; }
  std::string note(const Problem& p, const OptionValues& options, const Arrays& arrays) const override {
    return page(options)->note(p, arrays);
  }

 private:
  std::unique_ptr<Variant> page(const OptionValues& options) const { return type_.configure(options, nullptr).value(); }

  const SchemeKind& kind_;
  const VariantType& type_;
};

// What another rank keeps of a plan.
struct Followed {
  std::unique_ptr<Variant> variant;
  WorkspacePlan booked;
  Arena arena;
  std::optional<Member> member;
  std::optional<Workspace> workspace;
  std::array<double, 3> seconds{};

  Followed(std::unique_ptr<Variant> v, int threads, bool pin)
      : variant(std::move(v)), booked(threads), arena(threads, pin ? Pinning::cores : Pinning::none) {}
};

std::unique_ptr<Followed> follow_plan(Communicator& ranks, const Registry& registry) {
  std::array<std::string, 6> words;
  for (std::string& word : words) word = receive_all<std::string>(ranks, 0);
  const auto& [tag, scheme, name, isa, threads, pin] = words;
  if (tag != build_tag()) ranks.abort("is " + std::string(build_tag()) + ", the first rank " + tag);
  const auto p = receive<Problem>(ranks, 0);
  if (Status forced = kernels::force_isa(isa); !forced) ranks.abort(forced.reason());
  auto variant = registry.configure(name);
  if (!variant) ranks.abort(variant.reason());
  auto own = std::make_unique<Followed>(*std::move(variant), std::stoi(threads), pin == "1");
  own->member.emplace(kind_of(scheme), *own->variant, p, ranks, own->booked);
  send_all(ranks, 0, own->member->belief());
  return own;
}

void obey(const Command& command, Followed& own, Communicator& ranks) {
  Member& member = *own.member;
  switch (command.verb) {
    case Verb::deal: {
      const Buffer message(size(member.dealt_bytes(ranks.rank())));
      if (message.bytes() > 0) ranks.receive_idly(0, {message.data(), message.bytes()});
      member.take_inputs(message.data(), receive_parameters(ranks, 0));
      if (!own.workspace) own.workspace.emplace(own.booked);
      return;
    }
    case Verb::first_run: return own.arena.execute([&] { member.first_run(*own.workspace); });
    case Verb::runs: {
      double mine = 0;
      own.arena.execute([&] { mine = member.timed(*own.workspace, Timed::whole, command.value); });
      ranks.largest(mine);
      return;
    }
    case Verb::parts: return own.arena.execute([&] { own.seconds = time_parts(member, *own.workspace, command.value); });
    case Verb::report:
      return send(
          ranks, 0,
          Report{member.counted(), member.formula(), member.peak_bytes(), member.array_bytes() + own.booked.bytes(), own.seconds});
    case Verb::collect: {
      const Buffer message(size(member.output_bytes(ranks.rank())));
      member.pack_output(message.data());
      if (message.bytes() == 0) return;
      ranks.start_send(0, {message.data(), message.bytes()});
      return ranks.wait();
    }
    case Verb::plan:
    case Verb::forget:
    case Verb::done: break;
  }
  ATTN_ASSERT(false && "follow() does these");
}

}  // namespace

void register_rank_schemes(Registry& registry) {
  for (const auto& type : registry.all()) {
    for (const SchemeKind* kind : scheme_kinds()) {
      if (kind->suits(*type) && registry.find(type->id, kind->name) == nullptr)
        registry.add(std::make_shared<const RankImplementation>(*kind, *type));
    }
  }
}

bool computes_over_ranks(std::string_view implementation) {
  return std::ranges::any_of(scheme_kinds(), [&](const SchemeKind* kind) { return kind->name == implementation; });
}

void pin_ranks(bool pin) { pinned = pin; }

void follow(Communicator& ranks, const Registry& registry) {
  try {
    std::map<std::int64_t, std::unique_ptr<Followed>> plans;
    for (;;) {
      const auto command = receive<Command>(ranks, 0);
      if (command.verb == Verb::done) return;
      if (command.verb == Verb::plan) {
        plans[command.plan] = follow_plan(ranks, registry);
      } else if (command.verb == Verb::forget) {
        plans.erase(command.plan);
      } else {
        obey(command, *plans.at(command.plan), ranks);
      }
    }
  } catch (const std::bad_alloc&) {
    ranks.abort("bad_alloc: an allocation was refused");
  } catch (const std::exception& e) {
    ranks.abort(std::string("exception: ") + e.what());
  }
}

void dismiss(Communicator& ranks) {
  for (int rank = 1; rank < ranks.size(); ++rank) send(ranks, rank, Command{Verb::done, 0, 0});
}

}  // namespace attn
