// replay FOLDER: every file of the folder once, and nothing at all once. A failure names its file: it is the line before.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "fuzz.hpp"

int main(int argc, char** argv) {
  std::vector<std::filesystem::path> files;
  if (argc == 2) files.assign(std::filesystem::directory_iterator(argv[1]), {});
  if (files.empty()) {
    std::fprintf(stderr, "usage: %s FOLDER, with at least one file in it\n", argv[0]);
    return 2;
  }
  std::sort(files.begin(), files.end());
  fuzz({});
  for (const auto& path : files) {
    std::printf("%s\n", path.c_str());
    std::fflush(stdout);
    std::ifstream file(path, std::ios::binary);
    std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    bytes.shrink_to_fit();  // exactly sized, so that the address sanitizer sees a read past the end
    fuzz(std::as_bytes(std::span(bytes)));
  }
  return 0;
}
