// The ranks of this process as implementations of variants: full@ring and the like. The first rank has the whole problem, as any worker
// has; it deals tensors out before runs and collects the output after them, outside of every clock. The others wait for what it tells them.
#pragma once

#include "attn/core/result.hpp"
#include "attn/ranks/communicator.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// An implementation id@scheme for each variant that a scheme suits.
void register_rank_schemes(Registry& registry);

// Whether an implementation of this name computes over ranks.
bool computes_over_ranks(std::string_view implementation);

// Whether threads of this process's ranks are pinned to cores; before any plan.
void pin_ranks(bool pin);

// What all ranks but the first do: what the first one tells, until it says that all is done. Ends all ranks when this one cannot go on.
void follow(Communicator& ranks, const Registry& registry);
// The first one's word for it.
void dismiss(Communicator& ranks);

}  // namespace attn
