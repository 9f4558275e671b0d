// What the tests of this floor share.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

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
