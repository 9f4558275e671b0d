// Refusals as values. A Refusal is one sentence that says what was given and what is accepted.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "attn/core/assert.hpp"

namespace attn {

struct Refusal {
  std::string reason;
};

inline Refusal refuse(std::string reason) { return {std::move(reason)}; }

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Refusal refusal) : state_(std::in_place_index<1>, std::move(refusal)) {}

  explicit operator bool() const { return state_.index() == 0; }

  T& value() & { return ATTN_ASSERT(*this), *std::get_if<0>(&state_); }
  const T& value() const& { return ATTN_ASSERT(*this), *std::get_if<0>(&state_); }
  T&& value() && { return ATTN_ASSERT(*this), std::move(*std::get_if<0>(&state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const std::string& reason() const { return ATTN_ASSERT(!*this), std::get_if<1>(&state_)->reason; }
  Refusal refusal() const { return {reason()}; }

 private:
  std::variant<T, Refusal> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Refusal refusal) : refusal_(std::move(refusal)) {}

  explicit operator bool() const { return !refusal_; }
  const std::string& reason() const { return ATTN_ASSERT(refusal_), refusal_->reason; }
  Refusal refusal() const { return {reason()}; }

 private:
  std::optional<Refusal> refusal_;
};

using Status = Result<void>;

}  // namespace attn
