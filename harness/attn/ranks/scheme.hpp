// A way to compute a variant over ranks. Queries, keys, values and outputs are sharded by token; each rank plans its own part of one
// problem, and runs it in step with the others.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "attn/core/array.hpp"
#include "attn/core/problem.hpp"
#include "attn/exec/buffer.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/ranks/communicator.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// Tokens first .. end - 1.
struct Range {
  index_t first = 0, end = 0;
  index_t count() const { return end - first; }
};
Range intersection(Range a, Range b);

// Part `part` of `parts` that differ by one token at most. Where there are more parts than tokens some are empty.
Range part_of(index_t tokens, index_t part, index_t parts);

// Which tokens a rank holds, in the order of its rows.
using Tokens = std::vector<Range>;
index_t count_of(const Tokens& tokens);

struct Holding {
  Tokens queries, keys;
  // Rows besides: keys of neighbours around its own, and queries of nobody behind its own.
  index_t keys_before = 0, keys_after = 0, queries_after = 0;
  index_t key_rows() const { return keys_before + count_of(keys) + keys_after; }
  index_t query_rows() const { return count_of(queries) + queries_after; }
};

// What a rank plans from: the whole problem, the variant as its page computes it, and who this rank is.
struct Part {
  const Variant& variant;
  Problem problem;
  int rank, ranks;

  // The bytes of K and V of so many tokens.
  index_t kv_bytes(index_t tokens) const {
    return bytes_of(problem.kv_dtype, problem.batch * problem.kv_heads * tokens * (problem.head_dim + problem.value_dim));
  }
};

// What of a run is done: all of it, or for what it costs only its arithmetic (on Muted ranks) or only its messages.
enum class Doing { all, messages };

// The arrays of a rank: q and out of Holding::query_rows(), k and v of Holding::key_rows(), dense, with K before V in `kv`.
struct Own {
  Arrays arrays;
  std::span<std::byte> kv;
};

class Scheme {
 public:
  virtual ~Scheme() = default;
  virtual Holding holding(int rank) const = 0;
  // What of the parameters a rank is given; usually all.
  virtual ParameterSet<float> share(const ParameterSet<float>& whole, int rank) const;
  // In an arena. Writes the outputs of the rank's queries. Allocates nothing.
  virtual void run(const Own& own, const ParameterSet<float>& parameters, Workspace& workspace, Communicator& ranks,
                   Doing doing) const = 0;
  // What this rank sends in a run, by the formula that its schedule stands for.
  virtual Traffic traffic() const = 0;
};

struct SchemeKind {
  std::string_view name;   // of the implementation
  std::string_view title;  // how it computes the variant
  // Whether it may be a way to compute this variant, whatever its options and the problem.
  bool (*suits)(const VariantType&);
  Status (*supports)(const Variant&, const Problem&, int ranks);
  std::unique_ptr<Scheme> (*plan)(const Part&, WorkspacePlan&);  // see plan_scheme
};

// Of one rank, whatever the kind: the variant's own plan, which sends nothing. So kinds plan for two ranks or more.
std::unique_ptr<Scheme> plan_scheme(const SchemeKind& kind, const Part& part, WorkspacePlan& workspace);

extern const SchemeKind ring_kind, scan_kind, halo_kind, ulysses_kind, tree_kind, reduce_kind;
std::span<const SchemeKind* const> scheme_kinds();

// Of schemes that are made for whole sequences with as many queries as keys.
Status plain_self_attention(const Problem& p);

// The same number of bytes, to send or to receive.
template <class T>
std::span<std::byte> bytes_in(std::span<T> elements) {
  return {reinterpret_cast<std::byte*>(elements.data()), elements.size_bytes()};
}
inline std::size_t size(index_t bytes) { return static_cast<std::size_t>(bytes); }

// Rows first .. first + rows - 1 of every sequence and head of x, one after the other, in memory of as many bytes; and back. x is
// [batch, heads, rows, width] with a last stride of 1.
std::byte* pack_rows(const Array& x, Range rows, std::byte* to);
const std::byte* unpack_rows(const std::byte* from, const Array& x, Range rows);

}  // namespace attn
