// full@tree: of a decode. Each rank keeps some of the keys and values and answers the query from them; outputs merge by log-sum-exp along a
// tree (Shyam et al. 2024, arXiv:2408.04093). Every rank comes to the output.
//   sends ceil(log2 P) times an output row and a number for each head, once more where P is no power of two
#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>

#include "attn/kernels/softmax/attention.hpp"
#include "attn/ranks/hops.hpp"
#include "attn/ranks/merge_rows.hpp"

namespace attn {

namespace {

class Tree final : public Scheme {
 public:
  Tree(const Part& part, WorkspacePlan& workspace) : part_(part), own_(held(part.rank)) {
    Problem p = part.problem;
    rows_ = p.batch * p.heads * p.q_len;
    p.kv_len = own_.count(), p.causal = false;  // the query comes after all keys
    if (own_.count() > 0) engine_.emplace(p, kernels::EngineOptions{}, workspace);
    hops_ = hops_to_all(part.rank, part.ranks);
    mine_ = workspace.shared<float>(rows_ * (p.value_dim + 1));
    theirs_ = workspace.shared<float>(rows_ * (p.value_dim + 1));
  }

  Holding holding(int rank) const override { return {.queries = {{0, part_.problem.q_len}}, .keys = {held(rank)}}; }

  void run(const Own& own, const ParameterSet<float>&, Workspace& workspace, Communicator& ranks, Doing doing) const override {
    const Problem& p = part_.problem;
    const std::span<float> mine = workspace.shared(mine_), theirs = workspace.shared(theirs_);
    const View<float, 4> out(mine.data(), {p.batch, p.heads, p.q_len, p.value_dim});
    const View<float, 3> lse(mine.data() + rows_ * p.value_dim, {p.batch, p.heads, p.q_len});
    if (doing == Doing::all) {
      Arrays a = own.arrays;
      a.out = out;
      if (engine_) {
        engine_->run({a, lse}, workspace, kernels::all_keys);
      } else {
        clear_rows(rows_, p.value_dim, mine.data());
      }
    }
    sum_over(hops_, mine, theirs, ranks, doing,
             [&](bool before) { merge_rows(rows_, p.value_dim, mine.data(), theirs.data(), before); });
    if (doing == Doing::all) std::memcpy(const_cast<std::byte*>(own.arrays.out.data()), mine.data(), size(4 * rows_ * p.value_dim));
  }

  Traffic traffic() const override {
    return {sends(hops_) * bytes_of(DType::f32, rows_ * (part_.problem.value_dim + 1)), sends(hops_)};
  }

 private:
  Range held(int rank) const { return part_of(part_.problem.kv_len, rank, part_.ranks); }

  Part part_;
  Range own_;
  index_t rows_ = 0;
  std::vector<Hop> hops_;
  std::optional<kernels::Attention> engine_;
  Booking<float> mine_, theirs_;
};

bool suits(const VariantType& type) { return type.id == "full"; }

Status supports(const Variant&, const Problem& p, int) {
  if (p.pass != Pass::decode) return refuse("merges the answers to a step's query over ranks: takes --pass decode");
  if (p.q_len != 1) return refuse("takes steps of one token over ranks");
  if (p.ragged || p.page_rows > 0) return refuse("takes sequences of one length, whose keys lie in a row, over ranks");
  return {};
}

std::unique_ptr<Scheme> plan(const Part& part, WorkspacePlan& workspace) { return std::make_unique<Tree>(part, workspace); }

}  // namespace

const SchemeKind tree_kind{"tree", "over ranks: each answers from its keys, answers merge", suits, supports, plan};

}  // namespace attn
