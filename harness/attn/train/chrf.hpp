// chrF: how near a text comes to the wanted one, by the character n-grams that they share. Popovic 2015, WMT, W15-3049.
#pragma once

#include <array>
#include <string_view>

namespace attn {

// Over all texts together. With precision P and recall R, means over n = 1 .. 6 of the shares of n-grams (of those n that both sides have; white
// space left out): (1 + b^2) P R / (b^2 P + R) with b = 2, which weighs recall twice as much. 0 to 1.
class Chrf {
 public:
  void add(std::string_view given, std::string_view wanted);  // UTF-8; other bytes count as characters of their own
  bool any() const { return texts_ > 0; }
  double score() const;

 private:
  static constexpr std::size_t longest = 6;
  struct Counts {
    double given = 0, wanted = 0, shared = 0;
  };
  std::array<Counts, longest> counts_;
  int texts_ = 0;
};

}  // namespace attn
