// local@halo, dilated@halo, blockwise@halo: a rank needs the keys of its neighbours as far as its first and last query see, and no others,
// whatever N and P. The variant's own page computes on that stretch, as if it were the whole sequence.
//   sends K and V of as many tokens as others see of its own, one message to each; books as many bytes for messages both ways
#include <algorithm>
#include <memory>
#include <vector>

#include "attn/core/round.hpp"
#include "attn/ranks/scheme.hpp"

namespace attn {

namespace {

// The keys that queries at these positions see, whatever lies beyond the ends of the sequence; from where the pattern may begin anew.
using Reach = Range (*)(const OptionValues&, Range queries);

Range window(Range queries, index_t left, index_t right) {
  const auto far = [](index_t keys) { return std::min<index_t>(keys, index_t{1} << 40); };  // "unlimited"
  return {queries.first - far(left), queries.end + far(right)};
}

struct Pattern {
  std::string_view id;
  Reach reach;
};

constexpr Pattern patterns[] = {
    {"local", [](const OptionValues& o, Range q) { return window(q, o.integer("left"), o.integer("right")); }},
    {"dilated",
     [](const OptionValues& o, Range q) {
       const index_t reach = std::min<index_t>(o.integer("window"), 1 << 30) * std::min<index_t>(o.integer("step"), 1 << 30);
       return window(q, reach, reach);
     }},
    {"blockwise",
     [](const OptionValues& o, Range q) {
       const auto least = [&](const char* name) { return std::min<index_t>(o.integer(name), 1 << 30); };
       const index_t block = o.integer("block");
       return Range{(q.first / block - least("before")) * block, ((q.end - 1) / block + least("after") + 1) * block};
     }},
};

const Pattern* pattern_of(std::string_view id) {
  const auto* const found = std::ranges::find(patterns, id, &Pattern::id);
  return found != std::end(patterns) ? found : nullptr;
}

class Halo final : public Scheme {
 public:
  Halo(const Part& part, WorkspacePlan& workspace) : part_(part), own_(held(part.rank)), seen_(seen(part.rank)) {
    for (int other = 0; other < part.ranks; ++other) {
      if (other == part.rank) continue;
      if (const Range keys = intersection(seen(other), own_); keys.count() > 0) outgoing_.push_back({other, keys});
      if (const Range keys = intersection(seen_, held(other)); keys.count() > 0) incoming_.push_back({other, keys});
    }
    outbox_ = workspace.shared<std::byte>(part.kv_bytes(tokens_in_messages(outgoing_)));
    inbox_ = workspace.shared<std::byte>(part.kv_bytes(tokens_in_messages(incoming_)));
    if (own_.count() == 0) return;
    Problem p = part.problem;
    p.q_len = seen_.end - own_.first, p.kv_len = seen_.count();  // so that queries and keys end together
    native_ = part.variant.plan(p, workspace);
  }

  Holding holding(int rank) const override {
    const Range own = held(rank), keys = seen(rank);
    return {.queries = {own},
            .keys = {own},
            .keys_before = own.first - keys.first,
            .keys_after = keys.end - own.end,
            .queries_after = keys.end - own.end};
  }

  void run(const Own& own, const ParameterSet<float>& parameters, Workspace& workspace, Communicator& ranks,
           Doing doing) const override {
    std::byte* inbox = workspace.shared(inbox_).data();
    for (const auto& [other, keys] : incoming_)
      ranks.start_receive(other, {std::exchange(inbox, inbox + part_.kv_bytes(keys.count())), size(part_.kv_bytes(keys.count()))});
    std::byte* outbox = workspace.shared(outbox_).data();
    for (const auto& [other, keys] : outgoing_) {
      std::byte* const first = outbox;
      outbox = pack_rows(own.arrays.v, rows_of(keys), pack_rows(own.arrays.k, rows_of(keys), outbox));
      ranks.start_send(other, {first, outbox});
    }
    ranks.wait();
    if (doing == Doing::messages) return;
    const std::byte* from = workspace.shared(inbox_).data();
    for (const auto& [other, keys] : incoming_)
      from = unpack_rows(unpack_rows(from, own.arrays.k, rows_of(keys)), own.arrays.v, rows_of(keys));
    if (native_) native_->run(own.arrays, parameters, workspace);
  }

  Traffic traffic() const override { return {part_.kv_bytes(tokens_in_messages(outgoing_)), std::ssize(outgoing_)}; }

 private:
  struct Message {
    int other;
    Range keys;
  };
  static index_t tokens_in_messages(const std::vector<Message>& messages) {
    index_t tokens = 0;
    for (const Message& message : messages) tokens += message.keys.count();
    return tokens;
  }
  Range held(int rank) const { return part_of(part_.problem.kv_len, rank, part_.ranks); }
  // What a rank's queries see, and its own keys.
  Range seen(int rank) const {
    const Range own = held(rank), all{0, part_.problem.kv_len};
    if (own.count() == 0) return own;
    Range keys = intersection(pattern_of(part_.variant.name().id)->reach(part_.variant.name().options, own), all);
    if (part_.problem.causal) keys.end = own.end;
    return {std::min(keys.first, own.first), std::max(keys.end, own.end)};
  }
  Range rows_of(Range keys) const { return {keys.first - seen_.first, keys.end - seen_.first}; }

  Part part_;
  Range own_, seen_;
  std::vector<Message> outgoing_, incoming_;
  Booking<std::byte> outbox_, inbox_;
  std::unique_ptr<Plan> native_;
};

bool suits(const VariantType& type) { return pattern_of(type.id) != nullptr; }

Status supports(const Variant& variant, const Problem& p, int ranks) {
  const OptionValues& options = variant.name().options;
  if (ranks > 1 && variant.name().id == "local" && options.integer("sinks") > 0)
    return refuse("hands on windows, no sinks: takes sinks=0 over ranks");
  return plain_self_attention(p);
}

std::unique_ptr<Scheme> plan(const Part& part, WorkspacePlan& workspace) { return std::make_unique<Halo>(part, workspace); }

}  // namespace

const SchemeKind halo_kind{"halo", "over ranks: neighbours hand on the keys that lie in reach", suits, supports, plan};

}  // namespace attn
