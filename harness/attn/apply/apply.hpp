// attn_apply: one variant on somebody's Q, K and V, by the path that the sweep measures.
#pragma once

namespace attn {

// The program. 0: output written; 1: written, but the fast path misses its definition; 2: usage or bad input; 6: not written.
int apply_main(int argc, char** argv);

}  // namespace attn
