// attn_train: plans the runs, trains each in a worker process of its own, several at a time, and loses no row.
#pragma once

#include <string>
#include <vector>

namespace attn {

// The program, also as its own worker (--worker as first argument). Exit codes as in attn/program/exit.hpp.
int train_main(int argc, char** argv);

// Reads a job from standard input, trains, answers on answer_fd.
int train_worker_main(const std::vector<std::string>& plugins);

}  // namespace attn
