#include "attn/record/csv.hpp"

#include "catch.hpp"

using namespace attn;

using Fields = std::vector<std::string>;

TEST_CASE("fields are quoted where they hold a comma, a quote or a line end, each alone") {
  CHECK(csv_record({"a", "", "b c"}) == "a,,b c\n");
  CHECK(csv_record({"a,b"}) == "\"a,b\"\n");
  CHECK(csv_record({"a\"b"}) == "\"a\"\"b\"\n");
  CHECK(csv_record({"a\nb"}) == "\"a\nb\"\n");
  CHECK(csv_record({"a\rb"}) == "\"a\rb\"\n");
}

TEST_CASE("a record read back is the record that was written") {
  const Fields odd = {"",      "a",   ",",   "\"", "\"\"", "\n",  "\r",       "\r\n",        "a\"b",         "\"a\"",
                      ",\"\n", "a\r", "\ra", "'",  " a ",  "1.5", "\xC3\xA4", "a,b\nc\"d\r", "\xEF\xBB\xBF", "\"\r\""};
  for (const auto& first : odd) {
    for (const auto& second : odd) {
      for (const Fields& record : {Fields{first}, Fields{first, second}, Fields{second, "x", first}}) {
        if (record.front() == "\xEF\xBB\xBF") continue;  // at the start of a text it is the mark of its encoding
        const CsvText csv = parse_csv(csv_record(record) + csv_record(record));
        REQUIRE(csv.records.size() == 2);
        CHECK((csv.records[0] == record && csv.records[1] == record));
      }
    }
  }
}

TEST_CASE("lines that end as on other systems are the same records") {
  CHECK(parse_csv("a,b\r\n1,\"2\"\r\n").records == std::vector<Fields>{{"a", "b"}, {"1", "2"}});
  CHECK(parse_csv("a,\r\n\"b\",\r\n").records == std::vector<Fields>{{"a", ""}, {"b", ""}});
  CHECK(parse_csv("\xEF\xBB\xBF\"a\",b\n").records == std::vector<Fields>{{"a", "b"}});
  CHECK(parse_csv("\xEF\xBB\xBF").records.empty());
}

TEST_CASE("what is not ended is no record") {
  for (const char* torn : {"a", "a,b", "\"a\n", "\"a", "a,\"b\"\"\n"}) {
    CHECK(parse_csv(torn).records.empty());
    const CsvText csv = parse_csv(std::string("x,y\n") + torn);
    CHECK((csv.records.size() == 1 && csv.whole_bytes == 4));
  }
}
