#include "attn/exec/pages.hpp"

#include <numeric>
#include <string>

#include "attn/core/assert.hpp"
#include "attn/core/rng.hpp"

namespace attn {

Result<PageTable> PageTable::of(std::vector<std::int32_t> table, index_t sequences, index_t pool) {
  const index_t pages = std::ssize(table);
  if (sequences < 1 || pages % sequences != 0)
    return refuse("a table of " + std::to_string(pages) + " pages is not as long for each of " + std::to_string(sequences) +
                  " sequences");
  std::vector<index_t> taken(static_cast<std::size_t>(pool), -1);
  for (index_t i = 0; i < pages; ++i) {
    const std::int32_t page = table[static_cast<std::size_t>(i)];
    const auto at = [&](index_t place) { return "sequence " + std::to_string(place / (pages / sequences)); };
    if (page < 0 || page >= pool)
      return refuse("page " + std::to_string(page) + " of " + at(i) + " is outside of the pool: 0.." + std::to_string(pool - 1) +
                    " are accepted");
    index_t& owner = taken[static_cast<std::size_t>(page)];
    if (owner >= 0)
      return refuse("page " + std::to_string(page) + " stands twice, for " + at(owner) + " and " + at(i) +
                    ": a page holds tokens of one place");
    owner = i;
  }
  return PageTable(std::move(table), pages / sequences, pool);
}

PageTable PageTable::shuffled(index_t sequences, index_t each) {
  std::vector<std::int32_t> table(static_cast<std::size_t>(sequences * each));
  std::iota(table.begin(), table.end(), 0);
  const Rng rng(1, "order of pages");
  for (index_t i = std::ssize(table) - 1; i > 0; --i)
    std::swap(table[static_cast<std::size_t>(i)], table[static_cast<std::size_t>(rng.below(i, i + 1))]);
  return PageTable(std::move(table), each, sequences * each);
}

KeyLayout PageTable::layout(index_t page_rows, index_t k_page_stride, index_t v_page_stride) const {
  return {.pages = table_.data(),
          .pages_stride = each_,
          .page_rows = page_rows,
          .k_page_stride = k_page_stride,
          .v_page_stride = v_page_stride};
}

}  // namespace attn
