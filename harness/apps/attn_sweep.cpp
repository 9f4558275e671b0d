#include "attn/prove/call_meter.hpp"
#include "attn/sweep/sweep.hpp"
#include "attn/verify/verify.hpp"

namespace {

int verify_instead(const attn::SweepOptions& o, const attn::Registry& registry) {
  return attn::verify({.variants = o.asked("variant"),
                       .property = o.property,
                       .format = o.format,
                       .threads = o.asked("threads"),
                       .memory_limit = o.memory_limit,
                       .timeout_s = o.timeout_s,
                       .plugins = o.plugins,
                       .guests = o.guests,
                       .prefer = o.prefer,
                       .guest_specs = o.guest_specs,
                       .quiet = o.quiet},
                      registry);
}

}  // namespace

int main(int argc, char** argv) {
  auto kinds = attn::sweep_kinds();
  kinds.push_back(attn::verify_kind(attn::program_call_meter()));
  return attn::sweep_main(argc, argv, kinds, verify_instead);
}
