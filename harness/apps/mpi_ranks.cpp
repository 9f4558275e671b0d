#include "mpi_ranks.hpp"

#include <mpi.h>
#include <unistd.h>

#include <cstdio>
#include <limits>
#include <vector>

#include "attn/core/assert.hpp"

namespace {

attn::Traffic sent_by_program;  // counted below, where the messages leave

constexpr int tag = 1;

// A count of MPI is an int: longer messages are counted in larger units.
class Units {
 public:
  explicit Units(std::size_t bytes) {
    std::size_t unit = 1;
    while (bytes / unit > static_cast<std::size_t>(std::numeric_limits<int>::max())) unit *= 2;
    if (unit == 1) {
      count = static_cast<int>(bytes);
      return;
    }
    ATTN_ASSERT(bytes % unit == 0);
    MPI_Type_contiguous(static_cast<int>(unit), MPI_BYTE, &type);
    MPI_Type_commit(&type);
    count = static_cast<int>(bytes / unit);
    made_ = true;
  }
  Units(const Units&) = delete;
  Units& operator=(const Units&) = delete;
  ~Units() {
    if (made_) MPI_Type_free(&type);  // pending messages keep it
  }
  MPI_Datatype type = MPI_BYTE;
  int count = 0;

 private:
  bool made_ = false;
};

class MpiRanks final : public attn::Communicator {
 public:
  MpiRanks() {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
    requests_.reserve(static_cast<std::size_t>(8 * size_ + 8));  // a run allocates nothing
  }
  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void start_send(int to, std::span<const std::byte> message) override {
    const Units units(message.size());
    MPI_Isend(message.data(), units.count, units.type, to, tag, MPI_COMM_WORLD, &requests_.emplace_back());
  }
  void start_receive(int from, std::span<std::byte> message) override {
    const Units units(message.size());
    MPI_Irecv(message.data(), units.count, units.type, from, tag, MPI_COMM_WORLD, &requests_.emplace_back());
  }
  void wait() override {
    MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE);
    requests_.clear();
  }
  void progress() override {
    int done = 0;
    if (!requests_.empty()) MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE);
  }
  void barrier() override { MPI_Barrier(MPI_COMM_WORLD); }
  double largest(double mine) override {
    double all = 0;
    MPI_Allreduce(&mine, &all, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    return all;
  }
  void receive_idly(int from, std::span<std::byte> message) override {
    constexpr useconds_t nap_us = 100;
    start_receive(from, message);
    for (int done = 0; done == 0;) {
      MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE);
      if (done == 0) ::usleep(nap_us);
    }
    requests_.clear();
  }
  attn::Traffic sent() const override { return sent_by_program; }
  [[noreturn]] void abort(const std::string& why) override {
    std::fprintf(stderr, "rank %d %s\n", rank_, why.c_str());
    std::fflush(stderr);
    MPI_Abort(MPI_COMM_WORLD, 1);
    ::_exit(1);
  }

 private:
  int rank_ = 0, size_ = 1;
  std::vector<MPI_Request> requests_;
};

void count(int elements, MPI_Datatype type) {
  int bytes = 0;
  PMPI_Type_size(type, &bytes);
  sent_by_program += {std::int64_t{elements} * bytes, 1};
}

}  // namespace

// MPI's profiling layer: whoever sends in this process, through whatever, passes here.
extern "C" {
int MPI_Isend(const void* data, int elements, MPI_Datatype type, int to, int with, MPI_Comm comm, MPI_Request* request) {
  count(elements, type);
  return PMPI_Isend(data, elements, type, to, with, comm, request);
}
int MPI_Send(const void* data, int elements, MPI_Datatype type, int to, int with, MPI_Comm comm) {
  count(elements, type);
  return PMPI_Send(data, elements, type, to, with, comm);
}
}

attn::Communicator& mpi_ranks() {
  static MpiRanks ranks;
  return ranks;
}
