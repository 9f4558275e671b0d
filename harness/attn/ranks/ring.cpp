// full@ring: keys and values go round, and every rank folds each shard into the outputs of its own queries: Ring Attention (Liu,
// Zaharia, Abbeel 2023, arXiv:2310.01889). The engine resumes by log-sum-exp. When causal, rank r holds chunks r and 2P-1-r of 2P (zigzag,
// as zhuzilin/ring-flash-attention), so that all ranks have as much to do in every step.
//   sends P - 1 messages of the K and V of a shard; books two such shards beside the rank's own, and a number for each of its rows
#include <algorithm>
#include <optional>
#include <thread>

#include "attn/kernels/softmax/attention.hpp"
#include "attn/ranks/scheme.hpp"

namespace attn {

namespace {

Tokens tokens_of_rank(const Problem& p, int rank, int ranks) {
  if (!p.causal) return {part_of(p.kv_len, rank, ranks)};
  return {part_of(p.kv_len, rank, 2 * ranks), part_of(p.kv_len, 2 * ranks - 1 - rank, 2 * ranks)};
}

class Ring final : public Scheme {
 public:
  Ring(const Part& part, WorkspacePlan& workspace) : part_(part), own_(tokens_of_rank(part.problem, part.rank, part.ranks)) {
    index_t most = 0, most_first = 0;
    for (int r = 0; r < part.ranks; ++r) {
      const Tokens tokens = tokens_of_rank(part.problem, r, part.ranks);
      most = std::max(most, count_of(tokens));
      most_first = std::max(most_first, tokens.front().count());
    }
    const index_t rows = count_of(own_);
    own_keys_ = engine(rows, part.problem.causal ? rows : most, part.problem.causal, workspace);
    if (part.problem.causal) {
      earlier_ = engine(rows, most_first, false, workspace);
      later_ = engine(own_.back().count(), most, false, workspace);
    }
    lse_ = workspace.shared<float>(part.problem.batch * part.problem.heads * rows);
    for (auto& inbox : inboxes_) inbox = workspace.shared<std::byte>(part.kv_bytes(most));
  }

  Holding holding(int rank) const override {
    const Tokens tokens = tokens_of_rank(part_.problem, rank, part_.ranks);
    return {.queries = tokens, .keys = tokens};
  }

  void run(const Own& own, const ParameterSet<float>&, Workspace& workspace, Communicator& ranks, Doing doing) const override {
    std::span<const std::byte> shard = own.kv;
    for (int step = 0; step < part_.ranks; ++step) {
      const bool last = step + 1 == part_.ranks;
      std::span<std::byte> next;
      if (!last) {
        next = workspace.shared(inboxes_[step % 2]).first(size(part_.kv_bytes(rows_of(owner(step + 1)))));
        ranks.start_receive((part_.rank + part_.ranks - 1) % part_.ranks, next);
        ranks.start_send((part_.rank + 1) % part_.ranks, shard);
      }
      if (doing == Doing::all) attend(own, workspace, ranks, owner(step), shard);
      if (!last) ranks.wait();
      shard = next;
    }
  }

  Traffic traffic() const override {
    const Tokens stays =
        tokens_of_rank(part_.problem, (part_.rank + 1) % part_.ranks, part_.ranks);  // the next rank's has come home
    return {part_.kv_bytes(part_.problem.kv_len - count_of(stays)), part_.ranks - 1};
  }

 private:
  std::optional<kernels::Attention> engine(index_t rows, index_t keys, bool causal, WorkspacePlan& workspace) const {
    if (rows == 0 || keys == 0) return {};
    Problem p = part_.problem;
    p.q_len = rows, p.kv_len = keys, p.causal = causal;
    return std::optional<kernels::Attention>(std::in_place, p, kernels::EngineOptions{}, workspace);
  }

  // Whose shard is here in this step.
  int owner(int step) const { return (part_.rank - step + part_.ranks) % part_.ranks; }
  index_t rows_of(int rank) const { return count_of(tokens_of_rank(part_.problem, rank, part_.ranks)); }

  // Own queries meet the shard of a rank. When causal: all of an earlier rank's first chunk, and none of its second; of a later rank's
  // only the second half of the queries, all.
  void attend(const Own& own, Workspace& workspace, Communicator& ranks, int from, std::span<const std::byte> shard) const {
    const index_t all = rows_of(from);
    if (from == part_.rank) return meet(own_keys_, own, {0, count_of(own_)}, workspace, ranks, shard, all, all, false);
    if (!part_.problem.causal) return meet(own_keys_, own, {0, count_of(own_)}, workspace, ranks, shard, all, all, true);
    if (from < part_.rank) {
      const index_t first = part_of(part_.problem.kv_len, from, 2 * part_.ranks).count();
      return meet(earlier_, own, {0, count_of(own_)}, workspace, ranks, shard, all, first, true);
    }
    meet(later_, own, {own_.front().count(), count_of(own_)}, workspace, ranks, shard, all, all, true);
  }

  // Rows of the queries meet the first `seen` of the shard's `all` keys.
  void meet(const std::optional<kernels::Attention>& engine, const Own& own, Range rows, Workspace& workspace, Communicator& ranks,
            std::span<const std::byte> shard, index_t all, index_t seen, bool resume) const {
    if (!engine || rows.count() == 0 || seen == 0) return;
    const Problem& p = part_.problem;
    std::byte* const k = const_cast<std::byte*>(shard.data());
    std::byte* const v = k + bytes_of(p.kv_dtype, p.batch * p.kv_heads * all * p.head_dim);
    const index_t k_extents[] = {p.batch, p.kv_heads, all, p.head_dim}, v_extents[] = {p.batch, p.kv_heads, all, p.value_dim};
    Arrays a;
    a.q = own.arrays.q.part(2, rows.first, rows.count());
    a.out = own.arrays.out.part(2, rows.first, rows.count());
    a.k = Array(p.kv_dtype, k, k_extents), a.v = Array(p.kv_dtype, v, v_extents);
    View<float, 3> lse;
    if (part_.ranks > 1) {
      const index_t held = count_of(own_);
      lse = {workspace.shared(lse_).data() + rows.first, {p.batch, p.heads, rows.count()}, {p.heads * held, held, 1}};
    }
    // Messages move on between blocks of queries, by the thread that started them.
    const std::thread::id main = std::this_thread::get_id();
    engine->run({a, lse, resume}, workspace, [&](const kernels::QueryBlock&, kernels::KeyList& keys) {
      if (std::this_thread::get_id() == main) ranks.progress();
      keys.range(0, seen);
    });
  }

  Part part_;
  Tokens own_;
  std::optional<kernels::Attention> own_keys_, earlier_, later_;
  Booking<float> lse_;
  Booking<std::byte> inboxes_[2];
};

bool suits(const VariantType& type) { return type.id == "full"; }

Status supports(const Variant&, const Problem& p, int) { return plain_self_attention(p); }

std::unique_ptr<Scheme> plan(const Part& part, WorkspacePlan& workspace) { return std::make_unique<Ring>(part, workspace); }

}  // namespace

const SchemeKind ring_kind{"ring", "over ranks: keys and values go round", suits, supports, plan};

}  // namespace attn
