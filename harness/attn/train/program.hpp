// attn_train: plans the runs, trains each in a worker process of its own, several at a time, and loses no row.
#pragma once

#include "attn/program/worker.hpp"

namespace attn {

// The program, also as its own worker (--worker as first argument). Exit codes as in attn/program/exit.hpp.
int train_main(int argc, char** argv);

// What the program asks its workers: one run.
WorkerKind train_kind();

}  // namespace attn
