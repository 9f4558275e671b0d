// For variants whose sequences are computed together.
#pragma once

#include "run.hpp"

namespace attn::test {

// To the bit.
inline void check_batch_is_its_sequences(std::string_view name) {
  Problem p = problem(37, 19, false, 2);
  for (const index_t batch : {2, 6, 7, 13}) {
    p.batch = batch;
    const Qkv in = arrays(p);
    const auto together = run(name, p, in, {.threads = 1});
    for (const index_t b : {index_t{0}, batch - 1}) {
      Problem alone = p;
      alone.batch = 1;
      Qkv one = in;
      one.q = slice(in.q, 0, b, b + 1), one.k = slice(in.k, 0, b, b + 1), one.v = slice(in.v, 0, b, b + 1);
      INFO("batch=" << batch << " b=" << b);
      CHECK(largest_difference(slice(together, 0, b, b + 1), run(name, alone, one, {.threads = 1})) == 0);
    }
  }
}

}  // namespace attn::test
