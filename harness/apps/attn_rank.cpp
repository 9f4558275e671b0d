// One rank of a worker of attn_sweep: "mpirun -np P attn_rank --worker cell ...". The first rank reads the question from standard input,
// which mpirun hands on to it, and answers on standard output, which mpirun hands back.
#include <mpi.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

#include "attn/program/process.hpp"
#include "attn/program/worker.hpp"
#include "attn/ranks/crew.hpp"
#include "attn/record/sink.hpp"
#include "attn/sweep/worker.hpp"
#include "mpi_ranks.hpp"

namespace {

// The same kind of question for all ranks, of which the first one answers.
attn::WorkerKind over_ranks(attn::WorkerKind kind) {
  const auto answer = [own = std::move(kind.answer)](const std::string& question, const attn::Registry& registry) {
    attn::Communicator& ranks = attn::ranks_of_this_process();
    if (ranks.rank() > 0) {
      attn::follow(ranks, registry);
    } else {
      attn::write_whole(attn::answer_fd, own(question, registry));  // whatever happens while all part
      attn::dismiss(ranks);
    }
    MPI_Finalize();
    return std::string();
  };
  return {std::move(kind.name), answer};
}

}  // namespace

int main(int argc, char** argv) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a launcher that was killed tells nobody
  ::dup2(STDOUT_FILENO, attn::answer_fd);
  ::dup2(STDERR_FILENO, STDOUT_FILENO);
  int level = MPI_THREAD_SINGLE;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
  attn::join_ranks(mpi_ranks());
  auto kinds = attn::sweep_kinds();
  for (attn::WorkerKind& kind : kinds) kind = over_ranks(std::move(kind));
  return attn::worker_main({argv + 1, argv + argc}, kinds);
}
