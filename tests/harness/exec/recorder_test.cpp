#include "attn/exec/recorder.hpp"

#include <chrono>
#include <numeric>
#include <stdexcept>
#include <thread>

#include "attn/exec/arena.hpp"
#include "catch.hpp"

using namespace attn;

namespace {

void rest(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

}  // namespace

TEST_CASE("a recorder has each region with the times of its tasks, and what lies between") {
  const Arena arena(2);
  Recorder recorder;
  arena.execute([] {
    parallel_tasks(3, [](index_t task, int) { rest(task == 1 ? 20 : 1); });
    rest(10);
    parallel_tasks(1, [](index_t, int) { parallel_tasks(7, [](index_t, int) {}); });  // its own are part of it
  });
  const Recording recording = recorder.take();
  REQUIRE(recording.regions.size() == 2);
  REQUIRE(recording.regions[0].tasks_s.size() == 3);
  CHECK(recording.regions[0].tasks_s[1] >= 0.020);
  CHECK(recording.regions[0].tasks_s[0] >= 0.001);
  CHECK(recording.regions[1].tasks_s.size() == 1);
  CHECK(recording.regions[1].begin_s >= recording.regions[0].end_s + 0.010);
  CHECK(recording.serial_s() >= 0.010);
  CHECK(recording.end_s >= recording.regions[1].end_s);
  CHECK(recorder.take().regions.empty());
}

TEST_CASE("in a rehearsal of many threads one does all tasks, in order, as worker 0") {
  const Arena arena(2);
  for (const bool inside : {true, false}) {
    std::vector<index_t> order;
    const auto play = [&] {
      Recorder recorder(192);
      CHECK(arena_threads() == 192);
      parallel_tasks(5, [&](index_t task, int worker) {
        CHECK((worker == 0 && arena_threads() == 192));
        order.push_back(task);
        parallel_tasks(2, [&](index_t inner, int) { order.push_back(10 + inner); });
      });
      const Recording recording = recorder.take();
      REQUIRE(recording.regions.size() == 1);
      CHECK(recording.regions[0].tasks_s.size() == 5);
    };
    inside ? arena.execute(play) : play();
    CHECK(order == std::vector<index_t>{0, 10, 11, 1, 10, 11, 2, 10, 11, 3, 10, 11, 4, 10, 11});
  }
  CHECK(arena_threads() == 1);
  arena.execute([] { CHECK(arena_threads() == 2); });
}

TEST_CASE("processor time leaves out what others took") {
  Recorder recorder(4, Recorder::Clock::processor);
  parallel_tasks(2, [](index_t, int) { rest(20); });
  const Recording recording = recorder.take();
  REQUIRE(recording.regions.size() == 1);
  for (const double task_s : recording.regions[0].tasks_s) CHECK(task_s < 0.010);
}

TEST_CASE("an exception passes a recorder, which goes on") {
  Recorder recorder(2);
  CHECK_THROWS_AS(parallel_tasks(2, [](index_t, int) { throw std::runtime_error("no"); }), std::runtime_error);
  parallel_tasks(4, [](index_t, int) {});
  CHECK(recorder.take().regions.back().tasks_s.size() == 4);
}
