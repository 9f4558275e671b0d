// A variant run under chosen circumstances: how its arrays lie in memory, what borders on them, what output and scratch hold
// beforehand.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "attn/exec/arena.hpp"
#include "attn/inputs/tensors.hpp"
#include "attn/variant/planned.hpp"

namespace attn::trial {

enum class Layout {
  dense,
  interleaved,  // memory is [B,N,H,D], as frameworks project it
  padded,       // rows lie an odd number of floats further apart than they are long
};
std::string_view to_string(Layout layout);

enum class Border {
  soft,         // a page of zeros on either side
  guard_after,  // the last float is followed by a page that nobody may touch
  guard_before,
};

// Floats of their own pages, zero at first.
class Floats {
 public:
  Floats(index_t count, Border border);
  Floats(const Floats&) = delete;
  Floats& operator=(const Floats&) = delete;
  ~Floats();

  float* data() const { return data_; }
  std::span<float> values() const { return {data_, count_}; }
  void make_read_only() const;

 private:
  std::size_t count_, page_bytes_, inner_bytes_;
  std::byte* base_ = nullptr;
  float* data_ = nullptr;
};

// Tensors of one problem. Q, K and V are N(0,1), a function of the problem alone.
class Case {
 public:
  explicit Case(const Problem& problem, Layout layout = Layout::dense, Border border = Border::soft, NamedTensors named = {});

  const Arrays& arrays() const { return arrays_; }  // of q, k, v and out
  void make_inputs_read_only() const;
  void fill_output(float value) const;
  std::vector<float> output() const;  // row-major, whatever the layout

  const Problem p;

 private:
  Floats q_memory_, k_memory_, v_memory_, out_memory_;

 public:
  const View<float, 4> q, k, v, out;

 private:
  const NamedTensors named_;
  Arrays arrays_;
};

// Q, K and V of a case as number types store them, in rows of their own; the case's are rounded to the same numbers. Padded: an odd number of
// elements, or of blocks, lies between rows.
class Stored {
 public:
  Stored(const Case& c, DType dtype, DType kv_dtype, Layout layout = Layout::dense, Border border = Border::soft);

  const Arrays& arrays() const { return arrays_; }  // of q, k, v and the case's out
  void store() const;                               // once more, what the case holds now

 private:
  struct Rows {
    Floats memory;
    View<float, 4> from;
    Array array;
    Rows(const View<float, 4>& view, DType dtype, Layout layout, Border border);
    void store() const;
  };
  Rows q_, k_, v_;
  Arrays arrays_;
};

// What the variant reads beside q, k and v, likewise.
NamedTensors named_for(const Variant& variant, const Problem& p);

inline constexpr std::uint64_t parameter_seed = 11;

// From that seed; what is fitted, to the values of Case(p), which are the same in every layout.
ParameterSet<float> parameters_for(const Variant& variant, const Problem& p);

// Planned, with these parameters. A fresh workspace is zeros (plain) or NaN with patterned gaps (checked).
Planned plan_trial(const Variant& variant, const Problem& p, int threads, Workspace::Mode mode = Workspace::Mode::plain);

// Output of a run on an output of zeros.
std::vector<float> output_of_run(const Planned& planned, const Arena& arena, const Case& c);

bool same_bits(std::span<const float> a, std::span<const float> b);

}  // namespace attn::trial
