// How products of floats leave their results.
#pragma once

namespace attn {

// While one lives, what products give is rounded as their operands are (rounded_products.hpp), where these are: as where every step of a
// computation leaves a tensor of that type.
class RoundedResults {
 public:
  explicit RoundedResults(bool rounded);
  ~RoundedResults();
  RoundedResults(const RoundedResults&) = delete;
  RoundedResults& operator=(const RoundedResults&) = delete;

 private:
  bool before_;
};

}  // namespace attn
