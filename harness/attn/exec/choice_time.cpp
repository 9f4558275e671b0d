#include "attn/exec/choice_time.hpp"

#include <atomic>

#include "attn/core/time.hpp"

namespace attn {

namespace {

std::atomic<double> total_s = 0;

}  // namespace

ChoiceTime::ChoiceTime() : begin_s_(monotonic_s()) {}
ChoiceTime::~ChoiceTime() { total_s.fetch_add(monotonic_s() - begin_s_, std::memory_order_relaxed); }

double choice_s() { return total_s.load(std::memory_order_relaxed); }

}  // namespace attn
