// A list of columns as it is written down: each says where in a row its value lies, and is printed and read from there.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/record/schema.hpp"

namespace attn {

// Six digits: a clock or an error does not have more, and they read back as they were written. The largest double is "inf".
std::string print_field(double value);
std::string print_field(std::integral auto value) { return std::to_string(value); }

// False where the text is no value of this type.
bool read_field(const std::string& text, double& value);
bool read_field(const std::string& text, bool& value);
bool read_field(const std::string& text, index_t& value);
bool read_field(const std::string& text, std::uint64_t& value);
bool read_field(const std::string& text, int& value);
template <class T>
bool read_field(const std::string& text, T& value, Result<T> (*parse)(std::string_view)) {
  const auto named = parse(text);
  if (named) value = *named;
  return static_cast<bool>(named);
}

std::string print_list(const std::vector<double>& values);  // value;value;...
bool read_list(const std::string& text, std::vector<double>& values);

// `at(row)`, where a column takes one, is the value in a row, const or not: [](auto& r) -> auto& { return r.value; }.
template <class Row>
class ColumnList {
 public:
  void add(ColumnInfo info, std::function<std::string(const Row&)> get, std::function<bool(Row&, const std::string&)> set) {
    list_.push_back({std::move(info), std::move(get), std::move(set)});
  }

  template <class At>
  void text(ColumnInfo info, At at) {
    info.holds = Holds::text;
    add(
        std::move(info), [at](const Row& r) { return std::string(at(r)); },
        [at](Row& r, const std::string& field) { return at(r) = field, true; });
  }

  // One of a few names, with its to_string and parser.
  template <class At, class T>
  void choice(ColumnInfo info, At at, Result<T> (*parse)(std::string_view)) {
    info.holds = Holds::text;
    add(
        std::move(info), [at](const Row& r) { return std::string(to_string(at(r))); },
        [at, parse](Row& r, const std::string& field) { return read_field(field, at(r), parse); });
  }

  // A number that every row has.
  template <class At>
  void number(ColumnInfo info, At at) {
    add(
        std::move(info), [at](const Row& r) { return print_field(at(r)); },
        [at](Row& r, const std::string& field) { return read_field(field, at(r)); });
  }

  // A number of the rows that `shown` names; what others hold there is not told.
  template <class At, class Shown>
  void number_if(ColumnInfo info, Shown shown, At at) {
    add(
        std::move(info), [at, shown](const Row& r) { return shown(r) ? print_field(at(r)) : ""; },
        [at](Row& r, const std::string& field) { return field.empty() || read_field(field, at(r)); });
  }

  // A number of a part that a row has or not, as the flag done(row) says.
  template <class Done, class At>
  void part(ColumnInfo info, Done done, At at) {
    add(
        std::move(info), [done, at](const Row& r) { return done(r) ? print_field(at(r)) : ""; },
        [done, at](Row& r, const std::string& field) {
          if (field.empty()) return true;
          done(r) = true;
          return read_field(field, at(r));
        });
  }

  // A std::optional<double>.
  template <class At>
  void optional(ColumnInfo info, At at) {
    add(
        std::move(info), [at](const Row& r) { return at(r) ? print_field(*at(r)) : ""; },
        [at](Row& r, const std::string& field) { return field.empty() || read_field(field, at(r).emplace()); });
  }

  // Below zero: not measured.
  template <class At>
  void natural(ColumnInfo info, At at) {
    add(
        std::move(info), [at](const Row& r) { return at(r) >= 0 ? print_field(at(r)) : ""; },
        [at](Row& r, const std::string& field) {
          at(r) = -1;
          return field.empty() || read_field(field, at(r));
        });
  }

  // What other columns tell exactly: nothing is lost by not reading it.
  void derived(ColumnInfo info, std::function<std::string(const Row&)> get) {
    add(std::move(info), std::move(get), [](Row&, const std::string& field) {
      double ignored = 0;
      return field.empty() || read_field(field, ignored);
    });
  }

  std::vector<Column<Row>> take() { return std::move(list_); }

 private:
  std::vector<Column<Row>> list_;
};

}  // namespace attn
