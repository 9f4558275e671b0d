#include "attn/cell/axes.hpp"

#include <algorithm>
#include <utility>

#include "attn/cell/axis_kinds.hpp"
#include "attn/cell/lengths.hpp"
#include "attn/cell/shapes.hpp"
#include "attn/cell/values.hpp"
#include "attn/core/text.hpp"
#include "attn/exec/limits.hpp"
#include "attn/exec/topology.hpp"
#include "attn/inputs/input.hpp"
#include "attn/kernels/machine/isa.hpp"

namespace attn {

namespace {

using namespace axis_kinds;

constexpr index_t longest = index_t{1} << 26;
constexpr index_t most = 65536;  // sequences, heads
constexpr index_t most_threads = 4096, most_ranks = 4096;
constexpr index_t largest_seed = index_t{1} << 62;

AxisValues variants_of(std::string_view names, const Registry& registry) {
  const auto variants = registry.configure_list(names);
  if (!variants) return variants.refusal();
  std::vector<AxisValue> values;
  for (const auto& variant : *variants) values.emplace_back(variant->name().text());
  return values;
}

Result<AxisValue> available_isa(std::string_view isa) {
  const auto available = kernels::available_isas();
  if (std::find(available.begin(), available.end(), isa) != available.end()) return AxisValue(std::string(isa));
  return refuse("'" + std::string(isa) + "' is not available; this machine and build have " + join(available, ", "));
}

Axis variant_axis() {
  Axis axis = text(
      {.name = "variant",
       .flag = "variants",
       .doc = "the variant's name",
       .help =
           "ids with options or * and ?, @ and an implementation behind, families (clustered/ where an id has the name), 'all' or "
           "'default'",
       .usual = "default"},
      [](auto& c) -> auto& { return c.variant; });
  axis.parse = variants_of;
  return axis;
}

bool decodes(const Cell& cell) { return cell.problem.pass == Pass::decode; }

Axis length_axis() {
  Axis axis = number(
      {.name = "q_len",
       .flag = "n",
       .doc = "queries: the sequence length N; of a decode, its context: the keys, of which the step's tokens are the last",
       .help = "sequence lengths, contexts of a decode; where none are given, as far as an input of tensors goes",
       .unit = "tokens",
       .usual = "128..4096*2"},
      1, longest, [](auto& c) -> auto& { return decodes(c) ? c.problem.kv_len : c.problem.q_len; });
  axis.parse = [parse = axis.parse](std::string_view given, const Registry& registry) -> AxisValues {
    auto values = parse(given, registry);
    if (values) std::sort(values->begin(), values->end());
    return values;
  };
  return axis;
}

Axis causal_axis() {
  Axis axis = number(
      {.name = "causal",
       .flag = "causal",
       .doc = "1: query i sees keys up to i only",
       .help = "no (0), yes (1) or both; alone: yes",
       .usual = "0",
       .yes_alone = true,
       .quiet = true},
      0, 1, [](auto& c) -> auto& { return c.problem.causal; });
  axis.parse = [](std::string_view given, const Registry&) -> AxisValues {
    const auto values = parse_causal(given);
    if (!values) return values.refusal();
    return std::vector<AxisValue>(values->begin(), values->end());
  };
  return axis;
}

// A decode is causal, has the context that --n asks for, and one query unless the axis of steps says more.
Axis pass_axis() {
  Axis axis = choice(
      {.name = "pass",
       .flag = "pass",
       .doc =
           "forward; forward_backward: both, timed as one, the backward pass's flops 2.5 times the forward's (five products for "
           "two) "
           "unless the variant's page counts them; or decode: a step is timed, after a state was filled with the tokens before it",
       .help = "forward; forward_backward: the step of a training, where a variant has a backward pass of its own; decode: the "
               "last --step "
               "tokens of a context of --n, causal",
       .usual = "forward",
       .quiet = true},
      parse_pass, [](auto& c) -> auto& { return c.problem.pass; });
  axis.set = [set = axis.set](Cell& cell, const AxisValue& value) {
    Problem& p = cell.problem;
    const index_t length = decodes(cell) ? p.kv_len : p.q_len;
    set(cell, value);
    if (decodes(cell)) {
      p.q_len = 1;
      p.kv_len = length;
      p.causal = true;
    } else {
      p.q_len = length;
    }
  };
  return axis;
}

// Other passes than a decode have none, whatever is asked for.
Axis step_axis() {
  Axis axis = number(
      {.name = "step",
       .flag = "step",
       .doc = "of a decode: new tokens of each sequence, taken up and answered in one step",
       .help = "new tokens of a sequence in a step of a decode",
       .unit = "tokens",
       .usual = "1",
       .quiet = true},
      1, longest, [](auto& c) -> auto& { return c.problem.q_len; });
  axis.read = [](std::string_view text) -> Result<AxisValue> {
    if (text.empty()) return AxisValue(std::string());
    return read_number(text);
  };
  axis.set = [set = axis.set](Cell& cell, const AxisValue& value) {
    if (decodes(cell) && std::holds_alternative<index_t>(value)) set(cell, value);
  };
  axis.get = [get = axis.get](const Cell& cell) { return decodes(cell) ? get(cell) : AxisValue(std::string()); };
  return axis;
}

Axis input_axis() {
  Axis axis = text(
      {.name = "input",
       .flag = "input",
       .doc = "where Q, K, V come from",
       .help = "where Q, K, V come from: text:FILE, iid:TAU, npy:Q,K,V, npz:FOLDER/ (each of its files), ...; may be given several "
               "times",
       .usual = "text",
       .repeatable = true},
      [](auto& c) -> auto& { return c.input; });
  axis.parse = [](std::string_view given, const Registry&) -> AxisValues {
    const auto names = expand_input(given);
    if (!names) return names.refusal();
    std::vector<AxisValue> values;
    for (const std::string& each : *names) {
      const auto input = parse_input(each);
      if (!input) return input.refusal();
      values.emplace_back((*input)->name());
    }
    return values;
  };
  return axis;
}

Axis lengths_axis() {
  Axis axis = name(
      {.name = "lengths",
       .flag = "lengths",
       .doc = "of the sequences of a batch, as many keys at most as the row says: equal; uniform:LOW..HIGH, drawn from the seed; "
              "zipf: "
              "1/1, 1/2, 1/3, ... of them; or file:PATH. In self-attention a sequence has as many queries as keys",
       .help = "equal, uniform:LOW..HIGH, zipf, file:PATH: how many tokens each sequence of a batch has, of variants that read "
               "sequences of different lengths",
       .usual = std::string(equal_lengths),
       .quiet = true},
      [](std::string_view given) -> Result<AxisValue> {
        const auto lengths = parse_lengths(given);
        if (!lengths) return lengths.refusal();
        return AxisValue(*lengths);
      });
  axis.set = [](Cell& cell, const AxisValue& value) {
    cell.lengths = std::get<std::string>(value);
    cell.problem.ragged = cell.lengths != equal_lengths;
  };
  axis.get = [](const Cell& cell) { return AxisValue(cell.lengths); };
  return axis;
}

Axis layout_axis() {
  Axis axis = name({.name = "kv_layout",
                    .flag = "kv-layout",
                    .doc = "contiguous: the keys of a head lie in a row; paged:TOKENS: in pages of so many tokens, in no order, "
                           "which a table names",
                    .help = "contiguous, paged:TOKENS: where keys and values lie, of variants that read pages",
                    .usual = layout_name(0),
                    .quiet = true},
                   [](std::string_view given) -> Result<AxisValue> {
                     const auto rows = parse_layout(given);
                     if (!rows) return rows.refusal();
                     return AxisValue(layout_name(*rows));
                   });
  axis.set = [](Cell& cell, const AxisValue& value) {
    cell.problem.page_rows = parse_layout(std::get<std::string>(value)).value();
  };
  axis.get = [](const Cell& cell) { return AxisValue(layout_name(cell.problem.page_rows)); };
  return axis;
}

Axis numa_axis() {
  Axis axis = choice(
      {.name = "numa",
       .flag = "numa",
       .doc = "local: a NUMA node holds the arrays of its heads and its workers take their tasks before others'; interleave: pages "
              "lie on "
              "the nodes in turn; first: on that of the thread that fills them",
       .help = "where arrays lie on a machine of several NUMA nodes: local, interleave, first",
       .usual = std::string(to_string(Numa::local)),
       .quiet = true},
      parse_numa, [](auto& c) -> auto& { return c.numa; });
  axis.parse = [parse = axis.parse](std::string_view given, const Registry& registry) -> AxisValues {
    auto values = parse(given, registry);
    for (const AxisValue& value : values ? *values : std::vector<AxisValue>{}) {
      if (topology().numa_nodes < 2 && to_string(value) != to_string(Numa::local))
        return refuse("'" + to_string(value) + "' on a machine of one NUMA node is what 'local' is, which is accepted");
    }
    return values;
  };
  return axis;
}

// A name alone: make_blocks gives a cell what it stands for.
Axis shape_axis() {
  Axis axis = name(
      {.name = "shape",
       .flag = "shape",
       .doc = "the model whose heads, widths and causality these are (--list shapes); none: of no model",
       .help = "models such as llama-3-8b, bert-base (--list shapes): set heads, kv-heads, head-dim, value-dim and causal, and add "
               "local attention of the model's window",
       .usual = no_shape,
       .quiet = true},
      [](std::string_view given) -> Result<AxisValue> {
        if (given == no_shape) return AxisValue(std::string(given));
        const auto shape = shape_of(given);
        if (!shape) return shape.refusal();
        return AxisValue(shape->name);
      });
  axis.set = [](Cell& cell, const AxisValue& value) { cell.shape = std::get<std::string>(value); };
  axis.get = [](const Cell& cell) { return AxisValue(cell.shape); };
  return axis;
}

Axis threads_axis() {
  Axis axis = number(
      {.name = "threads",
       .flag = "threads",
       .doc = "threads of the pool",
       .help = "threads of the pool; all: every usable core (default: all)",
       .usual = std::to_string(usable_cores())},
      1, most_threads, [](auto& c) -> auto& { return c.threads; });
  axis.parse = [parse = axis.parse](std::string_view given, const Registry& registry) -> AxisValues {
    constexpr std::string_view all = "all";
    std::string text(given);
    for (auto at = text.find(all); at != std::string::npos; at = text.find(all))
      text.replace(at, all.size(), std::to_string(usable_cores()));
    return parse(text, registry);
  };
  return axis;
}

Axis isa_axis() {
  Axis axis = text(
      {.name = "isa",
       .flag = "isa",
       .doc = "instruction set of the kernels",
       .help = "instruction sets: avx512, avx2, neon, scalar (default: the best here)",
       .usual = kernels::active_isa()},
      [](auto& c) -> auto& { return c.isa; });
  axis.parse = name({}, available_isa).parse;
  return axis;
}

// Shapes: what they count is in the column's name.
Axis size(Axis axis, index_t high, index_t Problem::*member) {
  return number(
      std::move(axis), 1, high, [member](auto& c) -> auto& { return c.problem.*member; });
}

std::vector<Axis> shape_axes() {
  return {
      length_axis(),
      size({.name = "kv_len",
            .flag = "kv-len",
            .doc = "keys",
            .help = "keys, where not as many as queries",
            .unit = "tokens",
            .as = "q_len"},
           longest, &Problem::kv_len),
      causal_axis(),
      size({.name = "batch", .flag = "batch", .doc = "sequences", .help = "sequences", .usual = "1"}, most, &Problem::batch),
      size({.name = "heads", .flag = "heads", .doc = "query heads", .help = "query heads", .usual = "8"}, most, &Problem::heads),
      size({.name = "kv_heads",
            .flag = "kv-heads",
            .doc = "key and value heads",
            .help = "key and value heads (default: as heads)",
            .as = "heads"},
           most, &Problem::kv_heads),
      size({.name = "head_dim",
            .flag = "head-dim",
            .doc = "width of a query and a key",
            .help = "width of queries and keys",
            .usual = "64"},
           widest_head, &Problem::head_dim),
      size({.name = "value_dim",
            .flag = "value-dim",
            .doc = "width of a value",
            .help = "width of values (default: as head-dim)",
            .as = "head_dim"},
           widest_head, &Problem::value_dim),
      choice(
          {.name = "dtype",
           .flag = "dtype",
           .doc = "number type that Q is stored as, and K and V unless kv_dtype says otherwise; outputs are f32",
           .help = "number types of the tensors: " + dtype_names(true),
           .usual = "f32",
           .quiet = true},
          parse_dtype, [](auto& c) -> auto& { return c.problem.dtype; }),
      choice(
          {.name = "kv_dtype",
           .flag = "kv-dtype",
           .doc = "number type that K and V are stored as; q8: blocks of 32 numbers with a scale",
           .help = "number types of keys and values: " + dtype_names(false) + " (default: as dtype)",
           .as = "dtype"},
          parse_dtype, [](auto& c) -> auto& { return c.problem.kv_dtype; })};
}

std::vector<Axis> setting_axes() {
  return {input_axis(),
          threads_axis(),
          number(
              {.name = "ranks",
               .flag = "ranks",
               .doc = "processes that share the tokens of a sequence, of so many threads each; of implementations over ranks",
               .help = "processes of so many threads each that share a sequence, of implementations over ranks such as full@ring",
               .usual = "1",
               .quiet = true},
              1, most_ranks, [](auto& c) -> auto& { return c.ranks; }),
          isa_axis(),
          pass_axis(),
          step_axis(),
          lengths_axis(),
          layout_axis(),
          numa_axis(),
          choice(
              {.name = "scope",
               .flag = "scope",
               .doc = "mixer, or layer: forward through norm, projections (Wq, Wk, Wv as far as the mixer reads them, and Wo), "
                      "mixer, norm and an MLP of 2 * heads * head_dim hidden units; x of heads * head_dim numbers a token is what "
                      "Q holds",
               .help = "mixer, layer: the projections, norms and MLP around it too, forward",
               .usual = "mixer",
               .quiet = true},
              parse_scope, [](auto& c) -> auto& { return c.scope; }),
          choice(
              {.name = "cache",
               .flag = "cache",
               .doc = "hot: runs find the caches as the run before left them; cold: each takes its inputs, or a decode its state, "
                      "and the parameters "
                      "from another of copies that together are more than four times the last-level cache",
               .help = "hot, cold: neither inputs, or the state of a decode, nor parameters in any cache when a run begins",
               .usual = "hot",
               .quiet = true},
              parse_cache_state, [](auto& c) -> auto& { return c.cache; }),
          number(
              {.name = "seed",
               .flag = "seed",
               .doc = "seed of inputs and parameters",
               .help = "seeds of inputs and parameters",
               .usual = "1"},
              0, largest_seed, [](auto& c) -> auto& { return c.seed; }),
          shape_axis()};
}

std::vector<Axis>& table() {
  static std::vector<Axis> list = [] {
    std::vector<Axis> all{variant_axis()};
    for (auto more : {shape_axes(), setting_axes()}) std::move(more.begin(), more.end(), std::back_inserter(all));
    return all;
  }();
  return list;
}

// What a reader takes for granted: the value of the axis that this one follows, or the usual one.
bool as_another(const Axis& axis, const Cell& cell) { return !axis.as.empty() && axis.get(cell) == axis_of(axis.as).get(cell); }
bool says_nothing(const Axis& axis, const Cell& cell) { return as_another(axis, cell) || to_string(axis.get(cell)).empty(); }
bool is_usual(const Axis& axis, const Cell& cell) { return says_nothing(axis, cell) || to_string(axis.get(cell)) == axis.usual; }
bool goes_unsaid(const Axis& axis, const Cell& cell) { return says_nothing(axis, cell) || (axis.quiet && is_usual(axis, cell)); }

std::string told(const Axis& axis, const Cell& cell) { return axis.name + "=" + to_string(axis.get(cell)); }

}  // namespace

std::string to_string(const AxisValue& value) {
  const auto* count = std::get_if<index_t>(&value);
  return count != nullptr ? std::to_string(*count) : std::get<std::string>(value);
}

const std::vector<Axis>& axes() { return table(); }

const Axis& axis_of(std::string_view name) {
  const auto found = std::find_if(axes().begin(), axes().end(), [&](const Axis& axis) { return axis.name == name; });
  ATTN_ASSERT(found != axes().end());
  return *found;
}

void add_axis(Axis axis) { table().push_back(std::move(axis)); }

std::string cell_key(const Cell& cell) {
  std::vector<std::string> parts;
  for (const Axis& axis : axes()) parts.push_back(to_string(axis.get(cell)));
  return join(parts, "|");
}

std::string heading(const Cell& cell) {
  std::vector<std::string> parts;
  for (std::size_t a = 1; a < axes().size(); ++a) {
    if (!goes_unsaid(axes()[a], cell)) parts.push_back(told(axes()[a], cell));
  }
  return join(parts, " ");
}

std::string title(const Cell& cell, const std::string& name) {
  std::vector<std::string> parts{name};
  for (std::size_t a = 1; a < axes().size(); ++a) {
    if (!is_usual(axes()[a], cell)) parts.push_back(told(axes()[a], cell));
  }
  return join(parts, " ");
}

std::vector<std::string> arguments_for(const Cell& cell) {
  std::vector<std::string> arguments;
  for (const Axis& axis : axes()) {
    if (goes_unsaid(axis, cell)) continue;
    arguments.push_back("--" + axis.flag);
    arguments.push_back(to_string(axis.get(cell)));
  }
  return arguments;
}

}  // namespace attn
