#include "attn/record/sink.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "catch.hpp"

using namespace attn;
namespace fs = std::filesystem;

namespace {

class Folder {
 public:
  Folder() { fs::create_directory(path_); }
  ~Folder() { fs::remove_all(path_); }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(path_), fs::directory_iterator()));
  }

 private:
  fs::path path_ = fs::temp_directory_path() / ("attn_sink_test" + std::to_string(::getpid()));
};

using Mode = AppendFile::Mode;

}  // namespace

TEST_CASE("a file is begun anew, gone on with behind what is whole, or held as it is") {
  const Folder folder;
  const std::string path = folder / "a";
  const auto after = [&](Mode mode, std::size_t keep_bytes) {
    REQUIRE(write_file(path, "one\ntorn"));
    auto file = AppendFile::open(path, mode, keep_bytes);
    REQUIRE(file);
    REQUIRE(file->append("two\n"));
    return *read_file(path);
  };
  CHECK(after(Mode::extend, 4) == "one\ntwo\n");
  CHECK(after(Mode::extend, 0) == "two\n");
  CHECK(after(Mode::replace, 4) == "two\n");
  CHECK(after(Mode::hold, 4) == "one\ntorntwo\n");
  CHECK(AppendFile::open(path, Mode::create).reason() == "'" + path + "' exists: --resume goes on with it, --force replaces it");
  REQUIRE(write_file(path, ""));
  CHECK(AppendFile::open(path, Mode::create));
}

TEST_CASE("folders above a file are made") {
  const Folder folder;
  const std::string path = folder / "b/c/a";
  auto file = AppendFile::open(path, Mode::create);
  REQUIRE(file);
  CHECK(file->path() == path);
  REQUIRE(file->append("x"));
  CHECK(*read_file(path) == "x");
}

TEST_CASE("a file is held until it is let go, also where it was moved") {
  const Folder folder;
  const std::string path = folder / "a";
  const auto is_held = [&] { return !AppendFile::open(path, Mode::hold); };
  {
    auto opened = AppendFile::open(path, Mode::create);
    REQUIRE(opened);
    AppendFile file = *std::move(opened);
    CHECK(is_held());
    AppendFile other = *AppendFile::open(folder / "b", Mode::create);
    other = std::move(file);
    CHECK(is_held());
    CHECK(other.path() == path);
    REQUIRE(other.append("1"));
    CHECK(*read_file(path) == "1");
  }
  CHECK_FALSE(is_held());
}

TEST_CASE("what is cut or rewritten is what was asked for, and a link stays one") {
  const Folder folder;
  const std::string path = folder / "a", link = folder / "link";
  REQUIRE(write_file(path, "abcdef"));
  fs::create_symlink(path, link);
  auto file = AppendFile::open(link, Mode::hold);
  REQUIRE(file);
  REQUIRE(file->cut(2));
  CHECK(*read_file(path) == "ab");
  REQUIRE(file->rewrite("new"));
  CHECK(fs::is_symlink(link));
  REQUIRE(file->append("er"));
  CHECK(*read_file(path) == "newer");
  CHECK(folder.files() == 2);  // and nothing temporary
}

TEST_CASE("a new file takes the first name that is free, in folders that it makes") {
  const Folder folder;
  const std::string stem = folder / "made/a";
  for (const char* name : {"made/a.csv", "made/a-2.csv", "made/a-3.csv"}) {
    const auto made = make_new_file(stem, ".csv");
    REQUIRE(made);
    CHECK(*made == folder / name);
    CHECK(*read_file(*made) == "");
  }
  REQUIRE(write_file(folder / "file", "x"));
  CHECK(make_new_file(folder / "file/below/a", ".csv").reason().starts_with("making the folder '"));
  CHECK(make_new_file(folder / std::string(300, 'a'), ".csv").reason().starts_with("making '"));
}

TEST_CASE("what cannot be read or written is refused with the path and why") {
  const Folder folder;
  const std::string none = folder / "none/a";
  CHECK(read_file(none).reason() == "opening '" + none + "' failed: No such file or directory");
  CHECK(write_file(none, "x").reason().ends_with("failed: No such file or directory"));
  CHECK(AppendFile::open("/dev/null", Mode::hold).reason() == "'/dev/null' is no regular file");
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK(read_file(folder / "pipe").reason() == "'" + (folder / "pipe") + "' is no regular file");
}

TEST_CASE("a long text is written whole and read whole") {
  const Folder folder;
  std::string text(300'001, 'a');
  for (std::size_t i = 0; i < text.size(); i += 7) text[i] = '\n';
  REQUIRE(write_file(folder / "a", text));
  CHECK(*read_file(folder / "a") == text);
  CHECK_FALSE(write_whole(-1, "x"));
  CHECK(write_whole(-1, ""));
}
