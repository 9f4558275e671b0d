#include "attn/core/assert.hpp"
#include "attn/program/flags.hpp"
#include "fuzz.hpp"

using namespace attn;

void fuzz(std::span<const std::byte> bytes) {
  const auto arguments = config_arguments(as_text(bytes), "fuzz.toml", {"input", "plugin"});
  if (!arguments) return;
  for (const auto& argument : *arguments) ATTN_ASSERT(argument.starts_with("--") && argument.find('=') != std::string::npos);
}
