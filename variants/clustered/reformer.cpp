#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "attn/exec/choice_time.hpp"
#include "attn/kernels/choose/grouping.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/softmax/row_attention.hpp"
#include "attn/kernels/softmax/row_attention_backward.hpp"
#include "attn/variant/backward_cost.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// reformer: tokens hashed into buckets, sorted by bucket, cut into chunks; a query sees its own chunk and those beside it.
//   out_i = sum_j C_ij e^(x_i.k_j) v_j / sum_j C_ij e^(x_i.k_j),  k_j = x_j / |x_j|;  j <= i when causal
//   C_ij counts how often j != i stands in a chunk that i sees, over all rounds; C_ii = 1 where the row is otherwise empty
//   h(x) = argmax([x M; -x M]), M ~ N(0, 1) for each head and round
//   Kitaev et al. 2020, arXiv:2001.04451, section 2, in the form of its authors' code (trax, LSHSelfAttention): chunks are not
//   cut at bucket borders, rounds form one list that closes to a ring, rounds are merged as one softmax over the multiset
//   useful flops 2 pairs (D + Dv) + 2 N D (columns of M), pairs ~ rounds N chunk (1 + before + after), half when causal;
//   workspace 8 rounds N bytes and the unit keys
// same_bucket=yes is the formula of the paper's section 2, which its code does not apply: j only from the bucket of i. unique=yes
// counts a pair once that meets in several rounds, as the paper's appendix does by subtracting log N_ij.
// Membership depends on every token, later ones too, even when causal. keys=own is not the paper's: K hashed with the same M
// and sorted by itself, chunk u of the queries against chunks around u of K, logits q.k / sqrt(D), nothing excluded; with it
// the distance to softmax attention over q, k, v means something when k is not q.
struct Reformer {
  enum class Keys { shared, own };
  enum class Wrap { ring, none };
  enum class Factors { one, two };
  struct Options {
    index_t chunk = 64, rounds = 2, before = 1, after = 0, buckets = 0;
    Factors factors = Factors::two;
    Wrap wrap = Wrap::ring;
    Keys keys = Keys::shared;
    bool same_bucket = false, unique = false;
    double logit_scale = 1;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("chunk", &Options::chunk, 1, 1 << 20, "tokens in a chunk; the last one may be shorter")
        .integer("rounds", &Options::rounds, 1, 64, "independent hashes")
        .budget()
        .integer("before", &Options::before, 0, 15, "chunks seen before the own one")
        .integer("after", &Options::after, 0, 15, "chunks seen after the own one")
        .integer("buckets", &Options::buckets, 0, 1 << 20, "even; 0: the largest power of two up to 2 N / chunk")
        .choice("factors", &Options::factors, {{"one", Factors::one}, {"two", Factors::two}},
                "two: where buckets / 4 is whole, two hashes into about sqrt(buckets) each, for less work")
        .choice("wrap", &Options::wrap, {{"ring", Wrap::ring}, {"none", Wrap::none}},
                "ring: the chunks of all rounds form one ring; none: neighbours end with the round")
        .choice("keys", &Options::keys, {{"shared", Keys::shared}, {"own", Keys::own}}, "shared: from the queries; own: K itself")
        .flag("same_bucket", &Options::same_bucket, "a query sees the keys of its own bucket only, as far as they are in reach")
        .flag("unique", &Options::unique, "a pair that meets in several rounds counts once; with wrap=none")
        .number("logit_scale", &Options::logit_scale, 0, 1000, "factor on the logits");
  }

  static VariantInfo info() {
    return {.title = "Reformer: locality-sensitive hashing",
            .formula = "softmax over the tokens of the own and the previous chunk, sorted by hash; k = x / |x|",
            .paper = "Kitaev et al. 2020, arXiv:2001.04451, section 2",
            .cost_in_n = "rounds N chunk D",
            .fine_print =
                "|x| is 1e-12 at least, and a token sees itself where it sees no other. factors=two hashes "
                "twice, into about sqrt(buckets) each, from 16 buckets on where buckets / 4 is whole; else "
                "once. keys=own is not the paper's: K is hashed with the same M and sorted by itself, chunk u "
                "of the queries sees the chunks around u of K, nothing is left out, logits are q.k / sqrt(D).",
            .exactness = Exactness::pattern,
            .cross = false,
            .grouped_heads = true,
            .row_wise = false,
            .randomised = true,
            .membership_sees_future = true,
            .time_exponent = 1};
  }

  // All rounds side by side, the columns of the factors in turn.
  static Parameters parameters(const Problem& p, const Options& o) {
    const auto hash = hash_of(p, o);
    return {{.name = "rotations",
             .shape = {p.heads, p.head_dim, hash.rounds * hash.columns()},
             .init = init::normal(1),
             .trainable = false,
             .axes = "heads, head_dim, rounds columns",
             .doc = "M, round by round: buckets / 2 columns; with two factors half of each, low digit first"}};
  }

  static Status supports(const Problem& p, const Options& o) {
    if (o.buckets % 2 != 0)
      return refuse("buckets=" + std::to_string(o.buckets) + " is odd: each rotation makes two, give an even number");
    if (o.unique && o.wrap == Wrap::ring)
      return refuse("unique=yes with wrap=ring: neighbours of other rounds would count again, give wrap=none");
    if (o.unique && o.same_bucket && hash_of(p, o).buckets() * places_of_bucket(p, o) >= index_t{1} << 30)
      return refuse("unique=yes with same_bucket=yes numbers places in 30 bits: q_len is too large, give larger chunks");
    if (p.q_len >= index_t{1} << 30) return refuse("numbers tokens in 32 bits: q_len is 2^30 or more");
    return {};
  }

  static Status supports_backward(const Problem& p, const Options&) { return ungrouped(p); }

  // Pairs as in a random order: causality leaves half, and buckets are equally full. Pairs that meet again across rounds are not
  // known and not deducted.
  static Cost cost(const Problem& p, const Options& o) {
    const Chunks chunks(p, o);
    double pairs = 0;
    for (index_t u = 0; u < chunks.all(); ++u) {
      const auto rows = static_cast<double>(chunks.length(u));
      chunks.for_each_seen(u, [&](index_t w) {
        const bool self = w == u && o.keys == Keys::shared;
        pairs += rows * (static_cast<double>(chunks.length(w)) - (self ? 1 : 0)) * (p.causal ? 0.5 : 1);
      });
    }
    const auto hash = hash_of(p, o);
    if (o.same_bucket) {
      const auto n = static_cast<double>(p.q_len);
      pairs = std::min(pairs, n * static_cast<double>(o.rounds) * n / static_cast<double>(hash.buckets()) * (p.causal ? 0.5 : 1));
    }
    Cost cost = softmax_cost(p, pairs);
    const double hashed = static_cast<double>(p.batch * p.heads * p.q_len * (o.keys == Keys::own ? 2 : 1));
    cost.flops += 2 * hashed * static_cast<double>(p.head_dim * hash.rounds * hash.columns());
    return cost;
  }

  static Cost backward_cost(const Problem& p, const Options& o) { return chosen_keys_backward_cost(p, cost(p, o)); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const bool shared = o.keys == Keys::shared;
    const Tensor<float> x = cast<float>(in.q), k = shared ? x : cast<float>(per_query_head(p, in.k)),
                        rotations = cast<float>(parameters["rotations"]);
    Elements<T> counts({p.batch, p.heads, p.q_len, p.q_len});
    for (index_t head = 0; head < p.batch * p.heads; ++head) {
      T* c = counts.writable() + head * p.q_len * p.q_len;
      count_meetings(p, o, table_of(p, o, x, rotations, head), table_of(p, o, k, rotations, head), c);
    }
    const Tensor<T> c(counts);
    const Tensor<T> logits =
        matmul_transposed(in.q, shared ? l2_normalize(in.q) : per_query_head(p, in.k)) * static_cast<T>(scale(p, o));
    return matmul(softmax(logits + log(maximum(c, 1)), c > Tensor<T>(0)), per_query_head(p, in.v));
  }

  Reformer(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        chunks_(p, o),
        hash_(hash_of(p, o)),
        sides_(o.keys == Keys::own ? 2 : 1),
        attention_(p.head_dim, p.value_dim, scale(p, o), workspace),
        gradient_(p.head_dim, p.value_dim, scale(p, o), workspace),
        bucket_(workspace.shared<std::int32_t>(sides_ * p.batch * p.heads * o.rounds * p.q_len)),
        order_(workspace.shared<std::int32_t>(bucket_.count)),
        place_(workspace.shared<std::int32_t>(o.unique ? bucket_.count : 0)),
        unit_keys_(workspace.shared<float>(o.keys == Keys::shared ? p.batch * p.heads * p.q_len * p.head_dim : 0)),
        lse_(workspace.shared<float>(p.batch * p.heads * p.q_len)),
        scratch_(workspace.per_worker<float>(hash_.scratch_floats())),
        begin_(workspace.per_worker<std::int32_t>(hash_.buckets() + 1)),
        rules_(workspace.per_worker<kernels::SightRule>(chunks_.window() * rules_of_chunk())),
        numbers_(workspace.per_worker<std::int32_t>((chunks_.window() + 1) * std::min(o.chunk, p.q_len) * (rules_of_chunk() - 1))) {
    if (workspace.training()) d_unit_keys_ = workspace.shared<float>(unit_keys_.count);
  }

  // Hash and sort all rounds (the ring leads from the first to the last), then attend round by round: within one the chunks
  // hold different rows.
  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    sort_tokens(a, parameters, workspace);
    const index_t stretch = std::max<index_t>(1, 512 / o_.chunk), stretches = (chunks_.in_round + stretch - 1) / stretch;
    for (index_t round = 0; round < o_.rounds; ++round) {
      parallel_tasks(p_.batch * p_.heads * stretches, [&](index_t task, int worker) {
        const index_t first = task % stretches * stretch;
        for (index_t u = first; u < std::min(first + stretch, chunks_.in_round); ++u)
          attend_chunk(a, workspace, task / stretches, round * chunks_.in_round + u, worker);
      });
    }
    if (o_.keys == Keys::own) return;
    const View<float, 3> lse(workspace.shared(lse_).data(), {p_.batch, p_.heads, p_.q_len});
    parallel_tasks(p_.batch * p_.heads, [&](index_t head, int) {
      const index_t b = head / p_.heads, h = head % p_.heads;
      for (index_t i = 0; i < p_.q_len; ++i) {
        if (lse(b, h, i) == -std::numeric_limits<float>::infinity())
          std::copy_n(a.v[b][p_.kv_head(h)].row(i), p_.value_dim, a.out[b][h].row(i));
      }
    });
  }

  // The chunks of the run, whose rounds are one softmax; those of a head write the same rows, so one thread takes them. Who attends
  // to whom is held fixed. k = x / |x| passes on what is across x.
  void backward(const FloatArrays& a, const ParameterSet<float>&, const FloatGradients& g, Workspace& workspace) const {
    const index_t n = p_.q_len, d = p_.head_dim;
    parallel_tasks(p_.batch * p_.heads, [&](index_t head, int worker) {
      const index_t b = head / p_.heads, h = head % p_.heads;
      const auto d_q = g.d_q[b][h], d_k = g.d_k[b][h], d_v = g.d_v[b][h];
      const View<const float, 2> out = a.out[b][h], d_out = g.d_out[b][h];
      const bool shared = o_.keys == Keys::shared;
      const View<float, 2> d_unit(workspace.shared(d_unit_keys_).data() + (shared ? head * n * d : 0), {n, d});
      for (const auto& rows : {d_q, d_k, d_v, shared ? d_unit : d_k}) {
        for (index_t i = 0; i < n; ++i) std::fill_n(rows.row(i), rows.extent(1), 0.0f);
      }
      const auto& keys_to = shared ? d_unit : d_k;
      for (index_t u = 0; u < chunks_.all(); ++u) {
        with_chunk(a, workspace, head, u, worker, [&](const kernels::RowGroup& group) {
          std::array<kernels::RowGroupGradients::Keys, 32> to;
          for (std::size_t i = 0; i < group.keys.size(); ++i) {
            const std::int32_t* tokens = group.keys[i].v.number;
            to[i] = {{keys_to.row(0), keys_to.stride(0), tokens}, {d_v.row(0), d_v.stride(0), tokens}};
          }
          gradient_(group,
                    {.out = {out.row(0), out.stride(0), group.q.number},
                     .d_out = {d_out.row(0), d_out.stride(0), group.q.number},
                     .d_q = {d_q.row(0), d_q.stride(0), group.q.number},
                     .keys = {to.data(), group.keys.size()}},
                    workspace, worker);
        });
      }
      if (!shared) return;
      const float* lse = workspace.shared(lse_).data() + head * n;
      for (index_t i = 0; i < n; ++i) {
        const kernels::Rows x{a.q[b][h].row(i), d};
        float squares = 0, along = 0;
        kernels::row_squares(1, d, x, &squares);
        kernels::row_dots(1, d, x, d_unit.row(i), &along);
        if (squares > 0) {
          const float inverse = 1 / std::sqrt(squares);
          kernels::add(1, d, {d_unit.row(i), d}, {d_q.row(i), d}, inverse);
          kernels::add(1, d, x, {d_q.row(i), d}, -along * inverse / squares);
        }
        if (std::isinf(lse[i]))
          kernels::add(1, p_.value_dim, {d_out.row(i), p_.value_dim}, {d_v.row(i), p_.value_dim});  // saw itself
      }
    });
  }

 private:
  // Chunk u of all rounds is chunk u % in_round of round u / in_round.
  struct Chunks {
    index_t tokens_in_round, chunk, in_round, rounds, before, after;
    bool ring;

    Chunks(const Problem& p, const Options& o)
        : tokens_in_round(p.q_len),
          chunk(o.chunk),
          in_round((p.q_len + o.chunk - 1) / o.chunk),
          rounds(o.rounds),
          before(o.before),
          after(o.after),
          ring(o.wrap == Wrap::ring) {}
    index_t all() const { return rounds * in_round; }
    index_t window() const { return before + 1 + after; }
    index_t length(index_t u) const { return std::min(chunk, tokens_in_round - u % in_round * chunk); }
    std::span<const std::int32_t> tokens(const std::int32_t* order, index_t u) const {
      return {order + u / in_round * tokens_in_round + u % in_round * chunk, static_cast<std::size_t>(length(u))};
    }
    template <class F>
    void for_each_seen(index_t u, F f) const {
      for (index_t at = u - before; at <= u + after; ++at) {
        if (ring)
          f((at % all() + all()) % all());
        else if (at >= 0 && at < all() && at / in_round == u / in_round)
          f(at);
      }
    }
  };

  static double scale(const Problem& p, const Options& o) { return o.logit_scale * (o.keys == Keys::shared ? 1 : p.scale()); }

  static kernels::AngularHash hash_of(const Problem& p, const Options& o) {
    const auto fitting = static_cast<std::uint64_t>(std::max<index_t>(2, 2 * p.q_len / o.chunk));
    const index_t buckets = o.buckets > 0 ? o.buckets : static_cast<index_t>(std::bit_floor(fitting));
    if (o.factors == Factors::one || buckets % 4 != 0 || buckets < 16) return {o.rounds, buckets, 0};
    index_t first = 2;  // even factors, as near to each other as there are
    for (index_t f = 2; f * f <= buckets; f += 2) {
      if (buckets % f == 0 && buckets / f % 2 == 0) first = f;
    }
    return {o.rounds, buckets / first, first};
  }

  // [rounds, N] of one head, as the fast path has them.
  struct Table {
    std::vector<std::int32_t> bucket, order;
  };
  static Table table_of(const Problem& p, const Options& o, const Tensor<float>& x, const Tensor<float>& rotations, index_t head) {
    const auto hash = hash_of(p, o);
    const index_t n = p.q_len, d = p.head_dim;
    std::vector<float> scratch(static_cast<std::size_t>(hash.scratch_floats()));
    std::vector<std::int32_t> bucket(static_cast<std::size_t>(o.rounds * n)), order(bucket.size());
    std::vector<std::int32_t> begin(static_cast<std::size_t>(hash.buckets() + 1));
    hash(n, d, {x.data() + head * n * d, d}, rotations.data() + head % p.heads * d * hash.rounds * hash.columns(), scratch.data(),
         bucket.data(), n);
    for (index_t r = 0; r < o.rounds; ++r) sort_round(bucket, order, r, n, begin);
    return {bucket, order};
  }

  static void sort_round(std::span<const std::int32_t> bucket, std::span<std::int32_t> order, index_t round, index_t n,
                         std::span<std::int32_t> begin) {
    const auto at = static_cast<std::size_t>(round * n), count = static_cast<std::size_t>(n);
    kernels::sort_by_group(bucket.subspan(at, count), order.subspan(at, count), begin);
  }

  template <class T>
  static void count_meetings(const Problem& p, const Options& o, const Table& queries, const Table& keys, T* c) {
    const index_t n = p.q_len;
    const bool shared = o.keys == Keys::shared;
    const Chunks chunks(p, o);
    std::fill_n(c, n * n, T{0});
    for (index_t u = 0; u < chunks.all(); ++u) {
      const index_t round = u / chunks.in_round;
      chunks.for_each_seen(u, [&](index_t w) {
        if (o.same_bucket && w / chunks.in_round != round) return;
        for (const std::int32_t i : chunks.tokens(queries.order.data(), u)) {
          for (const std::int32_t j : chunks.tokens(keys.order.data(), w)) {
            if (shared && i == j) continue;
            if (p.causal && j > i) continue;
            if (o.same_bucket &&
                queries.bucket[static_cast<std::size_t>(round * n + i)] != keys.bucket[static_cast<std::size_t>(round * n + j)])
              continue;
            if (o.unique && c[i * n + j] > 0) continue;
            c[i * n + j] += 1;
          }
        }
      });
    }
    for (index_t i = 0; i < n; ++i) {
      if (shared && std::all_of(c + i * n, c + (i + 1) * n, [](T count) { return count == 0; })) c[i * n + i] = 1;
    }
  }

  void sort_tokens(const FloatArrays& a, const ParameterSet<float>& parameters, const Workspace& workspace) const {
    const ChoiceTime choosing;
    constexpr index_t block = kernels::AngularHash::block;
    const index_t n = p_.q_len, d = p_.head_dim, heads = p_.batch * p_.heads, blocks = (n + block - 1) / block;
    const auto rotations = parameters.view<3>("rotations");
    const auto bucket = workspace.shared(bucket_), order = workspace.shared(order_);
    parallel_tasks(sides_ * heads * blocks, [&](index_t task, int worker) {
      const index_t first = task % blocks * block, count = std::min(block, n - first);
      const index_t list = task / blocks, head = list % heads;
      const auto x = list < heads ? a.q[head / p_.heads][head % p_.heads] : a.k[head / p_.heads][p_.kv_head(head % p_.heads)];
      const kernels::Rows rows{x.row(first), x.stride(0)};
      hash_(count, d, rows, rotations[head % p_.heads].row(0), workspace.of(worker, scratch_).data(),
            bucket.data() + list * o_.rounds * n + first, n);
      if (o_.keys == Keys::own) return;
      float norm[block];
      kernels::row_squares(count, d, rows, norm);
      for (index_t i = 0; i < count; ++i) norm[i] = norm[i] > 0 ? 1 / std::sqrt(norm[i]) : 0.0f;
      kernels::scale_rows(count, d, rows, norm, {workspace.shared(unit_keys_).data() + (head * n + first) * d, d});
    });
    parallel_tasks(sides_ * heads * o_.rounds, [&](index_t task, int worker) {
      sort_round(bucket, order, task, n, workspace.of(worker, begin_));
      if (!o_.unique) return;
      std::int32_t* place = workspace.shared(place_).data() + task * n;
      for (index_t t = 0; t < n; ++t) {
        const auto token = order[static_cast<std::size_t>(task * n + t)];
        const index_t of_bucket =
            o_.same_bucket ? bucket[static_cast<std::size_t>(task * n + token)] * places_of_bucket(p_, o_) : 0;
        place[token] = static_cast<std::int32_t>(of_bucket + t / o_.chunk);
      }
    });
  }

  // A token's place in a round: its chunk, and where buckets count so far from the places of other buckets that none is in reach.
  static index_t places_of_bucket(const Problem& p, const Options& o) {
    const Chunks chunks(p, o);
    return chunks.in_round + chunks.window();
  }

  index_t rules_of_chunk() const { return 2 + (o_.unique ? o_.rounds - 1 : 0); }

  static kernels::ListedRows listed(const View<const float, 2>& rows, const std::int32_t* numbers) {
    return {rows.row(0), rows.stride(0), numbers};
  }
  std::span<const std::int32_t> tokens(const Workspace& workspace, index_t side, index_t head, index_t u) const {
    const index_t list = (side * p_.batch * p_.heads + head) * o_.rounds * p_.q_len;
    return chunks_.tokens(workspace.shared(order_).data() + list, u);
  }
  kernels::ListedRows keys_of(const FloatArrays& a, const Workspace& workspace, index_t head, const std::int32_t* numbers) const {
    if (o_.keys == Keys::own) return listed(a.k[head / p_.heads][p_.kv_head(head % p_.heads)], numbers);
    return {workspace.shared(unit_keys_).data() + head * p_.q_len * p_.head_dim, p_.head_dim, numbers};
  }

  // Calls use(group): the queries of chunk `own` of a head, among the keys of the chunks that it sees.
  template <class F>
  void with_chunk(const FloatArrays& a, const Workspace& workspace, index_t head, index_t own, int worker, F use) const {
    const bool shared = o_.keys == Keys::shared;
    const index_t n = p_.q_len, b = head / p_.heads, h = head % p_.heads, round = own / chunks_.in_round;
    const index_t key_list = ((sides_ - 1) * p_.batch * p_.heads + head) * o_.rounds * n, query_list = head * o_.rounds * n;
    const auto q = a.q[b][h], v = a.v[b][p_.kv_head(h)];
    const auto queries = tokens(workspace, 0, head, own);
    std::int32_t* free_numbers = workspace.of(worker, numbers_).data();
    // What a table says of each token.
    const auto look_up = [&](const std::int32_t* table, std::span<const std::int32_t> tokens) {
      const std::int32_t* numbers = free_numbers;
      for (const std::int32_t token : tokens) *free_numbers++ = table[token];
      return numbers;
    };
    const std::int32_t* bucket = workspace.shared(bucket_).data() + round * n;
    const std::int32_t* place = workspace.shared(place_).data();
    const std::int32_t* own_bucket = o_.same_bucket ? look_up(bucket + query_list, queries) : nullptr;
    const std::int32_t* own_place = free_numbers;  // in each round before this
    for (index_t r = 0; o_.unique && r < round; ++r) look_up(place + query_list + r * n, queries);

    std::array<kernels::RowKeys, 32> seen;
    std::size_t size = 0;
    kernels::SightRule* rule = workspace.of(worker, rules_).data();
    chunks_.for_each_seen(own, [&](index_t u) {
      const bool same_round = u / chunks_.in_round == round;
      if (o_.same_bucket && !same_round) return;
      const auto keys = tokens(workspace, sides_ - 1, head, u);
      const kernels::SightRule* first = rule;
      const bool may_be_self = shared && (u == own || !same_round);  // other chunks of a round hold other tokens
      if (p_.causal) {
        *rule++ = {queries.data(), keys.data(), kernels::SightRule::lowest, may_be_self ? -1 : 0};
      } else if (may_be_self) {
        *rule++ = {queries.data(), keys.data(), 0, 0, true};
      }
      if (o_.same_bucket) *rule++ = {own_bucket, look_up(bucket + key_list, keys), 0, 0};
      for (index_t r = 0; o_.unique && r < round; ++r) {
        *rule++ = {own_place + r * static_cast<index_t>(queries.size()), look_up(place + key_list + r * n, keys),
                   static_cast<std::int32_t>(-o_.before), static_cast<std::int32_t>(o_.after), true};
      }
      seen[size++] = {
          keys_of(a, workspace, head, keys.data()), listed(v, keys.data()), static_cast<index_t>(keys.size()), {first, rule}};
    });

    use(kernels::RowGroup{.q = listed(q, queries.data()),
                          .out = {},
                          .count = static_cast<index_t>(queries.size()),
                          .keys = {seen.data(), size},
                          .lse = {workspace.shared(lse_).data() + head * n, 1, queries.data()}});
  }

  void attend_chunk(const FloatArrays& a, const Workspace& workspace, index_t head, index_t own, int worker) const {
    const index_t b = head / p_.heads, h = head % p_.heads, round = own / chunks_.in_round;
    const auto q = a.q[b][h], v = a.v[b][p_.kv_head(h)];
    const auto to = a.out[b][h];
    // Rows of the next chunk: read at random, they would be waited for.
    std::array<kernels::FetchRows, 2> soon_k = {}, soon_v = {};
    if ((own + 1) % chunks_.in_round != 0) {
      const auto next = tokens(workspace, 0, head, own + 1);
      soon_k[0] = {listed(q, next.data()), static_cast<index_t>(next.size())};
      soon_v[0] = {{to.row(0), to.stride(0), next.data()}, static_cast<index_t>(next.size())};
      if (const index_t last = own + 1 + o_.after; last / chunks_.in_round == round) {
        const auto keys = tokens(workspace, sides_ - 1, head, last);
        soon_k[1] = {keys_of(a, workspace, head, keys.data()), static_cast<index_t>(keys.size())};
        soon_v[1] = {listed(v, keys.data()), static_cast<index_t>(keys.size())};
      }
    }
    with_chunk(a, workspace, head, own, worker, [&](kernels::RowGroup group) {
      group.out = {to.row(0), to.stride(0), group.q.number};
      group.resume = round > 0;
      group.soon_k = soon_k;
      group.soon_v = soon_v;
      attention_(group, workspace, worker);
    });
  }

  Problem p_;
  Options o_;
  Chunks chunks_;
  kernels::AngularHash hash_;
  index_t sides_;
  kernels::RowAttention attention_;
  kernels::RowAttentionBackward gradient_;
  Booking<std::int32_t> bucket_, order_, place_;
  Booking<float> unit_keys_, d_unit_keys_, lse_, scratch_;
  Booking<std::int32_t> begin_;
  Booking<kernels::SightRule> rules_;
  Booking<std::int32_t> numbers_;
};
ATTN_VARIANT(reformer, Reformer)

}  // namespace attn
