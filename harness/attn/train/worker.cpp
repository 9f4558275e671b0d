#include <malloc.h>

#include <cstdio>

#include "attn/measure/memory.hpp"
#include "attn/train/job.hpp"
#include "attn/train/program.hpp"

namespace attn {

namespace {

std::string answer_run(const std::string& question, const Registry& registry) {
  // A step makes and frees a few hundred arrays of up to some MiB. Kept by the process, instead of mapped and zeroed by the kernel
  // each time, they cost a third less of the step (53 against 71 ms in one case).
  ::mallopt(M_MMAP_THRESHOLD, 1 << 30);
  ::mallopt(M_TRIM_THRESHOLD, 2'000'000'000);
  const Job job = job_from_json(question);
  const auto task = make_task(job.task, job.length);
  const auto variant = registry.configure(job.variant);
  ATTN_ASSERT(task && variant);
  const bool metered = reset_peak_resident();
  const index_t before = resident_bytes();
  const RunResult result = train(**task, **variant, job.settings, [](index_t step, double loss, double accuracy) {
    std::fprintf(stderr, "step %lld loss %.6g accuracy %.6g\n", static_cast<long long>(step), loss, accuracy);
    return true;
  });
  return to_json(result, metered ? peak_resident_bytes() - before : -1);
}

}  // namespace

WorkerKind train_kind() { return {"run", answer_run}; }

}  // namespace attn
