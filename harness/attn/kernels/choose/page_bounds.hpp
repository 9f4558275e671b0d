// For each query the past pages of keys in which some key may have the largest product with it, by the least and the largest number of each
// channel in a page. As in grouping.hpp the same floats give the same table, whichever queries are asked for; ties go to the page that comes
// first, and a bound that is no number is never chosen.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/view.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

class PageBounds {
 public:
  // A query at position i chooses `take` of the pages 0 .. i / page - 1, all of whose keys come before it, and sees its own page.
  PageBounds(const Problem&, index_t page, index_t take, WorkspacePlan&);

  // Of a head: [2 D, pages], the largest numbers of the channels, then the least. Takes in keys `first` .. first + count - 1, which follow
  // those that it was given before.
  void take_in(index_t first, index_t count, Rows k, float* bounds) const;
  index_t pages() const { return pages_; }
  index_t floats() const { return 2 * p_.head_dim * pages_; }  // of a head's bounds

  // Of `count` queries of every head, rows first, first + 1, ... of q [B,H,N,D] at positions from `position` on, and bounds one after the other
  // of each kv head: writes lists, [B,H,count,list_size()] each a number of pages and then the pages, ascending, the own one last. On the
  // threads of the arena.
  struct Queries {
    const View<const float, 4>& q;
    index_t first, count, position;
  };
  void choose(const Queries&, const float* bounds, const Workspace&, std::int32_t* lists) const;
  index_t list_size() const { return take_ + 2; }

 private:
  friend std::vector<std::int32_t> chosen_pages(const Problem&, index_t page, index_t take, const float* q,
                                                std::span<const index_t> position, const float* k);

  // Rows of a head; position(i) of row i does not fall.
  template <class F>
  void choose(Rows q, index_t count, F position, const float* bounds, float* scratch, std::int32_t* lists) const;

  Problem p_;
  index_t page_, take_;
  index_t pages_;
  Booking<float> floats_;
};

// For a definition, on the calling thread: the lists of the rows of q [B,H,rows,D] at ascending positions. q and k are dense.
std::vector<std::int32_t> chosen_pages(const Problem&, index_t page, index_t take, const float* q,
                                       std::span<const index_t> position, const float* k);

}  // namespace attn::kernels
