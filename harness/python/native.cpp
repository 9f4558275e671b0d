// The compiled half of the Python module attnbench (attnbench/__init__.py has what a user sees): variants, one of them applied, fidelity.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "attn/cell/cell.hpp"
#include "attn/core/text.hpp"
#include "attn/exec/arena.hpp"
#include "attn/inputs/array.hpp"
#include "attn/inputs/tensors.hpp"
#include "attn/measure/fidelity.hpp"
#include "attn/sweep/listing.hpp"
#include "attn/variant/planned.hpp"
#include "attn/variant/registry.hpp"

namespace {

namespace py = pybind11;
using namespace attn;

// Row-major floats, as __init__.py prepares them.
using Floats = py::array_t<float, py::array::c_style>;
using NamedFloats = std::map<std::string, Floats>;

[[noreturn]] void refused(const std::string& sentence) { throw py::value_error(sentence); }

template <class T>
T granted(Result<T> result) {
  if (!result) refused(result.reason());
  return *std::move(result);
}

const Registry& registry() {
  static const Registry* const all = [] {
    auto* fresh = new Registry;
    register_builtin_variants(*fresh);
    return fresh;
  }();
  return *all;
}

std::string shape_of(const Floats& array) {
  std::string text;
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) text += (axis > 0 ? "," : "") + std::to_string(array.shape(axis));
  return "[" + text + "]";
}

View<const float, 4> view(const char* name, const Floats& array) {
  if (array.ndim() != 4) refused(std::string(name) + " has shape " + shape_of(array) + ", four axes are accepted");
  return {array.data(), {array.shape(0), array.shape(1), array.shape(2), array.shape(3)}};
}

Problem problem_of(const View<const float, 4>& q, const View<const float, 4>& k, const View<const float, 4>& v, bool causal) {
  const auto same = [](const char* what, index_t a, index_t b) {
    if (a != b) refused(std::string(what) + ": " + std::to_string(a) + " and " + std::to_string(b));
  };
  same("q and k have different batches", q.extent(0), k.extent(0));
  same("k and v have different batches", k.extent(0), v.extent(0));
  same("k and v have different heads", k.extent(1), v.extent(1));
  same("k and v have different lengths", k.extent(2), v.extent(2));
  same("q and k have heads of different widths", q.extent(3), k.extent(3));
  const Problem p{.batch = q.extent(0),
                  .heads = q.extent(1),
                  .kv_heads = k.extent(1),
                  .q_len = q.extent(2),
                  .kv_len = k.extent(2),
                  .head_dim = q.extent(3),
                  .value_dim = v.extent(3),
                  .causal = causal};
  if (Status shape = check_shape(p); !shape) refused(shape.reason());
  return p;
}

// Those given, of the declared shapes; the others drawn or fitted.
ParameterSet<float> parameters_of(const Parameters& specs, const NamedFloats& given, std::uint64_t seed, const Arrays& in) {
  ParameterSet<float> set = make_parameters(specs, seed, fit_parameters(specs, in));
  for (const auto& [key, array] : given) {
    const auto& name = key;
    const auto spec = std::find_if(specs.begin(), specs.end(), [&](const ParameterSpec& s) { return s.name == name; });
    if (spec == specs.end()) {
      std::vector<std::string> known;
      for (const ParameterSpec& s : specs) known.push_back(s.name);
      refused("there is no parameter '" + name + "'; accepted: " + (known.empty() ? "none" : join(known, ", ")));
    }
    const Shape shape(array.shape(), array.shape() + array.ndim());
    const std::span<const float> values(array.data(), static_cast<std::size_t>(array.size()));
    if (shape != spec->shape)
      refused("parameter '" + name + "' has shape " + shape_text(shape) + ", accepted: " + shape_text(spec->shape));
    if (Status fine = spec->check ? spec->check(values) : Status(); !fine) refused("parameter '" + name + "' " + fine.reason());
    set.set(name, Tensor<float>(Elements<float>(shape, values)));
  }
  return set;
}

Floats apply(const std::string& name, const Floats& q, const Floats& k, const Floats& v, bool causal, const NamedFloats& given,
             std::uint64_t seed, int threads) {
  const auto variant = granted(registry().configure(name));
  Arrays arrays{.q = view("q", q), .k = view("k", k), .v = view("v", v)};
  const Problem p = problem_of(view("q", q), view("k", k), view("v", v), causal);
  if (Status fine = variant->supports(p); !fine) refused(fine.reason());
  if (threads < 1 || threads > 4096) refused("threads=" + std::to_string(threads) + " is outside 1..4096");
  Floats out({p.batch, p.heads, p.q_len, p.value_dim});
  const View<float, 4> written(out.mutable_data(), {p.batch, p.heads, p.q_len, p.value_dim});
  arrays.out = written;
  {
    const py::gil_scoped_release others_run;
    const NamedTensors named = [&] {
      NamedTensors drawn;
      for (const InputSpec& spec : variant->inputs(p)) draw(spec, seed, drawn.add(spec.name, spec.extents));
      return drawn;
    }();
    arrays.more = named.arrays;
    const Arena arena(threads);
    ParameterSet<float> parameters;
    arena.execute([&] { parameters = parameters_of(variant->parameters(p), given, seed, arrays); });
    Planned planned(*variant, p, threads);
    planned.equip(std::move(parameters));
    planned.run(arena, arrays);
  }
  return out;
}

NamedFloats parameters(const std::string& name, const Floats& q, const Floats& k, const Floats& v, bool causal,
                       std::uint64_t seed) {
  const auto variant = granted(registry().configure(name));
  const Problem p = problem_of(view("q", q), view("k", k), view("v", v), causal);
  if (Status fine = variant->supports(p); !fine) refused(fine.reason());
  const Arrays arrays{.q = view("q", q), .k = view("k", k), .v = view("v", v)};
  NamedFloats list;
  const ParameterSet<float> set = parameters_of(variant->parameters(p), {}, seed, arrays);
  for (const auto& [key, tensor] : set.all()) {
    Floats copy(std::vector<py::ssize_t>(tensor.shape().begin(), tensor.shape().end()));
    std::copy_n(tensor.data(), tensor.size(), copy.mutable_data());
    list.emplace(key, std::move(copy));
  }
  return list;
}

std::map<std::string, double> fidelity(const Floats& q, const Floats& k, const Floats& v, const Floats& out, bool causal,
                                       int threads) {
  const Arrays arrays{.q = view("q", q), .k = view("k", k), .v = view("v", v)};
  const Problem p = problem_of(view("q", q), view("k", k), view("v", v), causal);
  if (p.heads % p.kv_heads != 0) refused("the heads of q are no multiple of those of k");
  const View<const float, 4> given = view("out", out);
  const std::array<index_t, 4> shape = {p.batch, p.heads, p.q_len, p.value_dim};
  if (given.extents() != shape) refused("out has shape " + shape_of(out) + ", accepted: " + shape_text(shape));
  if (threads < 1 || threads > 4096) refused("threads=" + std::to_string(threads) + " is outside 1..4096");
  Fidelity f;
  {
    const py::gil_scoped_release others_run;
    const Arena arena(threads);
    std::optional<RowComparison> rows;
    arena.execute([&] { rows.emplace(p, arrays); });
    rows->add(given);
    f = rows->result();
  }
  return {{"skill", f.skill},     {"relative", f.relative},   {"row_p50", f.row_p50},
          {"row_p95", f.row_p95}, {"worst_row", f.worst_row}, {"cosine_p50", f.cosine_p50}};
}

}  // namespace

PYBIND11_MODULE(_native, module) {
  module.doc() = "see attnbench";
  module.def("variants_json", [] { return list_json(registry()); });
  module.def("apply", &apply);
  module.def("parameters", &parameters);
  module.def("fidelity", &fidelity);
  module.attr("version") = ATTN_VERSION;
}
