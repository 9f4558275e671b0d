#include "attn/variant/options.hpp"

#include "attn/variant/registry.hpp"
#include "catch.hpp"

using namespace attn;

namespace {

enum class Kind { plain, fancy };
struct Sample {
  index_t count = 3;
  double rate = 0.5;
  bool loud = false;
  Kind kind = Kind::plain;
  std::vector<index_t> positions = {1, 2};
};

OptionTable<Sample> table() {
  return OptionTable<Sample>()
      .integer("count", &Sample::count, 1, 10, "how many")
      .number("rate", &Sample::rate, 0, 1, "how fast")
      .flag("loud", &Sample::loud, "how loud")
      .choice("kind", &Sample::kind, {{"plain", Kind::plain}, {"fancy", Kind::fancy}}, "how")
      .positions("positions", &Sample::positions, "where");
}

}  // namespace

TEST_CASE("options print canonically and parse back") {
  CHECK(table().print({}).text() == "count=3,rate=0.5,loud=no,kind=plain,positions=1/2");
  const auto parsed = table().parse("kind=fancy, count=7 ,positions=,loud=yes");
  REQUIRE(parsed);
  CHECK((parsed->count == 7 && parsed->kind == Kind::fancy && parsed->loud && parsed->positions.empty() && parsed->rate == 0.5));
  CHECK(table().print(*table().parse(table().print(*parsed))) == table().print(*parsed));
  CHECK(table().print(*table().parse("")) == table().print({}));
}

TEST_CASE("options are refused with what was given and what is accepted") {
  const auto reason = [](const char* text) { return table().parse(text).reason(); };
  CHECK(reason("cout=2").find("did you mean 'count'") != std::string::npos);
  CHECK(reason("count=11").find("1..10") != std::string::npos);
  CHECK(reason("count=two").find("'two'") != std::string::npos);
  CHECK(reason("rate=nan").find("0..1") != std::string::npos);
  CHECK(reason("kind=odd").find("plain|fancy") != std::string::npos);
  CHECK(reason("count").find("lacks a value") != std::string::npos);
  CHECK(reason("count=1,count=2").find("twice") != std::string::npos);
  CHECK(reason("positions=1/x").find("0/5/17") != std::string::npos);
}

TEST_CASE("the docs carry range and default") {
  const auto docs = table().docs();
  REQUIRE(docs.size() == 5);
  CHECK((docs[0].name == "count" && docs[0].range == "1..10" && docs[0].default_value == "3"));
  CHECK(docs[3].range == "plain|fancy");
}
