// One parser under arbitrary bytes. libFuzzer invents them (libfuzzer.cpp); every build replays the corpus (replay.cpp).
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

// Parses and asserts what must hold of everything that is accepted. A refusal is fine, an abort or a sanitizer's word is not.
void fuzz(std::span<const std::byte> bytes);

inline std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
