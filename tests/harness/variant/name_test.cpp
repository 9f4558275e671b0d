#include "attn/variant/name.hpp"

#include "catch.hpp"

using namespace attn;

namespace {

std::string refusal_of(const char* list) {
  const auto names = parse_variant_names(list);
  return names ? "" : names.reason();
}

bool has(const std::string& text, const std::string& words) { return text.find(words) != std::string::npos; }

}  // namespace

TEST_CASE("a variant's name is an id, an implementation and options, and prints what parses back") {
  const auto name = VariantName::parse(" local @ torch : left = 3,sinks=0");
  REQUIRE(name);
  CHECK(name->id == "local");
  CHECK(name->implementation == "torch");
  CHECK(name->options.all() == std::vector<OptionValue>{{"left", "3"}, {"sinks", "0"}});
  CHECK(name->label() == "local@torch");
  CHECK(name->text() == "local@torch:left=3,sinks=0");
  CHECK(*VariantName::parse(name->text()) == *name);
}

TEST_CASE("a name without an implementation is the page's own, which no text shows") {
  for (const char* text : {"full", "full@native", "full:"}) {
    const auto name = VariantName::parse(text);
    REQUIRE(name);
    CHECK((name->is_native() && name->implementation == "native" && name->text() == "full"));
  }
}

TEST_CASE("an option's value may hold what parts a name, and may be empty") {
  const auto name = VariantName::parse("x:a=b@c:d,e=,f=g=h");
  REQUIRE(name);
  CHECK(name->is_native());
  CHECK(name->options.all() == std::vector<OptionValue>{{"a", "b@c:d"}, {"e", ""}, {"f", "g=h"}});
}

TEST_CASE("values are read by their type") {
  const OptionValues values({{"left", "64"}, {"scale", "0.5"}, {"unique", "yes"}, {"wrap", "ring"}});
  CHECK(values.integer("left") == 64);
  CHECK(values.number("scale") == 0.5);
  CHECK(values.flag("unique"));
  CHECK(values["wrap"] == "ring");
}

TEST_CASE("a comma parts variants, and options where '=' comes before any ':'") {
  const auto names = parse_variant_names("full, local:left=1,right=2 ,full@unfused,local@torch:left=3,sinks=4,linear");
  REQUIRE(names);
  std::vector<std::string> texts;
  for (const VariantName& name : *names) texts.push_back(name.text());
  CHECK(texts == std::vector<std::string>{"full", "local:left=1,right=2", "full@unfused", "local@torch:left=3,sinks=4", "linear"});
}

TEST_CASE("names without a form are refused with what to write") {
  CHECK(has(refusal_of("left=3,full"), "'left=3' is an option without a variant before it"));
  CHECK(has(refusal_of("local,left=3"), "write local:left=3"));
  CHECK(has(refusal_of("local:left"), "local: option 'left' lacks a value: write left=VALUE"));
  CHECK(has(refusal_of("full@"), "lacks the implementation's name after '@'"));
  CHECK(has(VariantName::parse("local:left=3,,sinks=1").reason(), "an option is missing"));
  CHECK(has(VariantName::parse("local:left=3,full").reason(), "option 'full' lacks a value"));
}
