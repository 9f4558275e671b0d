#include "attn/measure/scaling.hpp"

#include <algorithm>
#include <functional>
#include <numeric>
#include <queue>
#include <utility>
#include <vector>

namespace attn {

namespace {

double sum(const std::vector<double>& list) { return std::accumulate(list.begin(), list.end(), 0.0); }
double largest(const std::vector<double>& list) { return list.empty() ? 0 : *std::max_element(list.begin(), list.end()); }

// When the last of the tasks is through, each taken up by the thread that is free first.
double last_end_s(const std::vector<double>& tasks_s, int threads) {
  std::priority_queue<double, std::vector<double>, std::greater<>> free_at;
  for (int thread = 0; thread < threads; ++thread) free_at.push(0);
  double end_s = 0;
  for (const double task_s : tasks_s) {
    const double until_s = free_at.top() + task_s;
    free_at.pop();
    free_at.push(until_s);
    end_s = std::max(end_s, until_s);
  }
  return end_s;
}

}  // namespace

Parallelism parallelism_of(const Recording& recording) {
  Parallelism p;
  p.serial_s = p.work_s = p.span_s = std::max(0.0, recording.serial_s());
  for (const RecordedRegion& region : recording.regions) {
    const double longest_s = largest(region.tasks_s);
    p.work_s += sum(region.tasks_s);
    p.span_s += longest_s;
    p.largest_s = std::max(p.largest_s, longest_s);
    p.tasks += std::ssize(region.tasks_s);
    ++p.regions;
  }
  for (const RecordedRegion& region : recording.regions) {
    const index_t count = std::ssize(region.tasks_s);
    if (sum(region.tasks_s) >= 0.02 * p.work_s) p.fewest = p.fewest == 0 ? count : std::min(p.fewest, count);
  }
  return p;
}

std::string Foretold::binds() const {
  if (serial_s + idle_s + start_s + memory_s < 0.1 * seconds) return "work";
  const std::pair<double, const char*> parts[] = {
      {serial_s, "serial"}, {idle_s, "tasks"}, {start_s, "starts"}, {memory_s, "memory"}};
  return std::ranges::max(parts, {}, &std::pair<double, const char*>::first).second;
}

Foretold foretell(const Recording& recording, const ThreadModel& model) {
  const Parallelism all = parallelism_of(recording);
  Foretold f;
  f.serial_s = all.serial_s;
  f.even_s = (all.work_s - all.serial_s) * model.slowdown / model.threads;
  double tasks_s = 0;  // of the regions, were there no memory to wait for
  for (const RecordedRegion& region : recording.regions) {
    const int active = static_cast<int>(std::min<index_t>(model.threads, std::ssize(region.tasks_s)));
    if (active == 0) continue;
    const double last_s = last_end_s(region.tasks_s, active), own_s = last_s * model.slowdown;
    tasks_s += own_s;
    if (model.gbs_of_one > 0) {
      const double bytes_per_s = model.bytes / (all.work_s - all.serial_s);  // as the run's, whatever the task
      const double gbs = std::min(active * model.gbs_of_one, model.gbs_of_all);
      f.memory_s += std::max(0.0, last_s * bytes_per_s * active / (1e9 * gbs) - own_s);
    }
    if (active > 1) f.start_s += model.start_s;
  }
  f.idle_s = std::max(0.0, tasks_s - f.even_s);
  f.seconds = f.serial_s + tasks_s + f.memory_s + f.start_s;
  return f;
}

}  // namespace attn
