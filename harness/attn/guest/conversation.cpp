#include "attn/guest/conversation.hpp"

#include <unistd.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "attn/inputs/npy.hpp"
#include "attn/variant/remote.hpp"

namespace attn {

namespace {

using nlohmann::json;

json problem_of(const Problem& p) {
  return {{"batch", p.batch},
          {"heads", p.heads},
          {"kv_heads", p.kv_heads},
          {"q_len", p.q_len},
          {"kv_len", p.kv_len},
          {"head_dim", p.head_dim},
          {"value_dim", p.value_dim},
          {"causal", p.causal},
          {"dtype", to_string(p.dtype)},
          {"kv_dtype", to_string(p.kv_dtype)},
          {"pass", to_string(p.pass)}};
}

json question_about(const char* ask, const VariantName& name, const Problem& p) {
  json options = json::object();
  for (const OptionValue& option : name.options.all()) options[option.name] = option.value;
  return {{"ask", ask}, {"variant", name.id}, {"options", options}, {"problem", problem_of(p)}};
}

[[noreturn]] void failed(const std::string& sentence) { throw RemoteError(RemoteError::Kind::failed, "the guest " + sentence); }

// The rows of an array, one behind the other.
void append_rows(const Array& array, std::size_t axis, const std::byte* at, std::string& bytes) {
  if (axis + 1 == array.rank()) {
    bytes.append(reinterpret_cast<const char*>(at), static_cast<std::size_t>(bytes_of(array.dtype(), array.extent(axis))));
    return;
  }
  for (index_t i = 0; i < array.extent(axis); ++i)
    append_rows(array, axis + 1, at + bytes_of(array.dtype(), i * array.stride(axis)), bytes);
}

template <class T>
const std::byte* first_byte(const Array& array) {
  const auto of_rank = [&]<std::size_t R>(std::integral_constant<std::size_t, R>) {
    return reinterpret_cast<const std::byte*>(array.as<const T, R>().data_handle());
  };
  switch (array.rank()) {
    case 1: return of_rank(std::integral_constant<std::size_t, 1>());
    case 2: return of_rank(std::integral_constant<std::size_t, 2>());
    case 3: return of_rank(std::integral_constant<std::size_t, 3>());
    case 4: return of_rank(std::integral_constant<std::size_t, 4>());
    case 5: return of_rank(std::integral_constant<std::size_t, 5>());
    default: return of_rank(std::integral_constant<std::size_t, Array::most_axes>());
  }
}

}  // namespace

GuestTensor guest_tensor(std::string name, const Array& array) {
  GuestTensor tensor{
      std::move(name), "<f4", std::string(to_string(array.dtype())), {array.extents().begin(), array.extents().end()}};
  const std::byte* first = nullptr;
  switch (array.dtype()) {
    case DType::f32: first = first_byte<float>(array); break;
    case DType::f16: tensor.descr = "<f2", first = first_byte<f16>(array); break;
    case DType::bf16: tensor.descr = "<u2", first = first_byte<bf16>(array); break;
    case DType::q8: ATTN_ASSERT(false && "no guest takes it");
  }
  tensor.bytes.reserve(static_cast<std::size_t>(array.bytes()));
  append_rows(array, 0, first, tensor.bytes);
  return tensor;
}

std::string Conversation::ask(const std::string& question, const std::string& what) {
  failed_ = true;  // unless it answers
  const std::string text = process_.ask(question, what);
  const json answer = json::parse(text, nullptr, false);
  if (!answer.is_object())
    attn::failed("answered '" + what + "' with '" + text.substr(0, 60) + "', one object of JSON is accepted");
  const auto sentence = [&](const char* key) {
    return answer[key].is_string() ? answer[key].get<std::string>() : answer[key].dump();
  };
  if (answer.contains("refused")) {
    failed_ = false;
    throw RemoteError(RemoteError::Kind::refused, sentence("refused"));
  }
  if (answer.contains("error")) attn::failed("failed at '" + what + "': " + sentence("error"));
  failed_ = false;
  return text;
}

std::string Conversation::plan(const VariantName& name, const Problem& p) {
  json question = question_about("plan", name, p);
  question["threads"] = process_.place().threads;
  question["folder"] = folder_.path();
  const json answer = json::parse(ask(question.dump(), "plan"));
  process_.find_answering();
  return answer.contains("note") && answer["note"].is_string() ? answer["note"].get<std::string>() : "";
}

// Files of the tensors; JSON that says which.
std::string Conversation::written(const std::vector<GuestTensor>& tensors, std::string_view prefix) {
  json files = json::object();
  for (const GuestTensor& tensor : tensors) {
    const std::string file = std::string(prefix) + std::to_string(files.size()) + ".npy", path = folder_.path() + "/" + file;
    ::unlink(path.c_str());  // what the guest has mapped of the one before stays as it is
    std::ofstream out(path, std::ios::binary);
    out << npy_header(tensor.shape, tensor.descr);
    out.write(tensor.bytes.data(), static_cast<std::streamsize>(tensor.bytes.size()));
    if (!out.flush()) throw RemoteError(RemoteError::Kind::failed, "'" + path + "' cannot be written: " + std::strerror(errno));
    files[tensor.name] = {{"file", file}, {"dtype", tensor.dtype}};
  }
  return files.dump();
}

void Conversation::load(const std::vector<GuestTensor>& inputs, const ParameterSet<float>& parameters) {
  std::vector<GuestTensor> learned;
  for (const auto& [name, tensor] : parameters.all()) learned.push_back(guest_tensor(name, tensor));
  ask(R"({"ask":"load","inputs":)" + written(inputs, "input") + R"(,"parameters":)" + written(learned, "parameter") + "}", "load");
}

double Conversation::run(index_t times) {
  const json answer = json::parse(ask(R"({"ask":"run","times":)" + std::to_string(times) + "}", "run"));
  if (!answer.contains("seconds") || !answer["seconds"].is_number()) attn::failed("answered 'run' without a number of seconds");
  return answer["seconds"].get<double>();
}

// The elements of the file that an answer names, of this type and shape.
std::string Conversation::file_of_answer(const std::string& question, const std::string& what, std::string_view descr,
                                         std::span<const index_t> shape) {
  const json answer = json::parse(ask(question, what));
  failed_ = true;
  if (!answer.contains("file") || !answer["file"].is_string()) attn::failed("answered '" + what + "' without the name of a file");
  const Element wanted = descr == "<f8" ? Element::f64 : Element::f32;
  constexpr std::size_t header_bytes = 4096;
  const auto bytes = folder_.read(answer["file"].get<std::string>(), array_bytes(Element::f64, shape).value_or(0) + header_bytes);
  if (!bytes) attn::failed("answered '" + what + "' with a file: " + bytes.reason());
  const auto stored = parse_npy(std::as_bytes(std::span(*bytes)));
  if (!stored) attn::failed("answered '" + what + "' with a file: " + stored.reason());
  if (!std::equal(shape.begin(), shape.end(), stored->shape.begin(), stored->shape.end()))
    attn::failed("answered '" + what + "' with an array of shape " + shape_text(stored->shape) +
                 ", accepted: " + shape_text(shape));
  if (stored->element != wanted) attn::failed("answered '" + what + "' with elements that are not '" + std::string(descr) + "'");
  failed_ = false;
  return {reinterpret_cast<const char*>(stored->data.data()), stored->data.size()};
}

void Conversation::output(const View<float, 4>& out) {
  const std::string bytes = file_of_answer(R"({"ask":"output"})", "output", "<f4", out.extents());
  const char* from = bytes.data();
  const std::size_t row_bytes = static_cast<std::size_t>(out.extent(3)) * sizeof(float);
  for (index_t b = 0; b < out.extent(0); ++b)
    for (index_t h = 0; h < out.extent(1); ++h)
      for (index_t i = 0; i < out.extent(2); ++i, from += row_bytes) std::memcpy(out[b][h].row(i), from, row_bytes);
}

template <class T>
Tensor<T> Conversation::reference(const std::vector<GuestTensor>& inputs, const ParameterSet<T>& parameters, const Shape& shape) {
  std::vector<GuestTensor> learned;
  for (const auto& [name, tensor] : parameters.all()) learned.push_back(guest_tensor(name, tensor));
  const std::string question = R"({"ask":"reference","inputs":)" + written(inputs, "reference_input") + R"(,"parameters":)" +
                               written(learned, "reference_parameter") + "}";
  const std::string bytes = file_of_answer(question, "reference", sizeof(T) == 8 ? "<f8" : "<f4", shape);
  Elements<T> elements(shape);
  std::memcpy(elements.writable(), bytes.data(), bytes.size());
  return Tensor<T>(std::move(elements));
}
template Tensor<float> Conversation::reference(const std::vector<GuestTensor>&, const ParameterSet<float>&, const Shape&);
template Tensor<double> Conversation::reference(const std::vector<GuestTensor>&, const ParameterSet<double>&, const Shape&);

Conversation::Description Conversation::describe(const VariantName& name, const Problem& p) {
  const json answer = json::parse(ask(question_about("describe", name, p).dump(), "describe"));
  Description description;
  try {
    const json cost = answer.value("cost", json::object()), parameters = answer.value("parameters", json::object());
    const auto least = [&](const char* key, double usual) {
      const double given = cost.value(key, usual);
      if (!std::isfinite(given) || given < 0) throw std::invalid_argument(std::string(key) + " is no number of at least 0");
      return given;
    };
    description.cost = {.flops = least("flops", 0), .bytes = least("bytes", tensor_bytes(p)), .exps = least("exps", 0)};
    for (const auto& [key, about] : parameters.items()) {
      description.parameters.push_back({key, about.at("shape").get<Shape>(), about.value("std", 0.02)});
      for (const index_t extent : description.parameters.back().shape) {
        if (extent < 1) throw std::invalid_argument("parameter '" + key + "' has an extent below 1");
      }
    }
  } catch (const std::exception& e) {
    attn::failed(std::string("answered 'describe' with what is no description: ") + e.what());
  }
  return description;
}

}  // namespace attn
