// Scratch memory is booked while a variant is planned and granted before it runs, so its size is a number that the
// report can print and `run` never allocates.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"
#include "attn/exec/buffer.hpp"

namespace attn {

// A claim on `count` elements of T, to be exchanged for memory at run time.
template <class T>
struct Booking {
  index_t offset_bytes = 0;
  index_t count = 0;
  bool per_worker = false;
};

class WorkspacePlan {
 public:
  // Pass::forward_backward: `run` keeps what `backward` will read, so the plan books room for that and for what `backward` needs
  // itself.
  explicit WorkspacePlan(int threads, Pass pass = Pass::forward) : threads_(threads), pass_(pass) {}

  // Workers that `run` may use: plans choose their splits from this, so results depend on it and on nothing else.
  int threads() const { return threads_; }
  bool training() const { return pass_ == Pass::forward_backward; }

  // One array for the whole run.
  template <class T>
  Booking<T> shared(index_t count) {
    return {book(shared_bytes_, count, sizeof(T)), count, false};
  }

  // One array that every run reads and none writes: `fill` writes it when the workspace is made. It may outlive and be called apart
  // from its maker, so it holds what it needs by value.
  template <class T>
  Booking<T> table(index_t count, std::function<void(std::span<T>)> fill) {
    const Booking<T> booked = shared<T>(count);
    fills_.push_back([booked, fill = std::move(fill)](std::byte* memory) {
      fill({reinterpret_cast<T*>(memory + booked.offset_bytes), static_cast<std::size_t>(booked.count)});
    });
    return booked;
  }

  // One array for each worker.
  template <class T>
  Booking<T> per_worker(index_t count) {
    return {book(worker_bytes_, count, sizeof(T)), count, true};
  }

  index_t bytes() const { return shared_bytes_ + threads_ * worker_bytes_; }

 private:
  friend class Workspace;
  index_t book(index_t& total, index_t count, std::size_t element_bytes);

  struct Range {
    index_t offset_bytes, bytes;
    bool per_worker;
  };
  int threads_;
  Pass pass_;
  index_t shared_bytes_ = 0;
  index_t worker_bytes_ = 0;
  std::vector<Range> ranges_;
  std::vector<std::function<void(std::byte* memory)>> fills_;  // of the tables, in the memory of what is shared
};

class Workspace {
 public:
  // Fills the tables. `checked` fills all other arrays with NaN bytes and the gaps between them with a pattern that gaps_intact() looks for.
  enum class Mode { plain, checked };
  explicit Workspace(const WorkspacePlan& plan, Mode mode = Mode::plain);

  // Arrays are 64-byte aligned; those of different workers never share a cache line pair.
  template <class T>
  std::span<T> shared(const Booking<T>& b) const {
    ATTN_ASSERT(!b.per_worker);
    return {reinterpret_cast<T*>(memory_.data() + b.offset_bytes), static_cast<std::size_t>(b.count)};
  }
  template <class T>
  std::span<T> of(int worker, const Booking<T>& b) const {
    ATTN_ASSERT(b.per_worker && worker >= 0 && worker < plan_.threads());
    return {reinterpret_cast<T*>(memory_.data() + plan_.shared_bytes_ + worker * plan_.worker_bytes_ + b.offset_bytes),
            static_cast<std::size_t>(b.count)};
  }

  // False when something wrote past the end of a booked array. Mode::checked only.
  bool gaps_intact() const;

 private:
  template <class F>
  void for_each_gap(F&& f) const;

  WorkspacePlan plan_;
  Buffer memory_;
};

}  // namespace attn
