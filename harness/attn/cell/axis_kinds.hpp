// Kinds of axes: of numbers, of names, of a type's few values, of any text.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "attn/cell/axes.hpp"
#include "attn/cell/values.hpp"
#include "attn/core/text.hpp"

namespace attn::axis_kinds {

using AxisValues = Result<std::vector<AxisValue>>;

inline Result<AxisValue> read_number(std::string_view text) {
  const auto value = parse_integer(text);
  if (!value) return value.refusal();
  return AxisValue(*value);
}

// A number. `at(cell)` is where it lies, in a cell that is const or not.
template <class At>
Axis number(Axis axis, index_t low, index_t high, At at) {
  axis.parse = [low, high](std::string_view text, const Registry&) -> AxisValues {
    const auto values = parse_axis(text, low, high);
    if (!values) return values.refusal();
    return std::vector<AxisValue>(values->begin(), values->end());
  };
  axis.read = read_number;
  axis.set = [at](Cell& cell, const AxisValue& value) {
    auto& field = at(cell);
    field = static_cast<std::decay_t<decltype(field)>>(std::get<index_t>(value));
  };
  axis.get = [at](const Cell& cell) { return AxisValue(static_cast<index_t>(at(cell))); };
  return axis;
}

// A name, which each part of a list must `read`.
template <class Read>
Axis name(Axis axis, Read read) {
  axis.number = false;
  axis.read = read;
  axis.parse = [read](std::string_view text, const Registry&) -> AxisValues {
    std::vector<AxisValue> values;
    for (const auto part : split(text, ',')) {
      auto value = read(trim(part));
      if (!value) return value.refusal();
      if (std::find(values.begin(), values.end(), *value) == values.end()) values.push_back(*std::move(value));
    }
    return values;
  };
  return axis;
}

// One of a type's few values, with its to_string and its parser.
template <class T, class At>
Axis choice(Axis axis, Result<T> (*parse)(std::string_view), At at) {
  axis = name(std::move(axis), [parse](std::string_view text) -> Result<AxisValue> {
    const auto value = parse(text);
    if (!value) return value.refusal();
    return AxisValue(std::string(to_string(*value)));
  });
  axis.set = [parse, at](Cell& cell, const AxisValue& value) { at(cell) = parse(std::get<std::string>(value)).value(); };
  axis.get = [at](const Cell& cell) { return AxisValue(std::string(to_string(at(cell)))); };
  return axis;
}

// Any text.
template <class At>
Axis text(Axis axis, At at) {
  axis = name(std::move(axis), [](std::string_view given) -> Result<AxisValue> { return AxisValue(std::string(given)); });
  axis.set = [at](Cell& cell, const AxisValue& value) { at(cell) = std::get<std::string>(value); };
  axis.get = [at](const Cell& cell) { return AxisValue(at(cell)); };
  return axis;
}

}  // namespace attn::axis_kinds
