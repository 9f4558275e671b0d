#include "attn/kernels/softmax/attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// bigbird: in blocks, a window of three, the first and the last block, and `random` others drawn for each block of queries.
//   out_i = softmax attention over the keys of blocks {0, nb-1, u-1, u, u+1} u Rand(h, u),  u = floor(i / block);  every block for
//   u = 0 and u = nb-1;  j <= i when causal (the authors have no causal form), where Rand draws from the blocks before u-1 and the last
//   block is like any other: a token that is decoded cannot know that it stands in it
//   Zaheer et al. 2020, arXiv:2007.14062, section 2 and appendix D (ITC); blocks drawn uniformly without replacement from those not
//   in the set already, all of them where there are fewer than `random`
//   useful flops 2 pairs (D + Dv), pairs ~ N block (5 + random) + 2 N block; workspace the list of blocks
struct BigBird {
  using Engine = kernels::Attention;
  static constexpr bool takes_mask = true;
  struct Options {
    index_t block = 64, random = 3;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("block", &Options::block, 1, unlimited, "length of a block; the last one may be shorter")
        .budget()
        .integer("random", &Options::random, 0, 1024, "random blocks for each block of queries");
  }

  static VariantInfo info() {
    return {.title = "BigBird: window, global and random blocks",
            .formula = "softmax over blocks u-1, u, u+1, first, last, and random ones",
            .paper = "Zaheer et al. 2020, arXiv:2007.14062, section 2",
            .cost_in_n = "N block (5+random) D",
            .exactness = Exactness::pattern,
            .grouped_heads = true,
            .randomised = true,
            .time_exponent = 1};
  }

  // [heads, blocks, random]: block numbers in ascending order; -1 where there were too few to draw from.
  static Parameters parameters(const Problem& p, const Options& o) {
    if (o.random == 0) return {};
    const auto draw = [p, o](std::span<float> table, const Shape&, const Rng& rng) {
      for (index_t row = 0; row < p.heads * blocks(p, o); ++row) {
        std::vector<index_t> pool = candidates(p, o, row % blocks(p, o));
        const index_t count = std::min(o.random, static_cast<index_t>(pool.size()));
        const Rng draws = rng.substream(static_cast<std::uint64_t>(row));
        for (index_t r = 0; r < count; ++r) {  // Fisher-Yates, as far as needed
          std::swap(pool[static_cast<std::size_t>(r)],
                    pool[static_cast<std::size_t>(r + draws.below(r, static_cast<index_t>(pool.size()) - r))]);
        }
        std::sort(pool.begin(), pool.begin() + count);
        for (index_t r = 0; r < o.random; ++r) {
          table[static_cast<std::size_t>(row * o.random + r)] =
              r < count ? static_cast<float>(pool[static_cast<std::size_t>(r)]) : -1.0f;
        }
      }
    };
    return {{.name = "random_blocks",
             .shape = {p.heads, blocks(p, o), o.random},
             .init = draw,
             .trainable = false,
             .check = whole_numbers(-1, blocks(p, o) - 1),
             .axes = "heads, blocks, random",
             .doc = "blocks that block u of queries sees besides, by number, ascending; -1 for none"}};
  }

  static Status supports(const Problem& p, const Options& o) {
    if (blocks(p, o) > index_t{1} << 24) return refuse("has more blocks than its table can number (2^24): give a larger block");
    if (p.q_len > p.kv_len) return refuse("draws its random blocks for each block of keys: needs q_len of at most kv_len");
    return {};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const index_t nb = blocks(p, o), shift = p.query_position(0);
    double pairs = 0;
    index_t seen = 0;  // of a kv head
    std::vector<bool> read(static_cast<std::size_t>(nb), false);
    for (index_t u = shift / o.block; u < nb; ++u) {
      const auto keys_of = [&](index_t block) { return std::min(p.kv_len, (block + 1) * o.block) - block * o.block; };
      const index_t before = std::max<index_t>(0, shift - u * o.block);  // rows of the block that are no queries
      const auto rows = static_cast<double>(keys_of(u) - before);
      index_t keys = 0;
      for (index_t v = 0; v < nb; ++v) {
        if (!in_set(p, nb, u, v) || (p.causal && v > u)) continue;
        read[static_cast<std::size_t>(v)] = true;
        if (!p.causal || v < u) keys += keys_of(v);
      }
      // Random blocks are never the last one, so they are whole.
      const index_t random = is_edge(p, nb, u) ? 0 : std::min(o.random, static_cast<index_t>(candidates(p, o, u).size()));
      seen += random * o.block * (p.heads / p.kv_heads);
      keys += random * o.block;
      const double own = rows * static_cast<double>(before) + rows * (rows + 1) / 2;
      pairs += rows * static_cast<double>(keys) + (p.causal ? own : 0);
    }
    for (index_t v = 0; v < nb; ++v)
      seen += read[static_cast<std::size_t>(v)] ? std::min(p.kv_len, (v + 1) * o.block) - v * o.block : 0;
    return softmax_cost(p, pairs, [&](index_t i, SeenKeys& keys) { keys.add(i, 0, std::min(seen, p.kv_len) - 1); });
  }

  // Random blocks may be any of those before.
  static StateSpec state(const Problem& p, const Options& o) {
    if (!p.causal || o.random > 0) return kept_tokens(p, p.kv_len);
    const index_t block = std::min(o.block, p.kv_len);
    return kept_tokens(p, 2 * block, block);
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const index_t nb = blocks(p, o);
    return softmax_attention(p, in, [&](index_t head, index_t i, index_t j) {
      const index_t u = i / o.block, v = j / o.block;
      bool drawn = false;
      for (index_t r = 0; r < o.random; ++r) drawn = drawn || static_cast<index_t>(parameters["random_blocks"](head, u, r)) == v;
      return in_set(p, nb, u, v) || drawn;
    });
  }

  BigBird(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        nb_(blocks(p, o)),
        own_blocks_(std::min(nb_, (p.q_len - 1) / o.block + 2)),
        sequences_(p.ragged || p.pass == Pass::decode ? p.batch : 1),
        engine_(p, {.queries = kernels::QueryBlocks::aligned(o.block), .heads_apart = o.random > 0, .stretches = list_length() + 2},
                workspace),
        lists_(workspace.shared<std::int32_t>(sequences_ * p.heads * own_blocks_ * list_length())) {}

  // The last block is one of the sequence's, not of the list.
  auto keys(const View<std::int32_t, 4>& lists) const {
    return [=, this](const kernels::QueryBlock& queries, kernels::KeyList& keys) {
      const index_t u = queries.position(0) / o_.block, last = (keys.kv_len() - 1) / o_.block;
      if (is_edge(p_, last + 1, u)) {
        keys.all();
        return;
      }
      const std::int32_t* list = lists[sequences_ > 1 ? queries.batch : 0][queries.head].row(u - queries.shift / o_.block);
      keys.listed_blocks(list + 1, list[0], o_.block);
      if (!p_.causal && std::find(list + 1, list + 1 + list[0], last) == list + 1 + list[0]) keys.range(last * o_.block, o_.block);
    };
  }
  void run(const Arrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const View<std::int32_t, 4> lists = lists_in(workspace);
    for (index_t s = 0; s < sequences_; ++s) {
      const Problem own = a.lengths.empty() ? p_ : p_.sequence(a.lengths[static_cast<std::size_t>(s)]);
      const index_t first = own.query_position(0) / o_.block, end = blocks(own, o_);
      for (index_t head = 0; head < p_.heads; ++head) {
        for (index_t u = first; u < end; ++u) fill_list(parameters, head, u, lists[s][head].row(u - first));
      }
    }
    engine_.run(a, workspace, keys(lists));
  }
  void backward(const Arrays& a, const ParameterSet<float>&, const Gradients& g, Workspace& workspace) const {
    engine_.backward(a, {a, g}, workspace, keys(lists_in(workspace)));
  }

 private:
  static index_t blocks(const Problem& p, const Options& o) { return ceil_div(p.kv_len, o.block); }
  // Sees everything and is seen by everybody.
  static bool is_edge(const Problem& p, index_t nb, index_t u) { return u == 0 || (u == nb - 1 && !p.causal); }
  // Block v is in the set of block u without any drawing.
  static bool in_set(const Problem& p, index_t nb, index_t u, index_t v) {
    return is_edge(p, nb, u) || is_edge(p, nb, v) || std::abs(u - v) <= 1;
  }
  static std::vector<index_t> candidates(const Problem& p, const Options& o, index_t u) {
    std::vector<index_t> pool;
    for (index_t v = 1; v < (p.causal ? u : blocks(p, o)); ++v) {
      if (!in_set(p, blocks(p, o), u, v)) pool.push_back(v);
    }
    return pool;
  }

  index_t list_length() const { return 1 + 4 + o_.random; }
  View<std::int32_t, 4> lists_in(const Workspace& workspace) const {
    return {workspace.shared(lists_).data(), {sequences_, p_.heads, own_blocks_, list_length()}};
  }

  // A count, then the blocks of u in ascending order.
  void fill_list(const ParameterSet<float>& parameters, index_t head, index_t u, std::int32_t* list) const {
    std::int32_t* end = list + 1;
    const auto add = [&](index_t block) {
      if (block >= 0 && block < nb_ && std::find(list + 1, end, block) == end) *end++ = static_cast<std::int32_t>(block);
    };
    for (const index_t block : {index_t{0}, u - 1, u, u + 1}) add(block);
    for (index_t r = 0; r < o_.random; ++r) add(static_cast<index_t>(parameters.view<3>("random_blocks")(head, u, r)));
    std::sort(list + 1, end);
    list[0] = static_cast<std::int32_t>(end - list - 1);
  }

  Problem p_;
  Options o_;
  index_t nb_;
  index_t own_blocks_;  // that queries of a sequence stand in, at most
  index_t sequences_;   // whose queries stand in blocks of their own
  Engine engine_;
  Booking<std::int32_t> lists_;
};
ATTN_VARIANT(bigbird, BigBird)

}  // namespace attn
