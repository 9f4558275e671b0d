#include "attn/variant/alias.hpp"

#include "attn/sweep/listing.hpp"
#include "catch.hpp"
#include "harness/variant_of.hpp"

using namespace attn;
using attn::test::registry;

TEST_CASE("a word that people type leads to the variant that does it, or to the flag") {
  for (const Alias& alias : aliases()) {
    INFO(alias.word);
    CHECK(registry().find(alias.word) == nullptr);
    const auto variant = registry().configure(alias.word);
    if (alias.name.empty()) {
      CHECK(variant.reason().find(std::string(alias.how)) != std::string::npos);
    } else {
      REQUIRE(variant);
      CHECK((*variant)->name() == (*registry().configure(alias.name))->name());
    }
  }
}

TEST_CASE("words are taken with their own options, in any case, and said once") {
  CHECK((*registry().configure("Sliding-Window:left=3"))->short_name() == "local:left=3");
  CHECK(registry().renamed("full,flash") == "flash is called full here");
  CHECK(registry().renamed("streaming_llm") == "streaming_llm is called local:right=0,sinks=4 here");
  CHECK(registry().renamed("gqa").empty());
  CHECK(registry().configure("gqa").reason().find("--kv-heads 8") != std::string::npos);
}

TEST_CASE("lists fit the width that they are given") {
  for (const std::string& text : {list_text(registry(), 80), list_whole("local,linformer", registry(), 80).value()}) {
    std::size_t begin = 0;
    for (std::size_t end = text.find('\n'); end != std::string::npos; begin = end + 1, end = text.find('\n', begin)) {
      INFO(text.substr(begin, end - begin));
      CHECK((end - begin <= 80 || text.substr(begin, end - begin).find(' ', 40) == std::string::npos));
    }
  }
  const std::string whole = list_whole("local", registry()).value();
  for (const char* part : {"family", "sinks=0", "softmax over", "Beltagy"}) CHECK(whole.find(part) != std::string::npos);
  CHECK(list_whole("lokal", registry()).reason().find("did you mean 'local'?") != std::string::npos);
}
