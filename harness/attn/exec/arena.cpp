#include "attn/exec/arena.hpp"

#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>
#include <oneapi/tbb/task_scheduler_observer.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <utility>
#include <vector>

#include "attn/core/assert.hpp"
#include "attn/core/sanitizer.hpp"
#include "attn/exec/topology.hpp"

#ifdef ATTN_THREAD_SANITIZER
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
#endif

namespace attn {

namespace {

// Where threads part and meet. TBB makes it true; as the distribution's TBB is not instrumented, ThreadSanitizer must be told.
struct Handover {
#ifdef ATTN_THREAD_SANITIZER
  void give() { __tsan_release(this); }
  void take() { __tsan_acquire(this); }
#else
  void give() {}
  void take() {}
#endif
};

class Pinner : public tbb::task_scheduler_observer {
 public:
  Pinner(tbb::task_arena& arena, std::vector<int> cores) : task_scheduler_observer(arena), cores_(std::move(cores)) {
    observe(true);
  }
  ~Pinner() override { observe(false); }

  void on_scheduler_entry(bool) override {
    const auto slot = static_cast<std::size_t>(tbb::this_task_arena::current_thread_index());
    if (cores_.empty()) return;
    cpu_set_t mask;
    CPU_ZERO(&mask);
    CPU_SET(static_cast<std::size_t>(cores_[slot % cores_.size()]), &mask);
    ::sched_setaffinity(0, sizeof mask, &mask);
  }

 private:
  std::vector<int> cores_;
};

}  // namespace

struct Arena::Impl {
  tbb::global_control limit;
  tbb::task_arena arena;
  std::optional<Pinner> pinner;

  Impl(int threads, Pinning pinning)
      : limit(tbb::global_control::max_allowed_parallelism, static_cast<std::size_t>(threads)), arena(threads, 1) {
    arena.initialize();
    if (pinning == Pinning::cores) pinner.emplace(arena, cores_spread_first());
  }
};

Arena::Arena(int threads, Pinning pinning) : threads_(threads) {
  ATTN_ASSERT(threads >= 1);
  impl_ = std::make_unique<Impl>(threads, pinning);
}

Arena::~Arena() = default;

namespace {

// Whether this thread is within Arena::execute.
thread_local bool inside = false;

struct Inside {
  bool before = std::exchange(inside, true);
  ~Inside() { inside = before; }
};

}  // namespace

void Arena::execute(FunctionRef<void()> work) const {
  const Inside mark;
  impl_->arena.execute([&] { work(); });
}

int arena_threads() {
  // Outside an arena we run serially. TBB does not: a thread that has been in one keeps the first slot of an implicit arena, as
  // wide as the machine. Workers have later slots, since ours reserve the first for who calls execute.
  const int slot = tbb::this_task_arena::current_thread_index();
  const bool outside = slot == tbb::task_arena::not_initialized || (slot == 0 && !inside);
  return outside ? 1 : tbb::this_task_arena::max_concurrency();
}

void parallel_tasks(index_t count, FunctionRef<void(index_t, int)> body) {
  const int workers = static_cast<int>(std::min<index_t>(count, arena_threads()));
  if (workers <= 1) {
    for (index_t task = 0; task < count; ++task) body(task, 0);
    return;
  }
  std::atomic<index_t> next{0};
  Handover start, finish;
  const auto work = [&](int worker) {
    start.take();
    for (index_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(task, worker);
    finish.give();
  };
  start.give();
  tbb::parallel_for(0, workers, work, tbb::static_partitioner());
  finish.take();
}

}  // namespace attn
