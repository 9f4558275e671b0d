#include "attn/cell/values.hpp"

#include "catch.hpp"

using namespace attn;

TEST_CASE("axes are lists, geometric and arithmetic ranges") {
  const auto values = [](const char* text) { return *parse_axis(text, 1, 100'000); };
  CHECK(values("5") == std::vector<index_t>{5});
  CHECK(values("3,1,3") == std::vector<index_t>{3, 1});
  CHECK(values("128..1024*2") == std::vector<index_t>{128, 256, 512, 1024});
  CHECK(values("128..1000*2") == std::vector<index_t>{128, 256, 512});
  CHECK(values("10..40+10") == std::vector<index_t>{10, 20, 30, 40});
  CHECK(values("2..4") == std::vector<index_t>{2, 3, 4});
  CHECK(values("7,1..4*2") == std::vector<index_t>{7, 1, 2, 4});
}

TEST_CASE("axes that are no axes are refused with the given text") {
  for (const char* text :
       {"", "x", "0", "1,", "4..2", "1..8*1", "1..8+0", "1..", "..8", "1..1000000*2", "9999999999999999999", "1..100000"}) {
    INFO(text);
    CHECK_FALSE(parse_axis(text, 1, 100'000));
  }
  CHECK(parse_axis("12x", 1, 100).reason().find("12x") != std::string::npos);
}

TEST_CASE("axes end where the next value would overflow, and do not stand still at zero") {
  CHECK(*parse_axis("1..5+9223372036854775807", 1, 100) == std::vector<index_t>{1});
  CHECK(*parse_axis("3..9*4611686018427387904", 1, 100) == std::vector<index_t>{3});
  CHECK(*parse_axis("0..2", 0, 100) == std::vector<index_t>{0, 1, 2});
  CHECK(parse_axis("0..5*2", 0, 100).reason().find("does not advance") != std::string::npos);
}

TEST_CASE("sizes in bytes") {
  CHECK(*parse_bytes("512") == 512);
  CHECK(*parse_bytes("3K") == 3072);
  CHECK(*parse_bytes("8G") == index_t{8} << 30);
  for (const char* text : {"", "K", "-1", "1Q", "99999999999T"}) CHECK_FALSE(parse_bytes(text));
}
