#include "attn/program/worker_end.hpp"

#include <signal.h>

#include "catch.hpp"

using namespace attn;

namespace {

NoAnswer of(ProcessEnd::How how, int code, const std::string& last_words, const std::string& where = "") {
  return no_answer({.how = how, .answer = "", .code = code, .last_words = last_words}, 1.5, where);
}

}  // namespace

TEST_CASE("why a worker gave no answer is an outcome and a sentence") {
  using How = ProcessEnd::How;
  CHECK(of(How::silent, 3, "").reason == "the worker ended with code 3 and no answer");
  CHECK(of(How::silent, 3, "", " at n=4").reason == "the worker ended with code 3 and no answer at n=4");
  CHECK(of(How::answered, 0, "oh").reason == "the worker's answer was torn: oh");
  CHECK(of(How::signalled, SIGSEGV, "oh", " at n=4").reason == "signal 11 (Segmentation fault) at n=4: oh");
  for (const How how : {How::silent, How::answered}) CHECK(of(how, 0, "").outcome == Outcome::crashed);
  CHECK(of(How::signalled, SIGSEGV, "").outcome == Outcome::crashed);
  CHECK(of(How::timed_out, 0, "").outcome == Outcome::timed_out);
  CHECK(of(How::timed_out, 0, "").reason == "no answer within --timeout 1.5 s");
}

TEST_CASE("a worker that memory ended is out of memory, whoever stopped it") {
  CHECK(of(ProcessEnd::How::signalled, SIGKILL, "").outcome == Outcome::out_of_memory);
  const NoAnswer refused = of(ProcessEnd::How::signalled, SIGABRT, "what():  std::bad_alloc");
  CHECK(refused.outcome == Outcome::out_of_memory);
  CHECK(refused.reason == "more memory was needed than --memory-limit allows: what():  std::bad_alloc");
}
