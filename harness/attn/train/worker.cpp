#include <malloc.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <iterator>

#include "attn/measure/memory.hpp"
#include "attn/program/exit.hpp"
#include "attn/program/process.hpp"
#include "attn/record/sink.hpp"
#include "attn/train/job.hpp"
#include "attn/train/program.hpp"
#include "attn/variant/plugin.hpp"

namespace attn {

int train_worker_main(const std::vector<std::string>& plugins) {
  // A step makes and frees a few hundred arrays of up to some MiB. Kept by the process, instead of mapped and zeroed by the kernel
  // each time, they cost a third less of the step (53 against 71 ms in one case).
  ::mallopt(M_MMAP_THRESHOLD, 1 << 30);
  ::mallopt(M_TRIM_THRESHOLD, 2'000'000'000);
  Registry registry;
  register_builtin_variants(registry);
  if (Status status = load_plugins(plugins, registry); !status) {
    std::fprintf(stderr, "%s\n", status.reason().c_str());
    return exit_usage;
  }
  const Job job = job_from_json({std::istreambuf_iterator<char>(std::cin), {}});
  const auto task = make_task(job.task, job.length);
  const auto variant = registry.configure(job.variant);
  ATTN_ASSERT(task && variant);
  const bool metered = reset_peak_resident();
  const index_t before = resident_bytes();
  const RunResult result = train(**task, **variant, job.settings, [](index_t step, double loss, double accuracy) {
    std::fprintf(stderr, "step %lld loss %.6g accuracy %.6g\n", static_cast<long long>(step), loss, accuracy);
    return true;
  });
  const std::string answer = to_json(result, metered ? peak_resident_bytes() - before : -1);
  if (!write_whole(answer_fd, answer)) return exit_failed_cell;
  ::_exit(exit_ok);
}

}  // namespace attn
