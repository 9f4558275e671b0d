#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>

#include "attn/core/time.hpp"
#include "attn/guest/conversation.hpp"
#include "attn/guest/folder.hpp"
#include "attn/guest/process.hpp"
#include "attn/guest/spec.hpp"
#include "attn/variant/remote.hpp"
#include "catch.hpp"

using namespace attn;
namespace fs = std::filesystem;

namespace {

// What is thrown when the guest is asked.
std::string complaint(const std::string& command, double timeout_s = 0) {
  try {
    GuestProcess(command, {}).ask("{}", "hello", timeout_s);
  } catch (const RemoteError& e) {
    return e.what();
  }
  return "";
}

std::string reason(const std::string& text) {
  const auto spec = read_guest_spec(text);
  return spec ? "" : spec.reason();
}

}  // namespace

TEST_CASE("a guest answers line by line, and may use the threads that it is given") {
  GuestProcess guest("while read -r line; do echo \"$line $OMP_NUM_THREADS\"; done", {.threads = 3});
  CHECK(guest.ask("one", "hello") == "one 3");
  CHECK(guest.ask("two", "hello") == "two 3");
}

TEST_CASE("whatever a guest does in the place of an answer is said in a sentence") {
  CHECK(complaint("true; exit 4") == "the guest ended with code 4 before it answered 'hello'");
  CHECK(complaint("echo no library >&2; exit 4") == "the guest ended with code 4 before it answered 'hello': no library");
  CHECK(complaint("true; kill -SEGV $$") == "the guest ended by signal 11 (Segmentation fault) before it answered 'hello'");
  CHECK(complaint("exec 1>&-; sleep 60") == "the guest closed its stdout before it answered 'hello'");
  CHECK(complaint("sleep 60", 0.1) == "the guest did not answer 'hello' within 1 s");
  CHECK(complaint("yes | tr -d '\\n'") == "the guest answered 'hello' with more than 64 KiB, a line of JSON is accepted");
  CHECK(complaint("/no/such/program 2>/dev/null") == "the guest ended with code 127 before it answered 'hello'");
}

TEST_CASE("a guest that talks on its stderr without end is still heard") {
  GuestProcess guest("yes | head -c 1000000 >&2; read -r line; echo \"$line\"", {});
  CHECK(guest.ask("one", "hello") == "one");
  CHECK(guest.last_words() == "y");
}

TEST_CASE("a guest ends with who asks it") {
  const pid_t id = GuestProcess("sleep 60", {}).id();
  CHECK(::kill(id, 0) == -1);
}

TEST_CASE("a folder gives out only files that lie in it") {
  std::string path;
  {
    const GuestFolder folder;
    path = folder.path();
    std::ofstream(path + "/a.npy") << "12345";
    fs::create_symlink("/etc/hostname", path + "/link");
    fs::create_directory(path + "/folder");
    CHECK(folder.read("a.npy", 5).value() == "12345");
    CHECK(folder.read("a.npy", 4).reason() == "'a.npy' has 5 bytes, accepted: at most 4");
    for (const char* elsewhere : {"../a.npy", "/etc/hostname", "", ".", "..", "folder/a"})
      CHECK(folder.read(elsewhere, 5).reason().find("leads outside of its folder") != std::string::npos);
    for (const char* none : {"link", "b.npy"})
      CHECK(folder.read(none, 5).reason().find("cannot be read from its folder") != std::string::npos);
    CHECK(folder.read("folder", 5).reason() == "'folder' is no regular file");
  }
  CHECK_FALSE(fs::exists(path));
}

TEST_CASE("folders of processes that ended before they could remove them are removed, and no others") {
  const GuestFolder ours;
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const GuestFolder abandoned;
    const std::string& path = abandoned.path();
    ::_exit(::write(ends[1], path.data(), path.size()) > 0 ? 0 : 1);
  }
  ::waitpid(child, nullptr, 0);
  std::array<char, 256> text{};
  const ssize_t length = ::read(ends[0], text.data(), text.size());
  REQUIRE(length > 0);
  const std::string theirs(text.data(), static_cast<std::size_t>(length));
  CHECK(fs::exists(theirs));
  remove_abandoned_guest_folders();
  CHECK_FALSE(fs::exists(theirs));
  CHECK(fs::exists(ours.path()));
}

TEST_CASE("tensors cross the door densely, whatever their strides and type") {
  const std::array<float, 8> values = {0, 1, 2, 3, 4, 5, 6, 7};
  const View<const float, 4> rows(values.data(), {1, 2, 2, 1}, {8, 4, 2, 1});
  const GuestTensor tensor = guest_tensor("q", rows);
  CHECK(tensor.shape == std::vector<index_t>{1, 2, 2, 1});
  CHECK((tensor.descr == "<f4" && tensor.dtype == "f32"));
  const std::array<float, 4> dense = {0, 2, 4, 6};
  CHECK(tensor.bytes == std::string(reinterpret_cast<const char*>(dense.data()), sizeof dense));
  const std::array<bf16, 2> halves = {to_bf16(1), to_bf16(-2)};
  const GuestTensor half = guest_tensor("k", View<const bf16, 2>(halves.data(), {1, 2}));
  CHECK((half.descr == "<u2" && half.dtype == "bf16" && half.bytes.size() == 4));
}

// Of a quiet machine: test_guest "[overhead]". A sample of 10 ms asks for some 40 runs of this at once; a run asked for by itself is told too.
TEST_CASE("the way to a guest and back takes less than 20 us a run at N=128", "[.][overhead]") {
  Conversation numpy("/usr/bin/python3 \"$ATTN_GUEST_FOLDER/numpy_reference.py\"", {});
  const Problem p{.heads = 1, .kv_heads = 1, .q_len = 128, .kv_len = 128};
  numpy.plan({.id = "full"}, p);
  const std::vector<float> values(128 * 64, 0.5f);
  const View<const float, 4> x(values.data(), {1, 1, 128, 64});
  numpy.load({guest_tensor("q", x), guest_tensor("k", x), guest_tensor("v", x)}, {});
  for (const index_t times : {1, 40}) {
    std::vector<double> overhead_s;
    for (int i = 0; i < 501; ++i) {
      const double begin_s = monotonic_s(), theirs_s = numpy.run(times);
      overhead_s.push_back((monotonic_s() - begin_s - theirs_s) / static_cast<double>(times));
    }
    std::nth_element(overhead_s.begin(), overhead_s.begin() + 250, overhead_s.end());
    WARN("median of 501, " << times << " runs at a time: " << 1e6 * overhead_s[250] << " us a run");
    if (times > 1) CHECK(overhead_s[250] < 20e-6);
  }
}

TEST_CASE("a guest introduces itself with a name, a command and variants, or is refused") {
  const auto spec = read_guest_spec(R"({"protocol": 1, "name": "torch", "command": "x", "dtypes": ["f32", "bf16"],
    "variants": {"full": {}, "mine": {"reference": true, "exactness": "pattern", "options": {"reach": 3, "rate": 0.5, "loud": false}}}})");
  REQUIRE(spec);
  CHECK(spec->dtypes == std::vector{DType::f32, DType::bf16});
  CHECK(spec->variants[1].info.exactness == Exactness::pattern);
  CHECK((spec->variants[1].reference && spec->variants[1].options.size() == 3));
  CHECK(read_guest_spec(spec->text)->text == spec->text);

  CHECK(reason("ready") == "'ready' is no JSON");
  CHECK(reason(R"({"protocol": 2, "name": "a", "command": "x", "variants": {"full": {}}})") == "protocol is 2, accepted: 1");
  CHECK(reason(R"({"error": "no library"})") == "no library");
  const auto with = [](const std::string& more) { return R"({"protocol": 1, "command": "x", )" + more + "}"; };
  CHECK(reason(with(R"("name": "Nay", "variants": {"full": {}})")).find("name is 'Nay'") == 0);
  CHECK(reason(with(R"("name": "native", "variants": {"full": {}})")).find("name is 'native'") == 0);
  CHECK(reason(with(R"("name": "a", "variants": {})")) == "variants is empty");
  CHECK(reason(with(R"("name": "a", "variants": {"Full": {}})")).find("'Full' is no name of a variant") == 0);
  CHECK(reason(with(R"("name": "a", "dtypes": ["q8"], "variants": {"full": {}})")).find("accepted: f32, bf16, f16") !=
        std::string::npos);
  CHECK(reason(with(R"("name": "a", "variants": {"b": {"exactness": "good"}})")).find("accepted: exact, pattern") !=
        std::string::npos);
  CHECK(reason(with(R"("name": "a", "variants": {"b": {"options": {"c": "text"}}})")).find("option 'c'") == 0);
  CHECK_FALSE(reason("[]").empty());
  CHECK_FALSE(reason(with(R"("name": 3, "variants": {"full": {}})")).empty());
}
