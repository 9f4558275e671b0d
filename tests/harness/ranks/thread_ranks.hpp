// Ranks that are threads of this process.
#pragma once

#include <algorithm>
#include <barrier>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "attn/ranks/communicator.hpp"

namespace attn::test {

class ThreadRanks {
 public:
  explicit ThreadRanks(int size) : size_(size), together_(size), values_(static_cast<std::size_t>(size)) {}

  // Calls f(communicator) on a thread for each rank.
  void run(const std::function<void(Communicator&)>& f) {
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size_; ++rank)
      threads.emplace_back([this, rank, &f] {
        One one(*this, rank);
        f(one);
      });
    for (std::thread& thread : threads) thread.join();
  }

 private:
  class One final : public Communicator {
   public:
    One(ThreadRanks& all, int rank) : all_(all), rank_(rank) {}
    int rank() const override { return rank_; }
    int size() const override { return all_.size_; }
    void start_send(int to, std::span<const std::byte> message) override {
      outgoing_.push_back({to, message});  // it leaves in wait(): its memory may be written until then by nobody
      sent_ += {static_cast<std::int64_t>(message.size()), 1};
    }
    void start_receive(int from, std::span<std::byte> message) override { incoming_.push_back({from, message}); }
    void wait() override {
      for (const auto& [to, message] : outgoing_) all_.put(rank_, to, {message.begin(), message.end()});
      outgoing_.clear();
      for (const auto& [from, message] : incoming_) {
        const std::vector<std::byte> came = all_.take(from, rank_);
        if (came.size() != message.size()) std::abort();
        std::ranges::copy(came, message.begin());
      }
      incoming_.clear();
    }
    void progress() override {}
    void barrier() override { all_.together_.arrive_and_wait(); }
    double largest(double mine) override {
      all_.values_[static_cast<std::size_t>(rank_)] = mine;
      barrier();
      const double most = *std::ranges::max_element(all_.values_);
      barrier();
      return most;
    }
    void receive_idly(int from, std::span<std::byte> message) override {
      start_receive(from, message);
      wait();
    }
    Traffic sent() const override { return sent_; }
    [[noreturn]] void abort(const std::string&) override { std::abort(); }

   private:
    ThreadRanks& all_;
    int rank_;
    std::vector<std::pair<int, std::span<const std::byte>>> outgoing_;
    std::vector<std::pair<int, std::span<std::byte>>> incoming_;
    Traffic sent_;
  };

  void put(int from, int to, std::vector<std::byte> message) {
    const std::lock_guard lock(mutex_);
    messages_[{from, to}].push_back(std::move(message));
    arrived_.notify_all();
  }
  std::vector<std::byte> take(int from, int to) {
    std::unique_lock lock(mutex_);
    auto& queue = messages_[{from, to}];
    arrived_.wait(lock, [&] { return !queue.empty(); });
    std::vector<std::byte> message = std::move(queue.front());
    queue.pop_front();
    return message;
  }

  int size_;
  std::barrier<> together_;
  std::vector<double> values_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::map<std::pair<int, int>, std::deque<std::vector<std::byte>>> messages_;
};

}  // namespace attn::test
