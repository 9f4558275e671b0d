#include <atomic>
#include <cmath>
#include <set>
#include <stdexcept>
#include <vector>

#include "attn/exec/arena.hpp"
#include "attn/exec/workspace.hpp"
#include "catch.hpp"

using namespace attn;

TEST_CASE("each task runs once, under a worker number that no other running task holds") {
  for (const int threads : {1, 2, 5}) {
    const Arena arena(threads);
    std::vector<std::atomic<int>> runs(1000);
    std::vector<std::atomic<int>> holders(static_cast<std::size_t>(threads));
    std::atomic<bool> shared{false};
    arena.execute([&] {
      CHECK(arena_threads() == threads);
      parallel_tasks(1000, [&](index_t task, int worker) {
        if (holders[static_cast<std::size_t>(worker)]++ != 0) shared = true;
        ++runs[static_cast<std::size_t>(task)];
        --holders[static_cast<std::size_t>(worker)];
      });
    });
    CHECK_FALSE(shared);
    for (const auto& count : runs) CHECK(count == 1);
  }
}

TEST_CASE("outside an arena tasks run in order on the caller, also after one was used") {
  Arena(2).execute([] { CHECK(arena_threads() == 2); });
  CHECK(arena_threads() == 1);
  std::vector<index_t> order;
  parallel_tasks(5, [&](index_t task, int worker) {
    CHECK(worker == 0);
    order.push_back(task);
  });
  CHECK(order == std::vector<index_t>{0, 1, 2, 3, 4});
  parallel_tasks(0, [&](index_t, int) { FAIL("there is no task"); });
}

TEST_CASE("an exception in a task reaches the caller") {
  const Arena arena(2);
  CHECK_THROWS_AS(arena.execute([] {
    parallel_tasks(8, [](index_t task, int) {
      if (task == 5) throw std::runtime_error("five");
    });
  }),
                  std::runtime_error);
}

TEST_CASE("booked arrays are aligned, apart, and their sum is known before") {
  WorkspacePlan plan(3);
  const auto a = plan.shared<float>(5);
  const auto b = plan.shared<double>(7);
  const auto c = plan.per_worker<float>(9);
  CHECK(plan.bytes() >= 5 * 4 + 7 * 8 + 3 * 9 * 4);
  const Workspace workspace(plan, Workspace::Mode::checked);
  std::set<const void*> starts;
  const auto look = [&](const auto& span, std::size_t count) {
    CHECK(span.size() == count);
    CHECK(reinterpret_cast<std::uintptr_t>(span.data()) % 64 == 0);
    CHECK(std::isnan(span.front()));
    CHECK(starts.insert(span.data()).second);
  };
  look(workspace.shared(a), 5);
  look(workspace.shared(b), 7);
  for (int w = 0; w < 3; ++w) look(workspace.of(w, c), 9);
  CHECK(workspace.gaps_intact());
}

TEST_CASE("a table is filled when the workspace is made, counts in its size and stays apart from the other arrays") {
  for (const auto mode : {Workspace::Mode::plain, Workspace::Mode::checked}) {
    WorkspacePlan plan(2);
    const auto before = plan.shared<float>(3);
    const index_t bytes = plan.bytes();
    const auto table = plan.table<double>(100, [](std::span<double> to) {
      for (std::size_t i = 0; i < to.size(); ++i) to[i] = static_cast<double>(i);
    });
    CHECK(plan.bytes() >= bytes + 800);
    const auto after = plan.per_worker<float>(3);
    const WorkspacePlan copy = plan;
    for (const WorkspacePlan& of : {plan, copy}) {
      const Workspace workspace(of, mode);
      for (std::size_t i = 0; i < 100; ++i) REQUIRE(workspace.shared(table)[i] == static_cast<double>(i));
      if (mode == Workspace::Mode::plain) continue;
      CHECK(std::isnan(workspace.shared(before)[2]));
      CHECK(std::isnan(workspace.of(0, after)[0]));
      CHECK(workspace.gaps_intact());
    }
  }
}

TEST_CASE("a write past the end of a booked array is seen") {
  WorkspacePlan plan(2);
  const auto a = plan.shared<float>(16);
  const auto b = plan.per_worker<float>(16);
  for (const bool shared : {true, false}) {
    const Workspace workspace(plan, Workspace::Mode::checked);
    CHECK(workspace.gaps_intact());
    (shared ? workspace.shared(a) : workspace.of(1, b)).data()[16] = 1.0f;
    CHECK_FALSE(workspace.gaps_intact());
  }
}
