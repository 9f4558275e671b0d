#include "attn/variant/decode.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <tuple>
#include <vector>

#include "attn/cell/axes.hpp"
#include "attn/cell/cell_run.hpp"
#include "attn/cell/grid.hpp"
#include "attn/core/rng.hpp"
#include "catch.hpp"
#include "harness/variant_of.hpp"

using namespace attn;

namespace {

using test::registry;

Result<std::vector<Block>> grid(Asked asked) {
  asked.insert({"variant", {"full"}});
  const auto lines = parse_grid(asked, registry());
  REQUIRE(lines);
  return make_blocks(*lines);
}

Cell only(const Asked& asked) {
  const auto blocks = grid(asked);
  REQUIRE(blocks);
  REQUIRE(blocks->size() == 1);
  return blocks->front().cells.front();
}

Cell decode(const std::string& variant, index_t context, index_t step) {
  return only({{"variant", {variant}},
               {"q_len", {std::to_string(context)}},
               {"step", {std::to_string(step)}},
               {"pass", {"decode"}},
               {"heads", {"4"}},
               {"kv_heads", {"2"}},
               {"head_dim", {"16"}},
               {"threads", {"2"}}});
}

std::unique_ptr<CellRun> opened(const Cell& cell) {
  auto run = CellRun::open(registry(), cell, false);
  INFO((run ? std::string() : run.reason()));
  REQUIRE(run);
  (*run)->equip(make_parameters((*run)->specs(), cell.seed, (*run)->fitted()));
  return *std::move(run);
}

std::vector<float> output(const CellRun& run) {
  const auto out = run.output();
  return {out.data_handle(), out.data_handle() + out.size()};
}

void forget(const CellRun& run) {
  const auto out = run.output();
  std::fill_n(out.data_handle(), out.size(), std::numeric_limits<float>::quiet_NaN());
}

// Largest distance of a step's outputs from the last rows of the whole sequence.
double distance(const CellRun& whole, const CellRun& step) {
  const auto all = whole.output(), last = step.output();
  double most = 0;
  for (index_t h = 0; h < last.extent(1); ++h)
    for (index_t i = 0; i < last.extent(2); ++i)
      for (index_t d = 0; d < last.extent(3); ++d) {
        const double x = std::abs(last(0, h, i, d) - all(0, h, all.extent(2) - last.extent(2) + i, d));
        most = x <= most ? most : std::isnan(x) ? std::numeric_limits<double>::infinity() : x;
      }
  return most;
}

}  // namespace

TEST_CASE("--n is the context of a decode, --step its new tokens, and it is causal") {
  const Cell cell = decode("full", 100, 3);
  const Problem& p = cell.problem;
  CHECK((p.kv_len == 100 && p.q_len == 3 && p.causal && p.pass == Pass::decode));
  CHECK(decode("full", 100, 1).problem.q_len == 1);
  CHECK(to_string(axis_of("q_len").get(cell)) == "100");
  CHECK(to_string(axis_of("step").get(cell)) == "3");

  const std::string told = heading(cell);
  CHECK(told.find("q_len=100 causal=1") == 0);
  CHECK(told.find("pass=decode step=3") != std::string::npos);
  CHECK(told.find("kv_len") == std::string::npos);
  CHECK(heading(decode("full", 100, 1)).find("step") == std::string::npos);
}

TEST_CASE("a decode crosses to a worker, and its flags ask for it again") {
  const Cell cell = decode("full", 100, 3);
  Cell copy = decode("full", 7, 1);  // what it held is gone
  Settings settings;
  from_json(to_json(cell, settings), copy, settings);
  CHECK((copy.problem == cell.problem && cell_key(copy) == cell_key(cell)));

  Asked asked;
  const auto arguments = arguments_for(cell);
  for (std::size_t i = 0; i < arguments.size(); i += 2) {
    for (const Axis& axis : axes()) {
      if ("--" + axis.flag == arguments[i]) asked[axis.name] = {arguments[i + 1]};
    }
  }
  CHECK(only(asked).problem == cell.problem);
}

TEST_CASE("other passes know no steps: their cells are one, whatever is asked") {
  const auto blocks = grid({{"q_len", {"64"}}, {"pass", {"forward,decode"}}, {"step", {"1,4"}}});
  REQUIRE(blocks);
  CHECK(blocks->size() == 3);
  const Cell& forward = blocks->front().cells.front();
  CHECK((forward.problem.pass == Pass::forward && forward.problem.q_len == 64 && forward.problem.kv_len == 64));
  CHECK(to_string(axis_of("step").get(forward)).empty());
  CHECK(heading(forward).find("step") == std::string::npos);
  for (const std::string& argument : arguments_for(forward)) CHECK(argument != "--step");
}

TEST_CASE("a step longer than its context is refused, and one that is the context begins with an empty state") {
  const auto refused = CellRun::open(registry(), decode("full", 4, 5), false);
  REQUIRE_FALSE(refused);
  CHECK(refused.reason().find("full takes steps of at most as many tokens as the context has (given: ") == 0);
}

TEST_CASE("keys beside the context of a decode are refused") {
  const auto blocks = grid({{"q_len", {"64"}}, {"kv_len", {"128"}}, {"pass", {"decode"}}});
  REQUIRE_FALSE(blocks);
  CHECK(blocks.reason().find("--kv-len is given with --pass decode") == 0);
}

TEST_CASE("a step gives the last rows of the whole sequence, whether its state keeps tokens or folds them") {
  for (const std::string variant : {"full", "linear", "cosformer"}) {
    for (const auto& [context, step] : {std::pair{70, 1}, {70, 3}, {1500, 1}, {1500, 70}, {5, 5}, {1, 1}}) {
      INFO(variant << " " << context << " " << step);
      Cell whole = decode(variant, context, context);
      axis_of("pass").set(whole, "forward");
      REQUIRE(whole.problem.self_attention());
      const auto all = opened(whole), last = opened(decode(variant, context, step));
      all->run();
      last->run();
      CHECK(distance(*all, *last) < 2e-5);
    }
  }
}

TEST_CASE("a step can be taken again and again, also after its tokens alone were taken up") {
  for (const std::string variant : {"full", "linear"}) {
    const auto run = opened(decode(variant, 300, 2));
    run->run();
    const auto first = output(*run);
    for (int i = 0; i < 3; ++i) {
      forget(*run);
      if (i == 1) run->append();
      run->again();
      const auto again = output(*run);
      CHECK(std::ranges::none_of(again, [](float x) { return std::isnan(x); }));
      // Sums go on; rows of tokens are the same again.
      if (variant == "full") CHECK(std::memcmp(again.data(), first.data(), first.size() * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("a run on other tensors leaves the state of the clocked one alone") {
  const auto run = opened(decode("linear", 300, 1));
  run->run();
  run->again();
  const auto second = output(*run);
  run->run();  // from an empty state
  const Buffer memory = output_buffer(run->problem());
  Arrays other = run->arrays();
  other.out = output_view(run->problem(), memory);
  run->run(other, run->parameters());
  const auto fresh = output(*run);
  CHECK(std::equal(fresh.begin(), fresh.end(), memory.as<float>()));
  run->again();
  CHECK(output(*run) == second);
}

TEST_CASE("cold runs of a whole problem give what hot ones do, from tensors in turn") {
  Cell cell = decode("full", 200, 1);
  axis_of("pass").set(cell, "forward");
  const auto run = opened(cell);
  run->run();
  const auto hot = output(*run);
  REQUIRE(run->go_cold());
  for (int i = 0; i < 3; ++i) {
    forget(*run);
    run->again();
    CHECK(output(*run) == hot);
  }
}

TEST_CASE("the memory of a state is that of its tokens, or of its sums") {
  const index_t tokens = 300 * 2 * (16 + 16) * 4;
  CHECK(opened(decode("full", 300, 1))->state_bytes() == tokens);
  CHECK(opened(decode("linear", 300, 1))->state_bytes() == opened(decode("linear", 3000, 1))->state_bytes());
  Cell forward = decode("full", 300, 1);
  axis_of("pass").set(forward, "forward");
  CHECK(opened(forward)->state_bytes() == 0);
}

TEST_CASE(
    "a step costs its queries against tokens that are kept, and where they are folded itself and its state read and written") {
  const auto cost = [](const std::string& variant, index_t context, index_t step) {
    const Cell cell = decode(variant, context, step);
    return registry().configure(variant).value()->cost(cell.problem);
  };
  // Four heads of 16 share two kv heads; a query costs two products with every key.
  CHECK(cost("full", 1000, 1).flops == 4 * 1000 * (2 * 16 + 2 * 16));
  CHECK(cost("full", 1000, 1).bytes == 4 * (4 * 16 + 4 * 16 + 2 * 1000 * (16 + 16)));
  CHECK(cost("linear", 1000, 1).flops == cost("linear", 10, 1).flops);
  CHECK(cost("linear", 1000, 3).flops == 3 * cost("linear", 1000, 1).flops);
  const index_t sums = 2 * (16 * 16 + 16), token = 4 * 16 + 4 * 16 + 2 * (16 + 16);
  CHECK(cost("linear", 1000, 1).bytes == 4 * (2 * sums + token));
  CHECK(cost("linear", 1000, 3).bytes == 4 * (2 * sums + 3 * token));
}

TEST_CASE("a training step costs its two passes") {
  const auto full = registry().configure("full");
  REQUIRE(full);
  Problem p{.q_len = 100, .kv_len = 100};
  const Cost forward = (*full)->cost(p);
  p.pass = Pass::forward_backward;
  const Cost both = (*full)->cost(p);
  CHECK((both.flops == 3.5 * forward.flops && both.bytes == 3 * forward.bytes && both.exps == 2 * forward.exps));
}

TEST_CASE("cold steps find states in turn, each of all tokens, and answer as hot ones do") {
  for (const std::string variant : {"full", "linear"}) {
    const auto run = opened(decode(variant, 300, 2));
    run->run();
    const auto hot = output(*run);
    REQUIRE(run->go_cold());
    for (int i = 0; i < 3; ++i) {
      forget(*run);
      if (variant == "full") run->append();
      run->again();
      if (variant == "full") CHECK(output(*run) == hot);
    }
    // Each copy of a folded state has seen its own steps alone.
    if (variant == "linear") {
      const auto other = opened(decode(variant, 300, 2));
      other->run();
      other->again();
      CHECK(output(*run) == output(*other));
    }
  }
}

TEST_CASE("a layer is not decoded") {
  Cell cell = decode("full", 64, 1);
  cell.scope = Scope::layer;
  CHECK(CellRun::open(registry(), cell, false).reason() ==
        "a layer is timed whole, not in steps: --pass decode takes --scope mixer");
}

namespace {

// Sequences of 4 heads and 2 kv heads.
Cell ragged(const std::string& variant, const std::string& pass, const std::string& lengths,
            const std::string& layout = "contiguous") {
  return only({{"variant", {variant}},
               {"q_len", {"150"}},
               {"pass", {pass}},
               {"step", {"2"}},
               {"batch", {"4"}},
               {"heads", {"4"}},
               {"kv_heads", {"2"}},
               {"head_dim", {"16"}},
               {"causal", {"1"}},
               {"lengths", {lengths}},
               {"kv_layout", {layout}},
               {"threads", {"2"}}});
}

std::vector<std::uint32_t> bits(const View<const float, 4>& x, index_t batch, index_t rows) {
  std::vector<std::uint32_t> all;
  for (index_t h = 0; h < x.extent(1); ++h)
    for (index_t i = 0; i < rows; ++i)
      for (index_t d = 0; d < x.extent(3); ++d) all.push_back(std::bit_cast<std::uint32_t>(x(batch, h, i, d)));
  return all;
}

}  // namespace

TEST_CASE("a fused step has the bits of taking a token up and then answering it") {
  for (const std::string variant : {"linear", "performer:m=33", "performer:m=16,kernel=relu", "performer:m=16,plus=0", "cosformer",
                                    "rfa:m=7", "rfa:m=20,gate=yes"}) {
    for (const auto& [heads, kv_heads, d] : {std::tuple{4, 2, 16}, {3, 3, 13}, {40, 2, 8}, {20, 20, 70}}) {
      const Problem step{.batch = 2,
                         .heads = heads,
                         .kv_heads = kv_heads,
                         .q_len = 1,
                         .kv_len = 20,
                         .head_dim = d,
                         .value_dim = d,
                         .causal = true,
                         .pass = Pass::decode};
      INFO(variant << " " << to_string(step));
      const auto configured = registry().configure(variant).value();
      REQUIRE(configured->supports(step));
      const Problem whole = whole_sequence(step);
      const Tensors tokens = Tensors::allocate(whole);
      std::uint64_t stream = 0;
      for (const View<float, 4>& x : {tokens.q, tokens.k, tokens.v})
        Rng(3, stream++).normals({x.data_handle(), static_cast<std::size_t>(x.size())});
      Planned planned(*configured, planned_step(*configured, step), 2);
      planned.equip(make_parameters(configured->parameters(whole), 5));
      State fused(configured->state(step), step.batch), apart(configured->state(step), step.batch);
      std::vector<float> outputs[2];
      const Arena arena(2);
      for (index_t t = 0; t < step.kv_len; ++t) {
        for (State* state : {&fused, &apart}) {
          const Buffer memory = output_buffer(step);
          Arrays now = tokens_of(tokens.arrays(), t, 1);
          now.out = output_view(step, memory);
          arena.execute([&] {
            if (state == &fused) return planned.step(now, planned.parameters(), *state);
            planned.absorb(now, *state);
            planned.answer(now, *state);
          });
          auto& all = outputs[state == &apart];
          all.insert(all.end(), memory.as<float>(), memory.as<float>() + output_view(step, memory).size());
        }
      }
      CHECK(std::memcmp(outputs[0].data(), outputs[1].data(), outputs[0].size() * sizeof(float)) == 0);
      for (const StateTensor& tensor : fused.spec().tensors)
        CHECK(std::memcmp(fused.elements(tensor.name).data(), apart.elements(tensor.name).data(),
                          fused.elements(tensor.name).size_bytes()) == 0);
      CHECK(fused.end() == step.kv_len);
    }
  }
}

TEST_CASE(
    "a sequence of a ragged batch has the bits that it has alone, in prefill and in steps, and nothing else of its arrays is "
    "read") {
  for (const std::string variant : {"full", "local:left=20", "dilated", "longformer:window=8", "global"}) {
    for (const std::string pass : {"forward", "decode"}) {
      for (const std::string layout : {"contiguous", "paged:16"}) {
        INFO(variant << " " << pass << " " << layout);
        const auto run = opened(ragged(variant, pass, "uniform:5..150", layout));
        REQUIRE(run->lengths().size() == 4);
        run->run();  // what is no token is NaN
        for (int again = 0; again < 2; ++again) {
          for (index_t b = 0; b < 4; ++b) {
            const CellRun::Sequence own = run->alone(b);
            CHECK(own.problem.kv_len == run->lengths()[static_cast<std::size_t>(b)]);
            const auto out = run->output();
            for (const std::uint32_t x : bits(out, b, own.problem.q_len)) REQUIRE_FALSE(std::isnan(std::bit_cast<float>(x)));
            if (pass == "decode") continue;
            Planned planned(run->variant(), own.problem, 2);
            planned.equip(make_parameters(run->variant().parameters(own.problem), 1));
            const Buffer memory = output_buffer(own.problem);
            Arrays arrays = own.arrays;
            arrays.out = output_view(own.problem, memory);
            planned.run(run->arena(), arrays);
            CHECK(bits(out, b, own.problem.q_len) == bits(output_view(own.problem, memory), 0, own.problem.q_len));
            for (index_t h = 0; h < 4; ++h)
              for (index_t i = own.problem.q_len; i < out.extent(2); ++i) CHECK(out(b, h, i, 0) == 0);
          }
          run->again();
        }
      }
    }
  }
}

TEST_CASE("keys in pages give the bits of keys in a row, hot and cold") {
  for (const std::string variant : {"full", "local:left=20", "fixed"}) {
    for (const std::string pass : {"forward", "decode"}) {
      for (const std::string lengths : {"equal", "zipf"}) {
        INFO(variant << " " << pass << " " << lengths);
        const auto plain = opened(ragged(variant, pass, lengths)), paged = opened(ragged(variant, pass, lengths, "paged:16"));
        plain->run();
        paged->run();
        const index_t rows = plain->problem().q_len;
        for (index_t b = 0; b < 4; ++b) CHECK(bits(plain->output(), b, rows) == bits(paged->output(), b, rows));
        REQUIRE(paged->go_cold());
        forget(*paged);
        paged->again();
        paged->again();
        for (index_t b = 0; b < 4; ++b) CHECK(bits(plain->output(), b, rows) == bits(paged->output(), b, rows));
      }
    }
  }
}

TEST_CASE("a ragged batch costs what its sequences cost") {
  const auto run = opened(ragged("full", "decode", "zipf"));
  Cost sum;
  for (const index_t length : {150, 75, 50, 37}) sum = sum + run->variant().cost(run->problem().sequence(length));
  CHECK((run->cost().flops == sum.flops && run->cost().bytes == sum.bytes && run->cost().exps == sum.exps));
}

TEST_CASE("what reads sequences of one length, or keys in a row, says so") {
  const auto reason = [](const Cell& cell) { return CellRun::open(registry(), cell, false).reason(); };
  CHECK(reason(ragged("linear", "decode", "zipf")).find("linear takes sequences of one length (given: ") == 0);
  CHECK(reason(ragged("linear", "decode", "equal", "paged:16")).find("linear reads no keys from pages (given: ") == 0);
  CHECK(reason(ragged("full", "forward_backward", "zipf")).find("full has no backward pass of sequences of different lengths") ==
        0);
  CHECK(reason(ragged("full", "forward_backward", "equal", "paged:16")).find("full has no backward pass of keys in pages") == 0);
  CHECK(reason(ragged("full", "decode", "uniform:1..1")) == "--lengths uniform:1..1: a length of 1 has no step of 2 tokens");
  CHECK(reason(ragged("full", "decode", "uniform:9..151")) ==
        "--lengths uniform:9..151: a length of 151 is outside of 2..150, the keys that --n gives");
}
