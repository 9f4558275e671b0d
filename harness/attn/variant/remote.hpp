// Plans that compute in processes of their own: guests (attn/guest), ranks (attn/ranks).
#pragma once

#include <optional>
#include <stdexcept>
#include <string>

#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"

namespace attn {

// Of a run over ranks. What a rank does is that of the rank that does the most of it.
struct RankFigures {
  index_t sent_bytes = 0, sent_bytes_formula = 0;        // in a run: counted where messages leave, and by the scheme's formula
  index_t sent_messages = 0, sent_messages_formula = 0;  // likewise
  index_t held_bytes = 0;                                // a rank's tensors and booked workspace
  double exposed = 0;                                    // share of the time that is gone when no message is sent
  double messages_s = 0;                                 // seconds of the same messages without arithmetic
  double imbalance = 0;                                  // longest time of a rank's arithmetic over the mean
};

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
  // Of ranks, after some runs.
  virtual std::optional<RankFigures> over_ranks() { return {}; }
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
