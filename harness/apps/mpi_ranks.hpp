// The ranks of an MPI program (MPI 3.1), as schedules talk to them.
#pragma once

#include "attn/ranks/communicator.hpp"

// Of MPI_COMM_WORLD, between MPI_Init_thread and MPI_Finalize. Calls come from the thread that initialised MPI (MPI_THREAD_FUNNELED).
attn::Communicator& mpi_ranks();
