#include "attn/exec/arena.hpp"

#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>
#include <oneapi/tbb/task_scheduler_observer.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <optional>
#include <utility>
#include <vector>

#include "attn/core/assert.hpp"
#include "attn/core/sanitizer.hpp"
#include "attn/exec/here.hpp"
#include "attn/exec/recorder.hpp"
#include "attn/exec/seating.hpp"

#ifdef ATTN_THREAD_SANITIZER
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
#endif

namespace attn {

constinit thread_local Here here;

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
  Pinner(tbb::task_arena& arena, const Seating& seating)
      : task_scheduler_observer(arena), seats_(seating.seats().begin(), seating.seats().end()) {
    observe(true);
  }
  ~Pinner() override { observe(false); }

  void on_scheduler_entry(bool) override {
    const auto slot = static_cast<std::size_t>(tbb::this_task_arena::current_thread_index());
    if (seats_.empty()) return;
    cpu_set_t mask;
    CPU_ZERO(&mask);
    CPU_SET(static_cast<std::size_t>(seats_[slot % seats_.size()].number), &mask);
    ::sched_setaffinity(0, sizeof mask, &mask);
  }

 private:
  std::vector<Processor> seats_;
};

}  // namespace

struct Arena::Impl {
  tbb::global_control limit;
  tbb::task_arena arena;
  std::optional<Pinner> pinner;

  Impl(int threads, Pinning pinning)
      : limit(tbb::global_control::max_allowed_parallelism, static_cast<std::size_t>(threads)), arena(threads, 1) {
    arena.initialize();
    if (pinning == Pinning::cores) pinner.emplace(arena, seating(threads));
  }
};

Arena::Arena(int threads, Pinning pinning) : threads_(threads) {
  ATTN_ASSERT(threads >= 1);
  impl_ = std::make_unique<Impl>(threads, pinning);
}

Arena::~Arena() = default;

namespace {

struct Inside {
  bool before = std::exchange(here.inside, true);
  ~Inside() { here.inside = before; }
};

}  // namespace

void Arena::execute(FunctionRef<void()> work) const {
  const Inside mark;
  impl_->arena.execute([&] { work(); });
}

int arena_threads() {
  if (here.rehearsed > 0) return here.rehearsed;
  // Outside an arena we run serially. TBB does not: a thread that has been in one keeps the first slot of an implicit arena, as
  // wide as the machine. Workers have later slots, since ours reserve the first for who calls execute.
  const int slot = tbb::this_task_arena::current_thread_index();
  const bool outside = slot == tbb::task_arena::not_initialized || (slot == 0 && !here.inside);
  return outside ? 1 : tbb::this_task_arena::max_concurrency();
}

namespace {

void on_threads(int threads, FunctionRef<void(int)> work) {
  Handover start, finish;
  start.give();
  tbb::parallel_for(
      0, threads,
      [&](int number) {
        start.take();
        work(number);
        finish.give();
      },
      tbb::static_partitioner());
  finish.take();
}

// A node's tasks are those of its heads, which lie on it (OnNodes). Workers are numbered by the slots of their threads, which are pinned, so
// that a worker's scratch memory lies on its node too.
void on_nodes(const Seating& seating, index_t count, FunctionRef<void(index_t, int)> body) {
  struct alignas(128) Share {
    std::atomic<index_t> next;
    index_t end;
  };
  std::array<Share, Seating::most_nodes> shares;
  const std::size_t nodes = seating.nodes().size();
  for (std::size_t place = 0; place < nodes; ++place) {
    shares[place].next = seating.begin(place, count);
    shares[place].end = seating.begin(place + 1, count);
  }
  // Of this thread's workers the caller is one: regions of its tasks are theirs alone.
  const struct Pause {
    const Seating* tasks = std::exchange(here.tasks, nullptr);
    const OnNodes* memory = std::exchange(here.memory, nullptr);
    ~Pause() { here.tasks = tasks, here.memory = memory; }
  } pause;
  on_threads(arena_threads(), [&](int) {
    const int worker = tbb::this_task_arena::current_thread_index();
    const std::size_t home = seating.node_of(worker);
    for (std::size_t i = 0; i < nodes; ++i) {
      Share& share = shares[(home + i) % nodes];
      for (index_t task; (task = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;) body(task, worker);
    }
  });
}

}  // namespace

void parallel_tasks(index_t count, FunctionRef<void(index_t, int)> body) {
  if (here.recorder != nullptr) return here.recorder->record(count, body);
  const int workers = static_cast<int>(std::min<index_t>(count, arena_threads()));
  if (workers <= 1 || here.rehearsed > 0) {
    for (index_t task = 0; task < count; ++task) body(task, 0);
    return;
  }
  if (here.tasks != nullptr) return on_nodes(*here.tasks, count, body);
  std::atomic<index_t> next{0};
  on_threads(workers, [&](int worker) {
    for (index_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(task, worker);
  });
}

}  // namespace attn
