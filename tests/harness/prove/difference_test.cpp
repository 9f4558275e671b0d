#include "attn/prove/difference.hpp"

#include <vector>

#include "catch.hpp"

namespace attn {

TEST_CASE("numbers in ranges, of many the first few") {
  CHECK(ranges_text(std::vector<index_t>{}) == "");
  CHECK(ranges_text(std::vector<index_t>{4}) == "4");
  CHECK(ranges_text(std::vector<index_t>{0, 1, 2, 7, 9, 10}) == "0..2, 7, 9..10");
  CHECK(ranges_text(std::vector<index_t>{0, 2, 4, 6, 8, 9}) == "0, 2, 4, 6 and 2 more");
}

TEST_CASE("weights tell which keys one side alone looks at") {
  const std::vector<double> definition{0.5, 0.5, 0, 0};
  CHECK(weights_text(3, std::vector<double>{0.5, 0.25, 0.125, 0.125}, definition) ==
        "query 3 weighs keys 2..3 (0.25 in all), which the definition does not");
  CHECK(weights_text(3, std::vector<double>{1, 0, 0, 0}, definition) ==
        "query 3 does not weigh key 1 (0.5), which the definition does");
  CHECK(weights_text(3, std::vector<double>{0.5, 0, 0.5, 0}, definition) ==
        "query 3 weighs key 2 (0.5), which the definition does not and does not weigh key 1 (0.5), which the definition does");
  CHECK(weights_text(0, std::vector<double>{0.75, 0.5, 0, 0}, definition) ==
        "query 0 weighs the same keys as the definition, key 0 by 0.75 instead of 0.5, all of them by 1.25 instead of 1");
  CHECK(weights_text(0, definition, definition) == "");
}

}  // namespace attn
