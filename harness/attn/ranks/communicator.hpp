// How the ranks of one computation talk: messages between two of them, in the order in which they are sent. Schedules are written in these
// verbs alone, so that what a rank sends, and in which order sums are made, is theirs to say and not a library's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace attn {

// What one rank sent.
struct Traffic {
  std::int64_t bytes = 0, messages = 0;
  friend bool operator==(const Traffic&, const Traffic&) = default;
  Traffic& operator+=(const Traffic& other) { return bytes += other.bytes, messages += other.messages, *this; }
  friend Traffic operator-(const Traffic& a, const Traffic& b) { return {a.bytes - b.bytes, a.messages - b.messages}; }
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Both return at once; the memory is the message's until wait().
  virtual void start_send(int to, std::span<const std::byte> message) = 0;
  virtual void start_receive(int from, std::span<std::byte> message) = 0;
  virtual void wait() = 0;      // for all that was started
  virtual void progress() = 0;  // lets messages move on meanwhile; from the thread that started them, as all verbs

  virtual void barrier() = 0;
  virtual double largest(double mine) = 0;  // of all ranks
  // Waits for a message without using the processor: for who has nothing to do.
  virtual void receive_idly(int from, std::span<std::byte> message) = 0;
  // What start_send() has sent so far, counted where the messages leave.
  virtual Traffic sent() const = 0;
  // Ends all ranks: this one cannot go on. `why`: a sentence for people.
  [[noreturn]] virtual void abort(const std::string& why) = 0;
};

// One rank, which is all of them.
class Alone final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void start_send(int, std::span<const std::byte>) override;
  void start_receive(int, std::span<std::byte>) override;
  void wait() override {}
  void progress() override {}
  void barrier() override {}
  double largest(double mine) override { return mine; }
  void receive_idly(int, std::span<std::byte>) override;
  Traffic sent() const override { return {}; }
  [[noreturn]] void abort(const std::string& why) override;
};

// The same ranks, but no message is sent: what remains of a schedule is its arithmetic, on whatever the buffers hold.
class Muted final : public Communicator {
 public:
  explicit Muted(const Communicator& ranks) : rank_(ranks.rank()), size_(ranks.size()) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void start_send(int, std::span<const std::byte>) override {}
  void start_receive(int, std::span<std::byte>) override {}
  void wait() override {}
  void progress() override {}
  void barrier() override {}
  double largest(double mine) override { return mine; }
  void receive_idly(int, std::span<std::byte>) override {}
  Traffic sent() const override { return {}; }
  [[noreturn]] void abort(const std::string& why) override;

 private:
  int rank_, size_;
};

// Those that this process is one of: Alone, until somebody says otherwise.
Communicator& ranks_of_this_process();
void join_ranks(Communicator& ranks);

}  // namespace attn
