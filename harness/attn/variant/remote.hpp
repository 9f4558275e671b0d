// Plans that compute in a process of their own (attn/guest).
#pragma once

#include <stdexcept>
#include <string>

#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"

namespace attn {

// What the harness asks of such a plan after a first run. Throws RemoteError.
class Remote {
 public:
  virtual ~Remote() = default;
  // So many runs on what the last run read, one after the other; seconds of all of them by the clock of the process that ran them.
  virtual double runs(index_t times) = 0;
  // Whether those seconds agree with what passed here meanwhile.
  virtual Status clock_agrees() const = 0;
  // Peak of that process's resident memory in its first run, above the level before; -1: unreadable.
  virtual index_t peak_bytes() const = 0;
};

// What such a process did, in one sentence. `refused`: it does not do what it was asked, which is no fault of it.
class RemoteError : public std::runtime_error {
 public:
  enum class Kind { refused, failed };
  RemoteError(Kind kind, const std::string& sentence) : std::runtime_error(sentence), kind_(kind) {}
  bool refused() const { return kind_ == Kind::refused; }

 private:
  Kind kind_;
};

}  // namespace attn
