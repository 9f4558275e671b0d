#include "attn/ranks/scheme.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace attn {

namespace {

// Calls f(row bytes in x, bytes) for every row.
template <class F>
void each_stretch(const Array& x, Range rows, F f) {
  const index_t width = bytes_of(x.dtype(), x.extent(3));
  const bool dense = x.stride(2) == x.extent(3);
  for (index_t b = 0; b < x.extent(0); ++b) {
    for (index_t h = 0; h < x.extent(1); ++h) {
      std::byte* const first =
          const_cast<std::byte*>(x.data()) + bytes_of(x.dtype(), b * x.stride(0) + h * x.stride(1) + rows.first * x.stride(2));
      if (dense) {
        f(first, size(width * rows.count()));
      } else {
        for (index_t i = 0; i < rows.count(); ++i) f(first + bytes_of(x.dtype(), i * x.stride(2)), size(width));
      }
    }
  }
}

class Whole final : public Scheme {
 public:
  Whole(const Part& part, WorkspacePlan& workspace)
      : holding_{.queries = {{0, part.problem.q_len}}, .keys = {{0, part.problem.kv_len}}},
        native_(part.variant.plan(part.problem, workspace)) {}

  Holding holding(int) const override { return holding_; }
  void run(const Own& own, const ParameterSet<float>& parameters, Workspace& workspace, Communicator&, Doing doing) const override {
    if (doing == Doing::all) native_->run(own.arrays, parameters, workspace);
  }
  Traffic traffic() const override { return {}; }

 private:
  Holding holding_;
  std::unique_ptr<Plan> native_;
};

}  // namespace

Range intersection(Range a, Range b) {
  const index_t first = std::max(a.first, b.first);
  return {first, std::max(first, std::min(a.end, b.end))};
}

Range part_of(index_t tokens, index_t part, index_t parts) { return {tokens * part / parts, tokens * (part + 1) / parts}; }

index_t count_of(const Tokens& tokens) {
  index_t count = 0;
  for (const Range& range : tokens) count += range.count();
  return count;
}

ParameterSet<float> Scheme::share(const ParameterSet<float>& whole, int) const { return whole; }

std::unique_ptr<Scheme> plan_scheme(const SchemeKind& kind, const Part& part, WorkspacePlan& workspace) {
  if (part.ranks == 1) return std::make_unique<Whole>(part, workspace);
  return kind.plan(part, workspace);
}

std::span<const SchemeKind* const> scheme_kinds() {
  static const std::array kinds{&ring_kind, &scan_kind, &halo_kind, &ulysses_kind, &tree_kind, &reduce_kind};
  return kinds;
}

Status plain_self_attention(const Problem& p) {
  if (p.pass != Pass::forward) return refuse("runs forward over ranks");
  if (!p.self_attention()) return refuse("needs q_len equal to kv_len over ranks");
  if (p.ragged || p.page_rows > 0) return refuse("takes sequences of one length, whose keys lie in a row, over ranks");
  return {};
}

std::byte* pack_rows(const Array& x, Range rows, std::byte* to) {
  each_stretch(x, rows, [&](const std::byte* row, std::size_t bytes) { std::memcpy(to, row, bytes), to += bytes; });
  return to;
}

const std::byte* unpack_rows(const std::byte* from, const Array& x, Range rows) {
  each_stretch(x, rows, [&](std::byte* row, std::size_t bytes) { std::memcpy(row, from, bytes), from += bytes; });
  return from;
}

}  // namespace attn
