#include "attn/prove/sampled_rows.hpp"

#include <set>

#include "attn/core/rng.hpp"

namespace attn {

std::vector<index_t> all_rows(index_t rows) {
  std::vector<index_t> list(static_cast<std::size_t>(rows));
  for (index_t i = 0; i < rows; ++i) list[static_cast<std::size_t>(i)] = i;
  return list;
}

std::vector<index_t> sampled_rows(index_t rows, index_t count) {
  if (rows <= count) return all_rows(rows);
  std::set<index_t> chosen = {0, rows - 1};
  const Rng rng(0, "sampled rows");
  for (index_t i = 0; static_cast<index_t>(chosen.size()) < count; ++i) chosen.insert(rng.below(i, rows));
  return {chosen.begin(), chosen.end()};
}

}  // namespace attn
