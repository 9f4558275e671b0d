// How much of what runs take goes into choosing keys from the data.
#pragma once

namespace attn {

// Lasts while keys are chosen. On the thread that called a run, not within its tasks.
class ChoiceTime {
 public:
  ChoiceTime();
  ~ChoiceTime();
  ChoiceTime(const ChoiceTime&) = delete;
  ChoiceTime& operator=(const ChoiceTime&) = delete;

 private:
  double begin_s_;
};

// Of this process so far, seconds.
double choice_s();

}  // namespace attn
