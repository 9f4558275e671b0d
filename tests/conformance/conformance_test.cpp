// Every registered variant, by each of its implementations and with its default options, has the properties of
// attn/prove/conformance.hpp.
#include "attn/prove/conformance.hpp"

#include <cstdio>
#include <cstdlib>
#include <string>

#include "attn/kernels/machine/isa.hpp"
#include "attn/layer/layer_variant.hpp"
#include "catch.hpp"

TEST_CASE("every registered variant conforms") {
  const char* isa = std::getenv("ATTN_ISA");
  if (isa != nullptr) {
    if (attn::kernels::active_isa() == isa) {
      std::puts("this machine takes it by itself: tried without ATTN_ISA");
      std::exit(77);
    }
    if (const attn::Status forced = attn::kernels::force_isa(isa); !forced) {
      std::puts(forced.reason().c_str());
      std::exit(77);  // ctest's "skipped"; that nothing this machine has is refused is test_kernels' to show
    }
    REQUIRE(attn::kernels::active_isa() == isa);
  }
  attn::Registry registry;
  attn::register_builtin_variants(registry);
  const char* chosen = std::getenv("ATTN_VARIANTS");  // as --variants; all without it
  const auto variants = registry.configure_list(chosen != nullptr ? chosen : "*@*");
  REQUIRE((variants && (chosen != nullptr || variants->size() >= registry.all().size())));
  const char* half = std::getenv("ATTN_HALF");  // "1" or "2": every other variant; all without it
  REQUIRE((half == nullptr || half == std::string("1") || half == std::string("2")));
  const std::size_t first = half != nullptr && *half == '2' ? 1 : 0, step = half != nullptr ? 2 : 1;
  attn::index_t of_causality = 0;
  for (std::size_t i = first; i < variants->size(); i += step) {
    const attn::Variant& variant = *(*variants)[i];
    for (const attn::Finding& finding :
         attn::check_conformance(variant, {.threads = 2, .another_isa = isa != nullptr, .meter = attn::program_call_meter()})) {
      INFO(variant.short_name() << ": " << finding.property << " (" << finding.cases << " cases)");
      CHECK(finding.failure == "");
      if (finding.property == "causality") of_causality += finding.cases;
    }
  }
  CHECK((chosen != nullptr || of_causality > 0));
}

TEST_CASE("a layer around a variant conforms as the variant does") {
  attn::Registry registry;
  attn::register_builtin_variants(registry);
  // Not `values`: of tokens of 1e-40 a layer's norm makes values just above the smallest normal number, whose products the kernels
  // count as zero. Nor what says nothing about a layer: it mixes heads, is linear in nothing and has no backward pass.
  const auto chosen =
      attn::chosen_properties("agreement,output,bounds,repeat,threads,scratch,allocations,arena,causality,supports");
  REQUIRE(chosen);
  for (const char* name : {"full", "local", "synth_random", "fnet"}) {
    const auto layer = attn::layer_around(*registry.configure(name), std::make_shared<attn::LayerClock>());
    for (const attn::Property& property : *chosen) {
      const attn::Finding finding = check_property(*layer, property, {.threads = 2, .meter = attn::program_call_meter()});
      INFO(name << ": " << finding.property << " (" << finding.cases << " cases)");
      CHECK(finding.failure == "");
      CHECK((finding.cases > 0 || !finding.none.empty()));
    }
  }
}

TEST_CASE("properties are chosen by id, and an unknown one names the nearest") {
  using namespace attn;
  REQUIRE(chosen_properties("all"));
  CHECK(chosen_properties("all")->size() == properties().size());
  const auto two = chosen_properties("heads, bounds");
  REQUIRE(two);
  CHECK((two->size() == 2 && (*two)[0].id == "heads" && (*two)[1].id == "bounds"));
  const auto none = chosen_properties("bound");
  REQUIRE(!none);
  CHECK(none.reason().find("did you mean 'bounds'?") != std::string::npos);
}
