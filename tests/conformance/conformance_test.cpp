// Every registered variant, with its default options, has the properties of attn/measure/conformance.hpp.
#include "attn/measure/conformance.hpp"

#include <cstdlib>

#include "attn/kernels/isa.hpp"
#include "catch.hpp"

TEST_CASE("every registered variant conforms") {
  const char* isa = std::getenv("ATTN_ISA");
  if (isa != nullptr) {
    REQUIRE(attn::kernels::force_isa(isa));
    REQUIRE(attn::kernels::active_isa() == isa);
  }
  attn::Registry registry;
  attn::register_builtin_variants(registry);
  REQUIRE(!registry.all().empty());
  attn::index_t of_causality = 0;
  for (const auto& type : registry.all()) {
    const auto variant = registry.configure(type->id);
    REQUIRE(variant);
    for (const attn::Finding& finding : attn::check_conformance(
             **variant, {.threads = 2, .gradient = isa == nullptr, .meter = attn::program_call_meter()})) {
      INFO(type->id << ": " << finding.property << " (" << finding.cases << " cases)");
      CHECK(finding.failure == "");
      if (finding.property == "causality") of_causality += finding.cases;
    }
  }
  CHECK(of_causality > 0);
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
