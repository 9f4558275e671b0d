// A guest (scripts/guests/README.md): full attention by oneDNN's Graph API, one compiled partition of matmul, scale, mask, softmax, matmul.
// Needs oneDNN 3.x and nothing of attnbench:  g++ -std=c++20 -O2 onednn_graph.cpp -o onednn_graph -ldnnl
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iostream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <oneapi/dnnl/dnnl_graph.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using nlohmann::json;
namespace graph = dnnl::graph;
using graph::logical_tensor;
using Dims = logical_tensor::dims;
using Type = logical_tensor::data_type;

struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

std::int64_t volume(const Dims& dims) { return std::accumulate(dims.begin(), dims.end(), std::int64_t{1}, std::multiplies<>()); }

// The elements of a .npy file of version 1, mapped, each page touched.
class Mapped {
 public:
  explicit Mapped(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat about {};
    if (fd < 0 || ::fstat(fd, &about) != 0) throw std::runtime_error("'" + path + "' cannot be read");
    bytes_ = static_cast<std::size_t>(about.st_size);
    data_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    ::close(fd);
    if (data_ == MAP_FAILED) throw std::runtime_error("'" + path + "' cannot be mapped");
    std::uint16_t header = 0;
    std::memcpy(&header, static_cast<const char*>(data_) + 8, sizeof header);
    elements_ = static_cast<char*>(data_) + 10 + header;
  }
  Mapped(const Mapped&) = delete;
  Mapped& operator=(const Mapped&) = delete;
  ~Mapped() { ::munmap(data_, bytes_); }
  void* elements() const { return elements_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  char* elements_ = nullptr;
};

void save(const std::string& path, const Dims& dims, const float* values) {
  std::string shape;
  for (const std::int64_t extent : dims) shape += std::to_string(extent) + ", ";
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + shape + "), }";
  header.resize((header.size() + 11 + 63) / 64 * 64 - 11, ' ');
  header += '\n';
  std::ofstream file(path, std::ios::binary);
  file << std::string_view("\x93NUMPY\x01\x00", 8) << static_cast<char>(header.size() & 255)
       << static_cast<char>(header.size() >> 8) << header;
  file.write(reinterpret_cast<const char*>(values), static_cast<std::streamsize>(volume(dims) * 4));
  if (!file.flush()) throw std::runtime_error("'" + path + "' cannot be written");
}

float widened(std::uint16_t bf16) {
  const std::uint32_t bits = std::uint32_t{bf16} << 16;
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

struct Problem {
  std::int64_t batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim;
  bool causal, bf16;

  explicit Problem(const json& p)
      : batch(p.at("batch")),
        heads(p.at("heads")),
        kv_heads(p.at("kv_heads")),
        q_len(p.at("q_len")),
        kv_len(p.at("kv_len")),
        head_dim(p.at("head_dim")),
        value_dim(p.at("value_dim")),
        causal(p.at("causal")),
        bf16(p.at("dtype") == "bf16") {
    if (p.at("dtype") != p.at("kv_dtype")) throw Refused("takes one type for q, k and v");
    if (causal && q_len > kv_len) throw Refused("queries that see no key are NaN here: takes q_len up to kv_len");
  }
  bool masked() const { return causal && q_len > 1; }
  // Grouped heads have an axis of their own, along which k and v are broadcast.
  Dims rows(std::int64_t of_heads, std::int64_t length, std::int64_t width) const {
    if (heads == kv_heads) return {batch, of_heads, length, width};
    return {batch, kv_heads, of_heads / kv_heads, length, width};
  }
};

// One partition, compiled for the problem, with the tensors that it reads.
class Attention {
 public:
  // `scores_type`: of what lies between the products. From 3.8 on that may be f32 whatever the operands are.
  Attention(const Problem& p, Type scores_type)
      : p_(p), type_(p.bf16 ? Type::bf16 : Type::f32), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    const logical_tensor q = tensor(type_, p.rows(p.heads, p.q_len, p.head_dim)),
                         k = tensor(type_, p.rows(p.kv_heads, p.kv_len, p.head_dim)),
                         v = tensor(type_, p.rows(p.kv_heads, p.kv_len, p.value_dim)), scale = tensor(type_, {1}),
                         out = tensor(type_, p.rows(p.heads, p.q_len, p.value_dim));
    const Dims scores = p.rows(p.heads, p.q_len, p.kv_len);
    const auto between = [&] { return tensor(scores_type, scores); };
    inputs_ = {q, k, scale};
    graph::graph whole(dnnl::engine::kind::cpu);
    logical_tensor last = between();
    add(whole, graph::op::kind::MatMul, {q, k}, last, [](graph::op& op) { op.set_attr<bool>(graph::op::attr::transpose_b, true); });
    last = chained(whole, graph::op::kind::Multiply, {last, scale}, between());
    if (p.masked()) {
      Dims shape(scores.size(), 1);
      shape[shape.size() - 2] = p.q_len, shape.back() = p.kv_len;
      inputs_.push_back(tensor(type_, shape));
      last = chained(whole, graph::op::kind::Add, {last, inputs_.back()}, between());
    }
    const logical_tensor weights = tensor(type_, scores);
    add(whole, graph::op::kind::SoftMax, {last}, weights,
        [](graph::op& op) { op.set_attr<std::int64_t>(graph::op::attr::axis, -1); });
    add(whole, graph::op::kind::MatMul, {weights, v}, out, [](graph::op&) {});
    inputs_.push_back(v);
    whole.finalize();
    const auto partitions = whole.get_partitions();
    if (partitions.size() != 1 || !partitions[0].is_supported())
      throw Refused("this oneDNN makes " + std::to_string(partitions.size()) + " partitions of it, not one that it supports");
    compiled_.emplace(partitions[0].compile(inputs_, {out}, engine_));
    out_.resize(static_cast<std::size_t>(volume(p.rows(p.heads, p.q_len, p.value_dim)) * (p.bf16 ? 2 : 4)));
    outputs_ = {{out, engine_, out_.data()}};
    fill_mask();
  }

  void load(const std::string& folder, const json& files) {
    bound_.clear();
    const auto map = [&](const char* name) -> void* {
      return maps_[name].emplace(folder + "/" + files.at(name).at("file").get<std::string>()).elements();
    };
    std::vector<void*> at = {map("q"), map("k"), &scale_};
    if (p_.masked()) at.push_back(mask_.data());
    at.push_back(map("v"));
    for (std::size_t i = 0; i < at.size(); ++i) bound_.emplace_back(inputs_[i], engine_, at[i]);
  }

  double run(std::int64_t times) {
    const auto begin = std::chrono::steady_clock::now();
    for (std::int64_t i = 0; i < times; ++i) {
      compiled_->execute(stream_, bound_, outputs_);
      stream_.wait();
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  void save_output(const std::string& path) const {
    const Dims dims = {p_.batch, p_.heads, p_.q_len, p_.value_dim};
    if (!p_.bf16) return save(path, dims, reinterpret_cast<const float*>(out_.data()));
    std::vector<float> wide(out_.size() / 2);
    for (std::size_t i = 0; i < wide.size(); ++i) {
      std::uint16_t bits = 0;
      std::memcpy(&bits, out_.data() + 2 * i, 2);
      wide[i] = widened(bits);
    }
    save(path, dims, wide.data());
  }

 private:
  logical_tensor tensor(Type type, const Dims& dims) { return {ids_++, type, dims, logical_tensor::layout_type::strided}; }
  template <class Set>
  void add(graph::graph& whole, graph::op::kind kind, const std::vector<logical_tensor>& from, const logical_tensor& to, Set set) {
    graph::op op(ids_++, kind, "op" + std::to_string(ids_));
    set(op);
    op.add_inputs(from);
    op.add_outputs({to});
    whole.add_op(op);
  }
  logical_tensor chained(graph::graph& whole, graph::op::kind kind, const std::vector<logical_tensor>& from, logical_tensor to) {
    add(whole, kind, from, to, [](graph::op&) {});
    return to;
  }

  // The scale is rounded to the tensors' type, which 1/sqrt(64) does not feel; the mask is 0 or minus infinity.
  void fill_mask() {
    const float exact = 1 / std::sqrt(static_cast<float>(p_.head_dim));
    const auto store = [&](float value, void* at) {
      std::uint32_t bits = 0;
      std::memcpy(&bits, &value, 4);
      const auto half = static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
      p_.bf16 ? std::memcpy(at, &half, 2) : std::memcpy(at, &value, 4);
    };
    store(exact, &scale_);
    if (!p_.masked()) return;
    const std::size_t size = p_.bf16 ? 2 : 4;
    mask_.resize(static_cast<std::size_t>(p_.q_len * p_.kv_len) * size);
    for (std::int64_t i = 0; i < p_.q_len; ++i)
      for (std::int64_t j = 0; j < p_.kv_len; ++j)
        store(j <= i + p_.kv_len - p_.q_len ? 0 : -std::numeric_limits<float>::infinity(),
              mask_.data() + static_cast<std::size_t>(i * p_.kv_len + j) * size);
  }

  Problem p_;
  Type type_;
  std::size_t ids_ = 0;
  dnnl::engine engine_;
  dnnl::stream stream_;
  std::vector<logical_tensor> inputs_;
  std::optional<graph::compiled_partition> compiled_;
  std::vector<char> out_, mask_;
  float scale_ = 0;
  std::map<std::string, std::optional<Mapped>> maps_;
  std::vector<graph::tensor> bound_, outputs_;
};

std::string version() {
  const dnnl_version_t* v = dnnl_version();
  return "oneDNN " + std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
}

class Guest {
 public:
  json answer(const json& question) {
    const std::string ask = question.at("ask");
    if (ask == "hello")
      return {{"protocol", 1},
              {"name", "onednn_graph"},
              {"title", "oneDNN Graph"},
              {"dtypes", {"f32", "bf16"}},
              {"variants", {{"full", json::object()}}}};
    if (ask == "plan") return plan(question);
    if (!attention_) throw std::runtime_error("'" + ask + "' comes before a plan");
    if (ask == "load") return attention_->load(folder_, question.at("inputs")), json::object();
    if (ask == "run") return {{"seconds", attention_->run(question.at("times"))}};
    if (ask == "output") return attention_->save_output(folder_ + "/out.npy"), json{{"file", "out.npy"}};
    throw std::runtime_error("'" + ask + "' is no question for this guest");
  }

 private:
  json plan(const json& question) {
    if (question.at("variant") != "full") throw Refused("onednn_graph has full alone");
    attention_.reset();
    folder_ = question.at("folder");
    const Problem p(question.at("problem"));
    try {
      attention_.emplace(p, Type::f32);
    } catch (const dnnl::error&) {
      if (!p.bf16) throw;
      attention_.emplace(p, Type::bf16);
      return {{"note", version() + ", logits in bf16"}};
    }
    return {{"note", version()}};
  }

  std::string folder_;
  std::optional<Attention> attention_;
};

}  // namespace

int main() {
  Guest guest;
  for (std::string line; std::getline(std::cin, line);) {
    json answer;
    try {
      answer = guest.answer(json::parse(line));
    } catch (const Refused& why) {
      answer = {{"refused", why.what()}};
    } catch (const dnnl::error& why) {
      // What this version or machine has no kernels for.
      if (why.status == dnnl_unimplemented)
        answer = {{"refused", version() + ": " + why.what()}};
      else
        answer = {{"error", why.what()}};
    } catch (const std::exception& why) {
      answer = {{"error", why.what()}};
    }
    std::cout << answer.dump() << std::endl;
  }
}
