#include "attn/program/flags.hpp"

#include "catch.hpp"

using namespace attn;

TEST_CASE("a memory limit in which no worker starts is refused") {
  CHECK(*read_memory_limit("16M") == index_t{16} << 20);
  for (const char* text : {"0", "1", "1K", "15M"}) CHECK(read_memory_limit(text).reason().find(text) != std::string::npos);
}
