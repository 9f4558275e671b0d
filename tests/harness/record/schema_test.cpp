#include "attn/record/schema.hpp"

#include "catch.hpp"

using namespace attn;

namespace {

const std::vector<ColumnInfo> columns = {{"id", "what it is", "", Role::key, Better::neither, Holds::text},
                                         {"time_s", "how long it took", "s", Role::measure, Better::lower},
                                         {"skill", "how well it did", "", Role::accuracy, Better::higher}};

}  // namespace

TEST_CASE("columns are told with their role, unit and which way is better") {
  CHECK(columns_text(columns) ==
        "id                   key       what it is\n"
        "time_s               measure   how long it took [s] (lower is better)\n"
        "skill                accuracy  how well it did (higher is better)\n");
}

TEST_CASE("every role, direction and kind has its word") {
  const std::pair<Role, std::string_view> roles[] = {{Role::key, "key"},
                                                     {Role::fact, "fact"},
                                                     {Role::measure, "measure"},
                                                     {Role::accuracy, "accuracy"},
                                                     {Role::context, "context"}};
  for (const auto& [role, word] : roles) CHECK(to_string(role) == word);
  CHECK((to_string(Better::neither) == "neither" && to_string(Better::lower) == "lower" && to_string(Better::higher) == "higher"));
  CHECK((to_string(Holds::text) == "text" && to_string(Holds::number) == "number"));
}

TEST_CASE("a record as a line of JSON has names in order, numbers as they are written, and null for none") {
  CHECK(json_line(columns, {"1", "0.250", ""}) == "{\"id\":\"1\",\"time_s\":0.25,\"skill\":null}\n");
  CHECK(json_line(columns, {"a\"\xFF", "inf", "-2"}) == "{\"id\":\"a\\\"\xEF\xBF\xBD\",\"time_s\":null,\"skill\":-2}\n");
}

TEST_CASE("a header has the names in order, and each name its place") {
  CHECK(header_line(columns) == "id,time_s,skill\n");
  CHECK((column_index(columns, "id") == 0 && column_index(columns, "skill") == 2));
}
