// Every registered variant, with its default options, has the properties of attn/measure/conformance.hpp.
#include <atomic>
#include <cstdlib>
#include <new>

#include "attn/kernels/isa.hpp"
#include "attn/measure/conformance.hpp"
#include "catch.hpp"

namespace {

std::atomic<attn::index_t> allocation_count{0};

attn::index_t allocations() { return allocation_count.load(); }

void* counted(std::size_t bytes, std::size_t alignment) {
  ++allocation_count;
  void* memory = alignment > alignof(std::max_align_t) ? std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment)
                                                       : std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t bytes) { return counted(bytes, 0); }
void* operator new[](std::size_t bytes) { return counted(bytes, 0); }
void* operator new(std::size_t bytes, std::align_val_t a) { return counted(bytes, static_cast<std::size_t>(a)); }
void* operator new[](std::size_t bytes, std::align_val_t a) { return counted(bytes, static_cast<std::size_t>(a)); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

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
    attn::index_t tried = 0;
    for (const auto& property : attn::check_conformance(**variant, {.threads = 2, .gradient = isa == nullptr, .allocations = allocations})) {
      INFO(type->id << ": " << property.name << " (" << property.cases << " cases)");
      CHECK(property.failure == "");
      tried += property.cases;
      if (property.name.find("causal") == 0) of_causality += property.cases;
    }
    INFO(type->id << " supports none of the problems tried");
    CHECK(tried > 0);
  }
  CHECK(of_causality > 0);
}
