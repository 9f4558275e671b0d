// Tables of pages: what is accepted names pages of the pool, each once. The first bytes are sequences and pool, then 1 or 4 bytes a page.
#include "attn/exec/pages.hpp"

#include <cstring>
#include <set>
#include <vector>

#include "attn/core/assert.hpp"
#include "fuzz.hpp"

using namespace attn;

void fuzz(std::span<const std::byte> bytes) {
  if (bytes.size() < 3) return;
  const auto number = [&](std::size_t at) { return static_cast<index_t>(static_cast<signed char>(bytes[at])); };
  const index_t sequences = number(0), pool = number(1) & 127;
  std::vector<std::int32_t> table;
  if (number(2) >= 0) {
    for (std::size_t at = 3; at < bytes.size(); ++at) table.push_back(static_cast<std::int32_t>(number(at)));
  } else {
    table.resize((bytes.size() - 3) / sizeof(std::int32_t));
    if (!table.empty()) std::memcpy(table.data(), bytes.data() + 3, table.size() * sizeof(std::int32_t));
  }
  const auto pages = PageTable::of(table, sequences, pool);
  if (!pages) return;
  ATTN_ASSERT(pages->pool() == pool && pages->each() * sequences == std::ssize(table));
  ATTN_ASSERT(std::set<std::int32_t>(table.begin(), table.end()).size() == table.size());
  for (const std::int32_t page : table) ATTN_ASSERT(page >= 0 && page < pool);
}
