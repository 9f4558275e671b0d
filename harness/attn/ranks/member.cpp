#include "attn/ranks/member.hpp"

#include <algorithm>
#include <cstring>

#include "attn/core/time.hpp"
#include "attn/exec/resident.hpp"

namespace attn {

namespace {

index_t row_bytes(const Problem& p, bool queries) {
  if (queries) return bytes_of(p.dtype, p.batch * p.heads * p.head_dim);
  return bytes_of(p.kv_dtype, p.batch * p.kv_heads * (p.head_dim + p.value_dim));
}

// Calls f(range of the sequence, the same rows among those that the rank holds).
template <class F>
void each_range(const Tokens& tokens, index_t first_row, F f) {
  for (const Range& range : tokens) {
    f(range, Range{first_row, first_row + range.count()});
    first_row += range.count();
  }
}

}  // namespace

Member::Member(const SchemeKind& kind, const Variant& variant, const Problem& p, Communicator& ranks, WorkspacePlan& workspace)
    : variant_(variant),
      problem_(p),
      ranks_(ranks),
      scheme_(plan_scheme(kind, {variant, p, ranks.rank(), ranks.size()}, workspace)) {}

std::string Member::belief() const {
  const Problem& p = problem_;
  std::string text = variant_.name().text() + " of " + to_string(p) + ", " + std::string(to_string(p.dtype)) + " and " +
                     std::string(to_string(p.kv_dtype));
  for (const ParameterSpec& spec : variant_.parameters(p)) {
    text += ", " + spec.name;
    for (const index_t extent : spec.shape) text += " " + std::to_string(extent);
  }
  for (int rank = 0; rank < ranks_.size(); ++rank)
    text += ", rank " + std::to_string(rank) + " with " + std::to_string(count_of(holding(rank).keys)) + " keys";
  return text;
}

index_t Member::dealt_bytes(int rank) const {
  const Holding held = holding(rank);
  return count_of(held.queries) * row_bytes(problem_, true) + count_of(held.keys) * row_bytes(problem_, false);
}

index_t Member::output_bytes(int rank) const {
  return bytes_of(DType::f32, problem_.batch * problem_.heads * problem_.value_dim * count_of(holding(rank).queries));
}

void Member::pack_inputs(const Arrays& whole, int rank, std::byte* to) const {
  const Holding held = holding(rank);
  for (const Range& range : held.queries) to = pack_rows(whole.q, range, to);
  for (const Range& range : held.keys) to = pack_rows(whole.v, range, pack_rows(whole.k, range, to));
}

void Member::take_inputs(const std::byte* from, ParameterSet<float> parameters) {
  if (kv_memory_.data() == nullptr && q_memory_.data() == nullptr) allocate();
  parameters_ = std::move(parameters);
  const Holding held = holding(ranks_.rank());
  each_range(held.queries, 0, [&](Range, Range rows) { from = unpack_rows(from, own_.arrays.q, rows); });
  each_range(held.keys, held.keys_before,
             [&](Range, Range rows) { from = unpack_rows(unpack_rows(from, own_.arrays.k, rows), own_.arrays.v, rows); });
  if (out_memory_.bytes() > 0) std::memset(out_memory_.data(), 0xff, out_memory_.bytes());
}

void Member::pack_output(std::byte* to) const {
  each_range(holding(ranks_.rank()).queries, 0, [&](Range, Range rows) { to = pack_rows(own_.arrays.out, rows, to); });
}

void Member::unpack_output(const std::byte* from, const Arrays& whole, int rank) const {
  for (const Range& range : holding(rank).queries) from = unpack_rows(from, whole.out, range);
}

void Member::allocate() {
  const Problem& p = problem_;
  const Holding held = holding(ranks_.rank());
  const index_t queries = held.query_rows(), keys = held.key_rows();
  const index_t k_bytes = bytes_of(p.kv_dtype, p.batch * p.kv_heads * keys * p.head_dim);
  q_memory_ = Buffer(size(queries * bytes_of(p.dtype, p.batch * p.heads * p.head_dim)));
  kv_memory_ = Buffer(size(k_bytes + bytes_of(p.kv_dtype, p.batch * p.kv_heads * keys * p.value_dim)));
  out_memory_ = Buffer(size(bytes_of(DType::f32, p.batch * p.heads * queries * p.value_dim)));
  const index_t q[] = {p.batch, p.heads, queries, p.head_dim}, out[] = {p.batch, p.heads, queries, p.value_dim};
  const index_t k[] = {p.batch, p.kv_heads, keys, p.head_dim}, v[] = {p.batch, p.kv_heads, keys, p.value_dim};
  own_.arrays.q = Array(p.dtype, q_memory_.data(), q);
  own_.arrays.k = Array(p.kv_dtype, kv_memory_.data(), k);
  own_.arrays.v = Array(p.kv_dtype, kv_memory_.data() + k_bytes, v);
  own_.arrays.out = Array(DType::f32, out_memory_.data(), out);
  own_.kv = {kv_memory_.data(), kv_memory_.bytes()};
}

void Member::run(Workspace& workspace, Timed what) const {
  if (what == Timed::arithmetic) {
    Muted muted(ranks_);
    return scheme_->run(own_, parameters_, workspace, muted, Doing::all);
  }
  scheme_->run(own_, parameters_, workspace, ranks_, what == Timed::whole ? Doing::all : Doing::messages);
}

double Member::timed(Workspace& workspace, Timed what, index_t times) const {
  ranks_.barrier();
  const double begin_s = monotonic_s();
  for (index_t i = 0; i < times; ++i) run(workspace, what);
  return monotonic_s() - begin_s;
}

void Member::first_run(Workspace& workspace) {
  const bool readable = reset_peak_resident();
  const index_t level = resident_bytes();
  const Traffic before = ranks_.sent();
  run(workspace, Timed::whole);
  counted_ = ranks_.sent() - before;
  const index_t peak = peak_resident_bytes();
  peak_bytes_ = readable && level >= 0 && peak >= 0 ? std::max<index_t>(0, peak - level) : -1;
}

}  // namespace attn
