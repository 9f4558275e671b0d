// The one pool of threads. Everything parallel runs inside an Arena, through parallel_tasks; only arena.cpp knows TBB.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

#include "attn/core/problem.hpp"

namespace attn {

// A reference to a callable that outlives the call: no allocation, unlike std::function.
template <class Signature>
class FunctionRef;

template <class R, class... A>
class FunctionRef<R(A...)> {
 public:
  template <class F>
  // NOLINTNEXTLINE(bugprone-forwarding-reference-overload): `requires` leaves copies to the copy constructor
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>) FunctionRef(F&& f)
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))), call_([](void* object, A... a) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<A>(a)...);
        }) {}

  R operator()(A... a) const { return call_(object_, std::forward<A>(a)...); }

 private:
  void* object_;
  R (*call_)(void*, A...);
};

enum class Pinning { none, cores };  // cores: worker i stays on the i-th allowed core, distinct cores first

class Arena {
 public:
  // `threads` >= 1; more threads than cores are granted, not refused.
  explicit Arena(int threads, Pinning pinning = Pinning::none);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  int threads() const { return threads_; }

  // Runs `work` on this thread as worker 0 of the arena; parallel_tasks inside it spreads over the arena's threads.
  void execute(FunctionRef<void()> work) const;

 private:
  struct Impl;
  int threads_;
  std::unique_ptr<Impl> impl_;
};

// Threads of the arena that the caller runs in (1 outside any).
int arena_threads();

// Calls body(task, worker) once for each task in 0..count-1. Tasks start in index order: put the longest first.
// `worker` < arena_threads() names a Workspace slot that no other running task holds. Exceptions pass to the caller.
void parallel_tasks(index_t count, FunctionRef<void(index_t task, int worker)> body);

}  // namespace attn
