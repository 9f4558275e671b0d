// What the tests of this floor share.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "attn/core/rng.hpp"
#include "attn/inputs/input.hpp"
#include "catch.hpp"

// A directory of the test's own, gone at the end.
class Scratch {
 public:
  Scratch() : path_(std::filesystem::temp_directory_path() / ("attn_inputs_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(path_);
  }
  ~Scratch() { std::filesystem::remove_all(path_); }
  std::string operator()(const std::string& name) const { return (path_ / name).string(); }
  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream((*this)(name), std::ios::binary) << bytes;
    return (*this)(name);
  }

 private:
  std::filesystem::path path_;
};

inline std::unique_ptr<attn::Input> input(const std::string& name) {
  auto parsed = attn::parse_input(name);
  if (!parsed) FAIL(parsed.reason());
  return std::move(parsed).value();
}

inline std::string refusal(const std::string& name) {
  const auto parsed = attn::parse_input(name);
  return parsed ? "accepted as " + (*parsed)->name() : parsed.reason();
}

inline attn::Tensors make(const std::string& name, const attn::Problem& p, std::uint64_t seed = 1) {
  auto tensors = input(name)->make(p, seed);
  if (!tensors) FAIL(tensors.reason());
  return std::move(tensors).value();
}

inline std::vector<float> values(const attn::View<float, 4>& view) {
  return std::vector<float>(view.data_handle(), view.data_handle() + view.size());
}

inline bool same(const attn::Tensors& a, const attn::Tensors& b) {
  return values(a.q) == values(b.q) && values(a.k) == values(b.k) && values(a.v) == values(b.v);
}

inline attn::Problem problem(attn::index_t n, attn::index_t heads = 4, attn::index_t dim = 64) {
  attn::Problem p;
  p.heads = p.kv_heads = heads;
  p.q_len = p.kv_len = n;
  p.head_dim = p.value_dim = dim;
  return p;
}

inline std::span<const std::byte> bytes(const std::string& text) { return std::as_bytes(std::span(text.data(), text.size())); }

template <class T>
std::string little(T value) {
  std::string text(sizeof value, '\0');
  std::memcpy(text.data(), &value, sizeof value);
  return text;
}
inline std::string u16(std::size_t value) { return little(static_cast<std::uint16_t>(value)); }
inline std::string u32(std::size_t value) { return little(static_cast<std::uint32_t>(value)); }
inline std::string u64(std::size_t value) { return little(static_cast<std::uint64_t>(value)); }

// Calls check(span of bytes) with `valid` changed in up to five bytes and often cut short. Each buffer is exactly sized
// and on the heap, so that the address sanitiser sees a read past its end.
template <class Check>
void mutate(const std::string& valid, int rounds, Check check) {
  const attn::Rng rng(1, "mutations");
  attn::index_t draw = 0;
  for (int round = 0; round < rounds; ++round) {
    std::vector<char> file(valid.begin(), valid.end());
    if (rng.below(draw++, 4) == 0) {
      file.resize(static_cast<std::size_t>(rng.below(draw++, static_cast<attn::index_t>(file.size() + 1))));
      file.shrink_to_fit();
    }
    for (attn::index_t change = rng.below(draw++, 6); change > 0 && !file.empty(); --change) {
      const char extremes[] = {'\0', '\xff', '\x7f', '9'};
      const char value = rng.below(draw++, 2) == 0 ? static_cast<char>(rng.below(draw++, 256)) : extremes[rng.below(draw++, 4)];
      file[static_cast<std::size_t>(rng.below(draw++, std::ssize(file)))] = value;
    }
    check(std::as_bytes(std::span(file)));
  }
}
