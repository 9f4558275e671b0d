#include "attn/measure/scaling.hpp"

#include <vector>

#include "catch.hpp"

using namespace attn;

namespace {

// Regions one behind the other, `serial_s` before the first.
Recording recording(const std::vector<std::vector<double>>& regions, double serial_s = 0) {
  Recording r;
  double at_s = serial_s;
  for (const auto& tasks_s : regions) {
    RecordedRegion region{.begin_s = at_s, .end_s = 0, .tasks_s = tasks_s};
    for (const double task_s : tasks_s) at_s += task_s;
    region.end_s = at_s;
    r.regions.push_back(region);
  }
  r.end_s = at_s;
  return r;
}

std::vector<double> tasks(std::size_t count, double seconds) { return std::vector<double>(count, seconds); }

}  // namespace

TEST_CASE("work, span, and what bounds the number of busy threads") {
  const Parallelism p = parallelism_of(recording({tasks(8, 1), {1, 3, 1}}, 2));
  CHECK(p.work_s == Approx(8 + 5 + 2));
  CHECK(p.span_s == Approx(1 + 3 + 2));
  CHECK(p.serial_s == Approx(2));
  CHECK(p.largest_s == 3);
  CHECK(p.tasks == 11);
  CHECK(p.regions == 2);
  CHECK(p.ratio() == Approx(2.5));
  CHECK(p.fewest == 3);
  CHECK(parallelism_of(recording({tasks(8, 1), tasks(2, 0.05)})).fewest == 8);
  CHECK(parallelism_of({}).ratio() == 0);
}

TEST_CASE("tasks go to whichever thread is free first") {
  const auto seconds = [](const std::vector<double>& tasks_s, int threads) {
    return foretell(recording({tasks_s}), {.threads = threads}).seconds;
  };
  CHECK(seconds(tasks(8, 1), 4) == Approx(2));
  CHECK(seconds(tasks(9, 1), 4) == Approx(3));
  CHECK(seconds(tasks(9, 1), 192) == Approx(1));
  CHECK(seconds({4, 1, 1, 1, 1}, 2) == Approx(4));
  CHECK(seconds({1, 1, 1, 1, 4}, 2) == Approx(6));  // the longest last
  CHECK(seconds({}, 2) == 0);
}

TEST_CASE("no prediction is below the bounds of work and span, nor above their sum") {
  const Recording r = recording({{3, 1, 4, 1, 5, 9, 2, 6}, {5, 3, 5}, tasks(100, 0.1)}, 0.5);
  const Parallelism p = parallelism_of(r);
  for (const int threads : {1, 2, 3, 5, 64}) {
    const double seconds = foretell(r, {.threads = threads}).seconds;
    CHECK(seconds >= std::max(p.work_s / threads, p.span_s) - 1e-12);
    CHECK(seconds <= p.work_s / threads + p.span_s + 1e-12);
  }
  CHECK(foretell(r, {.threads = 1}).seconds == Approx(p.work_s));
}

TEST_CASE("the parts of a prediction add up, and the largest of them binds") {
  const auto told = [](const Recording& r, const ThreadModel& model) {
    const Foretold f = foretell(r, model);
    CHECK(f.seconds == Approx(f.even_s + f.serial_s + f.idle_s + f.start_s + f.memory_s));
    return f;
  };
  CHECK(told(recording({tasks(1000, 1)}), {.threads = 10}).binds() == "work");
  CHECK(told(recording({tasks(8, 1)}), {.threads = 64}).binds() == "tasks");
  CHECK(told(recording({tasks(100, 1)}, 50), {.threads = 10}).binds() == "serial");
  const Foretold starts = told(recording({tasks(100, 1), tasks(1, 5)}), {.threads = 10, .start_s = 20});
  CHECK(starts.binds() == "starts");
  CHECK(starts.start_s == 20);  // a single task begins where the caller is
  CHECK(told(recording({tasks(100, 1)}), {.threads = 10, .slowdown = 1.5}).seconds == Approx(15));
}

TEST_CASE("what is bound by memory speeds up as far as the bandwidth does, and arithmetic does not notice") {
  // 100 s of one thread that move 1000 GB at 10 GB/s: bound by them. Ten threads share 40 GB/s.
  const Recording r = recording({tasks(100, 1)});
  const Foretold bound = foretell(r, {.threads = 10, .bytes = 1e12, .gbs_of_one = 10, .gbs_of_all = 40});
  CHECK(bound.seconds == Approx(25));
  CHECK(bound.binds() == "memory");
  CHECK(foretell(r, {.threads = 2, .bytes = 1e12, .gbs_of_one = 10, .gbs_of_all = 40}).seconds == Approx(50));
  CHECK(foretell(r, {.threads = 10, .bytes = 1e11, .gbs_of_one = 10, .gbs_of_all = 40}).seconds == Approx(10));
}
