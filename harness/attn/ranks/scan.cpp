// @scan: keys and values are folded into a state, states of neighbouring ranks merge, and queries are answered from what came of it (LASP,
// Sun et al. 2024, arXiv:2404.02882; here the states of all ranks before one's own come by doubling, as in MPI_Exscan, for any operator
// that need not commute). Causal: the states before the rank's own tokens, then its page goes on from there. Else: that of all tokens.
//   sends ceil(log2 P) states, one more where P is no power of two and not causal; books a state each way
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "attn/ranks/hops.hpp"
#include "attn/ranks/scheme.hpp"

namespace attn {

namespace {

class Scan final : public Scheme {
 public:
  Scan(const Part& part, WorkspacePlan& workspace) : part_(part), own_(held(part.rank)) {
    Problem p = part.problem;
    p.q_len = p.kv_len = own_.count();
    if (own_.count() > 0 && p.causal) native_ = part.variant.plan(p, workspace);
    p = part.problem;
    p.q_len = std::max<index_t>(1, own_.count()), p.pass = Pass::decode;
    steps_ = part.variant.plan(p, workspace);
    const StateSpec spec = part.variant.state(p);
    bytes_ = p.batch * spec.bytes();
    hops_ = p.causal ? hops_to_earlier(part.rank, part.ranks) : hops_to_all(part.rank, part.ranks);
    own_state_ = std::make_unique<State>(spec, p.batch, own_.first);
    sum_ = std::make_unique<State>(spec, p.batch, 0);
    for (const Hop& hop : hops_) {
      const Range tokens = tokens_of(hop.ranks);
      inboxes_.push_back(hop.from >= 0 ? std::make_unique<State>(spec, p.batch, tokens.first) : nullptr);
      copies_.push_back(hop.from >= 0 && p.causal ? std::make_unique<State>(spec, p.batch, tokens.first) : nullptr);
    }
    outbox_ = workspace.shared<std::byte>(bytes_);
    inbox_ = workspace.shared<std::byte>(bytes_);
    if (p.causal) name_state_before();
  }

  Holding holding(int rank) const override { return {.queries = {held(rank)}, .keys = {held(rank)}}; }

  void run(const Own& own, const ParameterSet<float>& parameters, Workspace& workspace, Communicator& ranks,
           Doing doing) const override {
    const bool computes = doing == Doing::all;
    State* mine = own_state_.get();
    mine->clear();
    if (computes && own_.count() > 0 && needed()) steps_->absorb(keys_of(own.arrays), parameters, *mine, workspace);
    set_length(*mine, own_.count());
    const State* known = part_.problem.causal ? earlier(mine, workspace, ranks, computes) : all(mine, workspace, ranks, computes);
    if (!computes || own_.count() == 0) return;
    if (!part_.problem.causal) {
      copy(*known, *sum_);
      set_length(*sum_, own_.end);  // where the rank's last query stands
      steps_->answer(own.arrays, parameters, *sum_, workspace);
      return;
    }
    if (known != nullptr) copy(*known, *sum_);
    Arrays arrays = own.arrays;
    if (known != nullptr) arrays.more = before_;
    native_->run(arrays, parameters, workspace);
  }

  Traffic traffic() const override { return {sends(hops_) * bytes_, sends(hops_)}; }

 private:
  Range held(int rank) const { return part_of(part_.problem.kv_len, rank, part_.ranks); }
  Range tokens_of(Range ranks) const {
    if (ranks.count() == 0) return {};
    return {held(static_cast<int>(ranks.first)).first, held(static_cast<int>(ranks.end - 1)).end};
  }
  // Nobody waits for the last rank's state.
  bool needed() const { return !part_.problem.causal || part_.rank + 1 < part_.ranks; }
  static Arrays keys_of(const Arrays& own) {
    Arrays keys = own;
    keys.q = keys.out = Array();
    return keys;
  }
  static void set_length(State& state, index_t end) { state.rewind(state.length()), state.advance(end); }
  static void copy(const State& from, State& to) {
    for (const StateTensor& tensor : from.spec().tensors) {
      const auto source = from.elements(tensor.name), target = to.elements(tensor.name);
      std::copy(source.begin(), source.end(), target.begin());
    }
  }
  void pack(const State& state, std::byte* to) const {
    for (const StateTensor& tensor : state.spec().tensors) {
      const auto from = bytes_in(state.elements(tensor.name));
      std::memcpy(std::exchange(to, to + from.size()), from.data(), from.size());
    }
  }
  void unpack(const std::byte* from, State& state, Range tokens) const {
    for (const StateTensor& tensor : state.spec().tensors) {
      const auto to = bytes_in(state.elements(tensor.name));
      std::memcpy(to.data(), std::exchange(from, from + to.size()), to.size());
    }
    set_length(state, tokens.count());
  }

  // One hop's messages: what came, if anything did.
  State* talk(std::size_t h, const State& mine, Workspace& workspace, Communicator& ranks) const {
    const Hop& hop = hops_[h];
    if (hop.from >= 0) ranks.start_receive(hop.from, workspace.shared(inbox_));
    if (hop.to >= 0) {
      pack(mine, workspace.shared(outbox_).data());
      ranks.start_send(hop.to, workspace.shared(outbox_));
    }
    ranks.wait();
    if (hop.from < 0) return nullptr;
    unpack(workspace.shared(inbox_).data(), *inboxes_[h], tokens_of(hop.ranks));
    return inboxes_[h].get();
  }

  const State* all(State* mine, Workspace& workspace, Communicator& ranks, bool computes) const {
    for (std::size_t h = 0; h < hops_.size(); ++h) {
      State* const other = talk(h, *mine, workspace, ranks);
      if (other == nullptr) continue;
      if (hops_[h].then == Hop::Then::merge_after) {
        if (computes) steps_->merge(*mine, *other);
        continue;
      }
      if (computes && hops_[h].then == Hop::Then::merge_before) steps_->merge(*other, *mine);
      mine = other;
    }
    return mine;
  }

  // Null: there are none.
  const State* earlier(State* mine, Workspace& workspace, Communicator& ranks, bool computes) const {
    const State* before = nullptr;
    for (std::size_t h = 0; h < hops_.size(); ++h) {
      State* const other = talk(h, *mine, workspace, ranks);
      if (other == nullptr) continue;
      State* const sum = copies_[h].get();
      copy(*other, *sum), set_length(*sum, other->length());
      if (computes) {
        if (before != nullptr) steps_->merge(*sum, *before);
        steps_->merge(*other, *mine);
      }
      before = sum, mine = other;
    }
    return before;
  }

  // The engine finds the state by these names (kernels/linear/linear_attention.hpp).
  void name_state_before() {
    for (const StateTensor& tensor : sum_->spec().tensors) before_.set("before." + tensor.name, (*sum_)[tensor.name]);
  }

  Part part_;
  Range own_;
  index_t bytes_ = 0;  // of a state
  std::vector<Hop> hops_;
  std::unique_ptr<Plan> native_, steps_;
  std::unique_ptr<State> own_state_, sum_;
  std::vector<std::unique_ptr<State>> inboxes_, copies_;
  Booking<std::byte> outbox_, inbox_;
  NamedArrays before_;
};

// Those whose engine goes on from a state, and whose features are the same wherever a token stands.
bool suits(const VariantType& type) {
  return type.id == "linear" || type.id == "performer" || type.id == "hedgehog" || type.id == "taylor";
}

Status supports(const Variant& variant, const Problem& p, int) {
  if (!variant.merges()) return refuse("has no states that merge");
  return plain_self_attention(p);
}

std::unique_ptr<Scheme> plan(const Part& part, WorkspacePlan& workspace) { return std::make_unique<Scan>(part, workspace); }

}  // namespace

const SchemeKind scan_kind{"scan", "over ranks: states of neighbours merge", suits, supports, plan};

}  // namespace attn
