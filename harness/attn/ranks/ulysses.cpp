// @ulysses: sequences are exchanged for heads. Every rank sends each other one that one's heads of its own tokens, computes its heads over
// the whole sequence by the variant's own page, and sends the outputs back: DeepSpeed Ulysses (Jacobs et al. 2023, arXiv:2309.14509).
//   sends 4 messages to each other rank: its heads of Q, K and V, and the rows of the output; books the whole sequence of a rank's heads
#include <algorithm>
#include <array>
#include <memory>

#include "attn/ranks/scheme.hpp"

namespace attn {

namespace {

class Ulysses final : public Scheme {
 public:
  Ulysses(const Part& part, WorkspacePlan& workspace) : part_(part), heads_(own_problem(part.problem, part.rank)) {
    native_ = part.variant.plan(heads_, workspace);
    const Problem& p = heads_;
    q_ = workspace.shared<std::byte>(bytes_of(p.dtype, p.batch * p.heads * p.q_len * p.head_dim));
    k_ = workspace.shared<std::byte>(bytes_of(p.kv_dtype, p.batch * p.kv_heads * p.kv_len * p.head_dim));
    v_ = workspace.shared<std::byte>(bytes_of(p.kv_dtype, p.batch * p.kv_heads * p.kv_len * p.value_dim));
    out_ = workspace.shared<std::byte>(bytes_of(DType::f32, p.batch * p.heads * p.q_len * p.value_dim));
    outbox_ = workspace.shared<std::byte>(std::max(bytes_inward(), bytes_outward()));
    inbox_ = workspace.shared<std::byte>(std::max(inward_bytes(part_.rank, part_.problem.kv_len), own_outputs()));
  }

  Holding holding(int rank) const override {
    const Range own = held(rank);
    return {.queries = {own}, .keys = {own}};
  }

  ParameterSet<float> share(const ParameterSet<float>& whole, int rank) const override;

  void run(const Own& own, const ParameterSet<float>& parameters, Workspace& workspace, Communicator& ranks,
           Doing doing) const override {
    const Arrays mine = whole_sequence_of_heads(workspace);
    const Array* const from[] = {&own.arrays.q, &own.arrays.k, &own.arrays.v};
    const Array* const to[] = {&mine.q, &mine.k, &mine.v};
    exchange(workspace, ranks, doing, from, to, Way::to_heads);
    if (doing == Doing::all) native_->run(mine, parameters, workspace);
    const Array *const made[] = {&mine.out}, *const wanted[] = {&own.arrays.out};
    exchange(workspace, ranks, doing, made, wanted, Way::to_tokens);
  }

  Traffic traffic() const override {
    Traffic sum;
    for (int other = 0; other < part_.ranks; ++other) {
      if (other == part_.rank) continue;
      const index_t own = held(part_.rank).count(), theirs = held(other).count();
      if (own > 0) sum += {inward_bytes(other, own), 3};
      if (theirs > 0) sum += {outward_bytes(part_.rank, theirs), 1};
    }
    return sum;
  }

 private:
  enum class Way { to_heads, to_tokens };

  Range held(int rank) const { return part_of(part_.problem.kv_len, rank, part_.ranks); }
  Range kv_heads(int rank) const { return part_of(part_.problem.kv_heads, rank, part_.ranks); }
  Range heads(int rank) const {
    const index_t group = part_.problem.heads / part_.problem.kv_heads;
    return {kv_heads(rank).first * group, kv_heads(rank).end * group};
  }
  Problem own_problem(Problem p, int rank) const {
    p.heads = heads(rank).count(), p.kv_heads = kv_heads(rank).count();
    return p;
  }

  // Of a rank's heads of so many tokens: Q, K and V; the output.
  index_t inward_bytes(int rank, index_t tokens) const {
    const Problem& p = part_.problem;
    return bytes_of(p.dtype, p.batch * heads(rank).count() * tokens * p.head_dim) +
           bytes_of(p.kv_dtype, p.batch * kv_heads(rank).count() * tokens * (p.head_dim + p.value_dim));
  }
  index_t outward_bytes(int rank, index_t tokens) const {
    return bytes_of(DType::f32, part_.problem.batch * heads(rank).count() * tokens * part_.problem.value_dim);
  }
  index_t bytes_inward() const {
    index_t bytes = 0;
    for (int other = 0; other < part_.ranks; ++other) bytes += inward_bytes(other, held(part_.rank).count());
    return bytes;
  }
  index_t bytes_outward() const { return outward_bytes(part_.rank, part_.problem.kv_len); }
  index_t own_outputs() const {
    index_t bytes = 0;
    for (int other = 0; other < part_.ranks; ++other) bytes += outward_bytes(other, held(part_.rank).count());
    return bytes;
  }

  Arrays whole_sequence_of_heads(const Workspace& workspace) const {
    const Problem& p = heads_;
    const auto array = [&](DType dtype, const Booking<std::byte>& memory, index_t of, index_t width) {
      const index_t extents[] = {p.batch, of, p.kv_len, width};
      return Array(dtype, workspace.shared(memory).data(), extents);
    };
    Arrays mine;
    mine.q = array(p.dtype, q_, p.heads, p.head_dim), mine.k = array(p.kv_dtype, k_, p.kv_heads, p.head_dim);
    mine.v = array(p.kv_dtype, v_, p.kv_heads, p.value_dim), mine.out = array(DType::f32, out_, p.heads, p.value_dim);
    return mine;
  }

  // The heads of a rank among those of `array`, which has all heads or, of one rank's, only these.
  Array of_heads(const Array& array, int rank) const {
    const bool keys = array.extent(1) == part_.problem.kv_heads && part_.problem.kv_heads != part_.problem.heads;
    const Range range = keys ? kv_heads(rank) : heads(rank);
    return array.part(1, range.first, range.count());
  }

  // Each array of `from` goes out in one message to each rank, and comes into that of `to`.
  void exchange(const Workspace& workspace, Communicator& ranks, Doing doing, std::span<const Array* const> from,
                std::span<const Array* const> to, Way way) const {
    const Range own{0, held(part_.rank).count()};
    std::byte* inbox = workspace.shared(inbox_).data();
    std::byte* outbox = workspace.shared(outbox_).data();
    const auto outgoing = [&](const Array& array, int rank) { return way == Way::to_heads ? of_heads(array, rank) : array; };
    const auto rows_out = [&](int rank) { return way == Way::to_heads ? own : held(rank); };
    const auto incoming = [&](const Array& array, int rank) { return way == Way::to_heads ? array : of_heads(array, rank); };
    const auto rows_in = [&](int rank) { return way == Way::to_heads ? held(rank) : own; };
    const auto each = [&](auto f) {
      for (int step = 1; step < part_.ranks; ++step)  // not all to the same one at once
        for (std::size_t i = 0; i < from.size(); ++i) f((part_.rank + step) % part_.ranks, *from[i], *to[i]);
    };
    const auto bytes = [](const Array& array, Range rows) {
      return bytes_of(array.dtype(), array.extent(0) * array.extent(1) * rows.count() * array.extent(3));
    };
    each([&](int other, const Array&, const Array& into) {
      const index_t count = bytes(incoming(into, other), rows_in(other));
      if (count > 0) ranks.start_receive(other, {std::exchange(inbox, inbox + count), size(count)});
    });
    each([&](int other, const Array& out, const Array&) {
      if (rows_out(other).count() == 0) return;
      std::byte* const first = outbox;
      outbox = pack_rows(outgoing(out, other), rows_out(other), outbox);
      ranks.start_send(other, {first, outbox});
    });
    if (doing == Doing::all) keep_own(from, to, way, outbox);
    ranks.wait();
    if (doing == Doing::messages) return;
    const std::byte* at = workspace.shared(inbox_).data();
    each([&](int other, const Array&, const Array& into) {
      if (rows_in(other).count() > 0) at = unpack_rows(at, incoming(into, other), rows_in(other));
    });
  }

  void keep_own(std::span<const Array* const> from, std::span<const Array* const> to, Way way, std::byte* scratch) const {
    const Range all = held(part_.rank), own{0, all.count()};
    for (std::size_t i = 0; i < from.size(); ++i) {
      if (way == Way::to_heads) {
        pack_rows(of_heads(*from[i], part_.rank), own, scratch);
        unpack_rows(scratch, *to[i], all);
      } else {
        pack_rows(*from[i], all, scratch);
        unpack_rows(scratch, of_heads(*to[i], part_.rank), own);
      }
    }
  }

  Part part_;
  Problem heads_;
  std::unique_ptr<Plan> native_;
  Booking<std::byte> q_, k_, v_, out_, outbox_, inbox_;
};

// Tensors whose first axis counts heads are cut; those that all heads share stay.
ParameterSet<float> Ulysses::share(const ParameterSet<float>& whole, int rank) const {
  ParameterSet<float> own;
  const Parameters specs = part_.variant.parameters(own_problem(part_.problem, rank));
  for (const ParameterSpec& spec : specs) {
    const Tensor<float>& tensor = whole[spec.name];
    if (tensor.shape() == spec.shape) {
      own.set(spec.name, tensor);
      continue;
    }
    const bool of_keys = tensor.shape()[0] == part_.problem.kv_heads && spec.shape[0] == kv_heads(rank).count();
    const index_t first = of_keys ? kv_heads(rank).first : heads(rank).first, row = tensor.size() / tensor.shape()[0];
    const float* const from = tensor.data() + first * row;
    own.set(spec.name, Tensor<float>(spec.shape, {from, from + spec.shape[0] * row}));
  }
  return own;
}

// But for its first axis, where that counts heads, a tensor must not depend on how many heads there are.
Status cuts_by_heads(const Variant& variant, const Problem& p, int ranks) {
  Problem fewer = p;
  fewer.kv_heads = part_of(p.kv_heads, 0, ranks).count(), fewer.heads = fewer.kv_heads * (p.heads / p.kv_heads);
  const Parameters all = variant.parameters(p), some = variant.parameters(fewer);
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].shape == some[i].shape) continue;
    Shape by_head = all[i].shape;
    const bool counts = by_head[0] == p.heads || by_head[0] == p.kv_heads;
    by_head[0] = by_head[0] == p.kv_heads ? fewer.kv_heads : fewer.heads;
    if (!counts || by_head != some[i].shape) return refuse("has a tensor '" + all[i].name + "' that cannot be cut by heads");
  }
  return {};
}

bool suits(const VariantType& type) { return type.info.heads_independent && type.info.reads == Reads::qkv; }

Status supports(const Variant& variant, const Problem& p, int ranks) {
  if (ranks > p.kv_heads)
    return refuse("deals key and value heads out: takes at most kv_heads=" + std::to_string(p.kv_heads) + " ranks, not " +
                  std::to_string(ranks));
  if (Status plain = plain_self_attention(p); !plain) return plain;
  if (!variant.inputs(p).empty()) return refuse("reads more than Q, K and V, which is not dealt out over ranks");
  return cuts_by_heads(variant, p, ranks);
}

std::unique_ptr<Scheme> plan(const Part& part, WorkspacePlan& workspace) { return std::make_unique<Ulysses>(part, workspace); }

}  // namespace

const SchemeKind ulysses_kind{"ulysses", "over ranks: each has some heads of all tokens", suits, supports, plan};

}  // namespace attn
