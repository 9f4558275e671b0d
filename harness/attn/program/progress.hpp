// What a user sees of a program at work: on a terminal one line that rewrites itself, elsewhere one line for each end.
#pragma once

#include <cstddef>
#include <map>
#include <string>

namespace attn {

// "[2/14] TITLE: what came of it  (about 30 s left)" on stderr, nothing where `quiet`. One thread at a time. The time left goes by
// work, in any unit; titles tell what runs at the same time apart.
class Progress {
 public:
  // `unit_s`: what a unit of work is thought to take, until some is done; 0: unknown.
  Progress(std::size_t count, double work, bool quiet, double unit_s = 0);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // A line of its own, wherever stderr goes: what is about to happen, or came of a part of it.
  void say(const std::string& words) const { show(words); }
  // So much of its work is done.
  void under_way(const std::string& title, double work, const std::string& state);
  // All of its work is done, so much of it.
  void end(const std::string& title, double work, const std::string& came_of_it);
  // Done by an earlier call of the program.
  void skip(double work);
  // One more than was thought, of so much work.
  void add(double work);
  // Takes the line off the terminal, for other words.
  void clear() const;

 private:
  void show(const std::string& what) const;

  std::size_t count_;
  double work_;
  bool quiet_;
  bool terminal_;
  double begin_s_;
  double unit_s_;
  std::size_t ended_ = 0;
  double done_ = 0;
  std::map<std::string, double> running_;
};

}  // namespace attn
