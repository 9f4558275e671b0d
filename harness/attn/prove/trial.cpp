#include "attn/prove/trial.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <new>
#include <string>
#include <utility>

#include "attn/core/rng.hpp"

namespace attn::trial {

namespace {

constexpr index_t padding_floats = 5;

index_t floats_of(index_t b, index_t h, index_t n, index_t d, Layout layout) {
  return b * h * n * (layout == Layout::padded ? d + padding_floats : d);
}

View<float, 4> view_of(const Floats& memory, index_t b, index_t h, index_t n, index_t d, Layout layout) {
  switch (layout) {
    case Layout::dense: break;
    case Layout::interleaved: return {memory.data(), {b, h, n, d}, {n * h * d, d, h * d, 1}};
    case Layout::padded: {
      const index_t row = d + padding_floats;
      return {memory.data(), {b, h, n, d}, {h * n * row, n * row, row, 1}};
    }
  }
  return {memory.data(), {b, h, n, d}};
}

template <class F>
void for_each_row(const View<float, 4>& view, F f) {
  index_t row = 0;
  for (index_t b = 0; b < view.extent(0); ++b)
    for (index_t h = 0; h < view.extent(1); ++h)
      for (index_t i = 0; i < view.extent(2); ++i) f(row++, &view(b, h, i, 0));
}

// Drawn once for each problem: a checker makes the same case some hundred times, and a fifth of its time went into drawing it.
const std::vector<float>& normals_of(const std::string& problem, std::uint64_t which, index_t count) {
  thread_local std::map<std::pair<std::string, std::uint64_t>, std::vector<float>> drawn;
  constexpr std::size_t most = 300;  // tensors, of about 100 KiB each in awkward_problems()
  if (drawn.size() >= most) drawn.clear();
  std::vector<float>& values = drawn[{problem, which}];
  if (std::ssize(values) != count) {
    values.resize(static_cast<std::size_t>(count));
    Rng(7, "conformance " + problem).substream(which).normals(values);
  }
  return values;
}

void fill_normal(const View<float, 4>& view, const std::string& problem, std::uint64_t which) {
  const std::vector<float>& values = normals_of(problem, which, view.size());
  const auto width = view.extent(3);
  for_each_row(view, [&](index_t row, float* to) { std::copy_n(values.data() + row * width, width, to); });
}

}  // namespace

std::string_view to_string(Layout layout) {
  switch (layout) {
    case Layout::dense: return "dense";
    case Layout::interleaved: return "[B,N,H,D] in memory";
    case Layout::padded: return "padded rows";
  }
  return "";
}

Floats::Floats(index_t count, Border border)
    : count_(static_cast<std::size_t>(count)), page_bytes_(static_cast<std::size_t>(::sysconf(_SC_PAGESIZE))) {
  inner_bytes_ = (count_ * sizeof(float) + page_bytes_ - 1) / page_bytes_ * page_bytes_;
  const int outside = border == Border::soft ? PROT_READ | PROT_WRITE : PROT_NONE;
  void* memory = ::mmap(nullptr, inner_bytes_ + 2 * page_bytes_, outside, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  base_ = static_cast<std::byte*>(memory);
  ::mprotect(base_ + page_bytes_, inner_bytes_, PROT_READ | PROT_WRITE);
  std::byte* first = base_ + page_bytes_;
  if (border == Border::guard_after) first += inner_bytes_ - count_ * sizeof(float);
  data_ = reinterpret_cast<float*>(first);
}

Floats::~Floats() { ::munmap(base_, inner_bytes_ + 2 * page_bytes_); }

void Floats::make_read_only() const { ::mprotect(base_ + page_bytes_, inner_bytes_, PROT_READ); }

Case::Case(const Problem& problem, Layout layout, Border border, NamedTensors named)
    : p(problem),
      q_memory_(floats_of(p.batch, p.heads, p.q_len, p.head_dim, layout), border),
      k_memory_(floats_of(p.batch, p.kv_heads, p.kv_len, p.head_dim, layout), border),
      v_memory_(floats_of(p.batch, p.kv_heads, p.kv_len, p.value_dim, layout), border),
      out_memory_(floats_of(p.batch, p.heads, p.q_len, p.value_dim, layout), border),
      q(view_of(q_memory_, p.batch, p.heads, p.q_len, p.head_dim, layout)),
      k(view_of(k_memory_, p.batch, p.kv_heads, p.kv_len, p.head_dim, layout)),
      v(view_of(v_memory_, p.batch, p.kv_heads, p.kv_len, p.value_dim, layout)),
      out(view_of(out_memory_, p.batch, p.heads, p.q_len, p.value_dim, layout)),
      named_(std::move(named)),
      arrays_{.q = View<const float, 4>(q),
              .k = View<const float, 4>(k),
              .v = View<const float, 4>(v),
              .out = out,
              .more = named_.arrays} {
  const std::string name = to_string(p);
  fill_normal(q, name, 0);
  fill_normal(k, name, 1);
  fill_normal(v, name, 2);
}

void Case::make_inputs_read_only() const {
  for (const Floats* memory : {&q_memory_, &k_memory_, &v_memory_}) memory->make_read_only();
}

void Case::fill_output(float value) const { std::fill(out_memory_.values().begin(), out_memory_.values().end(), value); }

std::vector<float> Case::output() const {
  std::vector<float> values(static_cast<std::size_t>(out.size()));
  for_each_row(out, [&](index_t row, const float* from) { std::copy_n(from, p.value_dim, values.data() + row * p.value_dim); });
  return values;
}

namespace {

struct Placed {
  index_t row, bytes;  // elements from row to row, bytes in all
  Placed(const View<float, 4>& view, DType dtype, Layout layout)
      : row(view.extent(3) + (layout == Layout::padded ? padding_floats * block_of(dtype) : 0)),
        bytes(bytes_of(dtype, view.size() / view.extent(3) * row)) {}
};

}  // namespace

Stored::Rows::Rows(const View<float, 4>& view, DType dtype, Layout layout, Border border)
    : memory((Placed(view, dtype, layout).bytes + 3) / 4, border), from(view) {
  const Placed placed(view, dtype, layout);
  const index_t whole = (placed.bytes + 3) / 4 * 4;
  // Against the guard page, which whole floats may not reach.
  std::byte* first = reinterpret_cast<std::byte*>(memory.data()) + (border == Border::guard_after ? whole - placed.bytes : 0);
  const index_t head = view.extent(2) * placed.row;
  array = Array(dtype, first, view.extents(), std::array<index_t, 4>{view.extent(1) * head, head, placed.row, 1});
}

void Stored::Rows::store() const {
  for_each_row(from, [&](index_t row, float* values) {
    const index_t width = from.extent(3);
    auto* to = const_cast<std::byte*>(array.data()) + bytes_of(array.dtype(), row * array.stride(2));
    round_row(values, width, array.dtype(), to);
    widen_row(array.dtype(), to, width, values);
  });
}

Stored::Stored(const Case& c, DType dtype, DType kv_dtype, Layout layout, Border border)
    : q_(c.q, dtype, layout, border), k_(c.k, kv_dtype, layout, border), v_(c.v, kv_dtype, layout, border), arrays_(c.arrays()) {
  arrays_.q = q_.array, arrays_.k = k_.array, arrays_.v = v_.array;
  store();
}

void Stored::store() const {
  for (const Rows* rows : {&q_, &k_, &v_}) rows->store();
}

NamedTensors named_for(const Variant& variant, const Problem& p) {
  NamedTensors named;
  for (const InputSpec& spec : variant.inputs(p)) draw(spec, parameter_seed, named.add(spec.name, spec.extents));
  return named;
}

ParameterSet<float> parameters_for(const Variant& variant, const Problem& p) {
  const Parameters specs = variant.parameters(p);
  const bool fits = std::ranges::any_of(specs, [](const ParameterSpec& spec) { return spec.fit != nullptr; });
  return make_parameters(specs, parameter_seed, fits ? fit_parameters(specs, Case(p).arrays()) : ParameterSet<float>{});
}

Planned plan_trial(const Variant& variant, const Problem& p, int threads, Workspace::Mode mode) {
  Planned planned(variant, p, threads);
  planned.equip(parameters_for(variant, p), mode);
  return planned;
}

std::vector<float> output_of_run(const Planned& planned, const Arena& arena, const Case& c) {
  c.fill_output(0);
  planned.run(arena, c.arrays());
  return c.output();
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

}  // namespace attn::trial
