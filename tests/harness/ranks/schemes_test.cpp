// Every scheme on ranks that are threads, against the variant's page on one.
#include <cmath>
#include <cstring>
#include <map>

#include "attn/core/rng.hpp"
#include "attn/ranks/member.hpp"
#include "attn/variant/planned.hpp"
#include "attn/variant/variant.hpp"
#include "catch.hpp"
#include "harness/variant_of.hpp"
#include "thread_ranks.hpp"

using namespace attn;

namespace {

using test::registry;

const SchemeKind& scheme(std::string_view name) {
  for (const SchemeKind* kind : scheme_kinds())
    if (kind->name == name) return *kind;
  FAIL("no such scheme");
  throw 0;
}

// Normal numbers as f32 or rounded to bf16.
struct Tensor4 {
  Buffer memory;
  Array array;
  Tensor4(DType dtype, std::array<index_t, 4> extents, const char* what) {
    const index_t count = extents[0] * extents[1] * extents[2] * extents[3];
    std::vector<float> values(static_cast<std::size_t>(count));
    Rng(7, what).normals(values);
    memory = Buffer(static_cast<std::size_t>(bytes_of(dtype, count)));
    if (dtype == DType::f32) {
      std::memcpy(memory.data(), values.data(), memory.bytes());
    } else {
      for (std::size_t i = 0; i < values.size(); ++i) {
        const auto bits = std::bit_cast<std::uint32_t>(values[i]);
        memory.as<std::uint16_t>()[i] = static_cast<std::uint16_t>(bits >> 16);
      }
    }
    array = Array(dtype, memory.data(), extents);
  }
};

struct Inputs {
  Tensor4 q, k, v;
  explicit Inputs(const Problem& p)
      : q(p.dtype, {p.batch, p.heads, p.q_len, p.head_dim}, "q"),
        k(p.kv_dtype, {p.batch, p.kv_heads, p.kv_len, p.head_dim}, "k"),
        v(p.kv_dtype, {p.batch, p.kv_heads, p.kv_len, p.value_dim}, "v") {}
  Arrays arrays(const View<float, 4>& out) const {
    Arrays a;
    a.q = q.array, a.k = k.array, a.v = v.array, a.out = out;
    return a;
  }
};

struct Outcome {
  std::vector<float> values;
  std::vector<Traffic> counted, formula;
  std::vector<index_t> booked;
};

// The variant's page in one piece.
std::vector<float> in_one(const Variant& variant, const Problem& p, const Inputs& in) {
  const Buffer memory = output_buffer(p);
  Planned planned(variant, p, 1);
  planned.equip(make_parameters(variant.parameters(p), 3));
  planned.run(in.arrays(output_view(p, memory)));
  return {memory.as<float>(), memory.as<float>() + memory.bytes() / sizeof(float)};
}

Outcome over_ranks(const SchemeKind& kind, const Variant& variant, const Problem& p, const Inputs& in, int ranks, int runs = 1) {
  const Buffer memory = output_buffer(p);
  std::memset(memory.data(), 0xff, memory.bytes());
  Outcome outcome;
  outcome.counted.resize(static_cast<std::size_t>(ranks));
  outcome.formula = outcome.counted;
  outcome.booked.resize(outcome.counted.size());
  const ParameterSet<float> parameters = make_parameters(variant.parameters(p), 3);
  std::mutex output;
  test::ThreadRanks(ranks).run([&](Communicator& all) {
    const auto rank = static_cast<std::size_t>(all.rank());
    WorkspacePlan booked(1);
    Member member(kind, variant, p, all, booked);
    Workspace workspace(booked, Workspace::Mode::checked);
    const Arrays whole = in.arrays(output_view(p, memory));
    const Buffer message(static_cast<std::size_t>(member.dealt_bytes(all.rank())));
    member.pack_inputs(whole, all.rank(), message.data());
    member.take_inputs(message.data(), member.share(parameters, all.rank()));
    for (int i = 0; i < runs; ++i) member.first_run(workspace);
    const Buffer own(static_cast<std::size_t>(member.output_bytes(all.rank())));
    member.pack_output(own.data());
    const std::lock_guard lock(output);
    member.unpack_output(own.data(), whole, all.rank());
    outcome.counted[rank] = member.counted();
    outcome.formula[rank] = member.formula();
    outcome.booked[rank] = booked.bytes();
    if (!workspace.gaps_intact()) outcome.counted[rank].bytes = -1;
  });
  outcome.values = {memory.as<float>(), memory.as<float>() + memory.bytes() / sizeof(float)};
  return outcome;
}

double difference(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(d <= most)) most = d;  // a NaN too
  }
  return most;
}
bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

Problem problem(index_t n, bool causal, DType dtype = DType::f32) {
  return {.batch = 2,
          .heads = 4,
          .kv_heads = 4,
          .q_len = n,
          .kv_len = n,
          .head_dim = 16,
          .value_dim = 8,
          .causal = causal,
          .dtype = dtype,
          .kv_dtype = dtype};
}

struct Way {
  const char* scheme;
  const char* variant;
};
constexpr Way ways[] = {{"ring", "full"},
                        {"scan", "linear"},
                        {"scan", "performer:m=32"},
                        {"scan", "taylor"},
                        {"scan", "hedgehog"},
                        {"halo", "local:left=9,right=5"},
                        {"halo", "local:left=300,right=0"},
                        {"halo", "dilated:window=3,step=4"},
                        {"halo", "blockwise:block=16,before=1,after=1"},
                        {"ulysses", "full"},
                        {"ulysses", "local:left=9,right=5"},
                        {"ulysses", "performer:m=32"},
                        {"ulysses", "luong_general"},
                        {"reduce", "linformer:k=8"},
                        {"reduce", "linformer:k=8,sharing=none"},
                        {"reduce", "inducing:m=8"}};

// Rounding apart, by the size of the outputs. Of bf16 products both sides round their operands.
double tolerance(DType dtype, const std::vector<float>& expected) {
  float largest = 1;
  for (const float x : expected) largest = std::max(largest, std::fabs(x));
  return (dtype == DType::f32 ? 2e-5 : 4e-2) * static_cast<double>(largest);
}

}  // namespace

TEST_CASE("over 1 to 4 ranks a scheme gives what the variant's page gives in one piece") {
  for (const Way& way : ways) {
    const auto variant = *registry().configure(way.variant);
    for (const DType dtype : {DType::f32, DType::bf16}) {
      for (const bool causal : {false, true}) {
        for (const index_t n : {1, 3, 37, 128, 301}) {  // fewer tokens than ranks or chunks, and no multiple of either
          const Problem p = problem(n, causal, dtype);
          if (!variant->supports(p)) continue;
          const Inputs in(p);
          const std::vector<float> expected = in_one(*variant, p, in);
          for (const int ranks : {1, 2, 3, 4}) {
            INFO(way.variant << "@" << way.scheme << " " << to_string(p) << " " << to_string(dtype) << " ranks=" << ranks);
            if (const Status status = scheme(way.scheme).supports(*variant, p, ranks); !status) {
              CHECK(status.reason() == "takes f32 over ranks");
              continue;
            }
            const Outcome got = over_ranks(scheme(way.scheme), *variant, p, in, ranks);
            CHECK(difference(expected, got.values) <= tolerance(dtype, expected));
            CHECK(got.counted == got.formula);
          }
        }
      }
    }
  }
}

TEST_CASE("one rank has the bits of the page, and as many ranks have the same bits again") {
  for (const Way& way : ways) {
    const auto variant = *registry().configure(way.variant);
    for (const bool causal : {false, true}) {
      const Problem p = problem(301, causal);
      if (!variant->supports(p)) continue;
      const Inputs in(p);
      INFO(way.variant << "@" << way.scheme << (causal ? " causal" : ""));
      CHECK(same_bits(in_one(*variant, p, in), over_ranks(scheme(way.scheme), *variant, p, in, 1).values));
      CHECK(same_bits(over_ranks(scheme(way.scheme), *variant, p, in, 3).values,
                      over_ranks(scheme(way.scheme), *variant, p, in, 3, 2).values));
    }
  }
}

TEST_CASE("a query of a decode is answered by all ranks alike from what each keeps") {
  const auto full = *registry().configure("full");
  for (const index_t context : {1, 3, 1000}) {
    Problem p = problem(context, true);
    p.pass = Pass::decode, p.q_len = 1;
    const Inputs in(p);
    const std::vector<float> expected = in_one(*full, p, in);
    for (const int ranks : {1, 2, 3, 4}) {
      INFO("context " << context << " ranks " << ranks);
      const Outcome got = over_ranks(scheme("tree"), *full, p, in, ranks);
      CHECK(difference(expected, got.values) <= 2e-5);
      CHECK(got.counted == got.formula);
      if (ranks == 1) CHECK(same_bits(expected, got.values));
      if (ranks == 4)
        for (const Traffic& t : got.counted) CHECK(t == Traffic{2 * 4 * 2 * 4 * (8 + 1), 2});  // log P rows of every head
    }
  }
}

TEST_CASE("traffic is what the papers' formulas say") {
  const index_t n = 256, b = 2, h = 4, d = 16, dv = 8;
  const Problem p = problem(n, false);
  const auto traffic = [&](const char* name, const char* variant, int ranks, bool causal = false) {
    const auto configured = *registry().configure(variant);
    const Problem own = problem(n, causal);
    return over_ranks(scheme(name), *configured, own, Inputs(own), ranks).counted;
  };
  const index_t kv = 4 * b * h * (d + dv);  // bytes of K and V of a token

  for (const bool causal : {false, true})  // P-1 shards
    for (const Traffic& t : traffic("ring", "full", 4, causal)) CHECK(t == Traffic{kv * n * 3 / 4, 3});
  for (const Traffic& t : traffic("ulysses", "full", 4))  // each rank's heads of Q, K, V and the output: 4 messages
    CHECK(t == Traffic{4 * b * (n / 4) * (2 * d + 2 * dv) * h * 3 / 4, 12});

  const auto halo = traffic("halo", "local:left=10,right=6", 4);  // to the left what is seen on the right, and the other way round
  CHECK(halo[0] == Traffic{kv * 10, 1});
  CHECK(halo[1] == Traffic{kv * 16, 2});
  CHECK(halo[3] == Traffic{kv * 6, 1});

  const index_t state = 4 * b * h * d * (dv + 1);  // S and z
  for (const Traffic& t : traffic("scan", "linear", 4)) CHECK(t == Traffic{2 * state, 2});
  const auto causal = traffic("scan", "linear", 4, true);  // as MPI_Exscan by recursive doubling
  CHECK(causal[0] == Traffic{2 * state, 2});
  CHECK(causal[1] == Traffic{2 * state, 2});
  CHECK(causal[2] == Traffic{state, 1});
  CHECK(causal[3] == Traffic{0, 0});
  (void)p;
}

TEST_CASE("a ring books K and V of a shard twice, whatever the number of ranks") {
  const auto booked = [](int ranks) {
    const Problem p = problem(2048, false);
    return over_ranks(scheme("ring"), **registry().configure("full"), p, Inputs(p), ranks).booked[1];
  };
  const index_t shard = 4 * 2 * 4 * (16 + 8) * 2048 / 4, lse = 4 * 2 * 4 * 2048 / 4;
  // The engine's own scratch does not depend on the length.
  CHECK(booked(4) - booked(8) ==
        Approx(2.0 * static_cast<double>(shard - shard / 2) + static_cast<double>(lse - lse / 2)).epsilon(0.02));
}

TEST_CASE("zigzag gives every rank as many pairs of query and key") {
  const Problem p = problem(512, true);
  WorkspacePlan workspace(1);
  const auto full = *registry().configure("full");
  for (int rank = 0; rank < 4; ++rank) {
    const Holding held = scheme("ring").plan({*full, p, rank, 4}, workspace)->holding(rank);
    index_t pairs = 0;
    for (const Range& range : held.queries)
      for (index_t i = range.first; i < range.end; ++i) pairs += i + 1;
    CHECK(pairs == 512 * 513 / 2 / 4);
  }
}

TEST_CASE("more ranks than heads, sinks and tensors that no head owns are refused with a sentence") {
  const Problem p = problem(64, false);
  const auto reason = [&](const char* name, const char* variant, int ranks) {
    const Status status = scheme(name).supports(**registry().configure(variant), p, ranks);
    return status ? std::string() : status.reason();
  };
  CHECK(reason("ulysses", "full", 4).empty());
  CHECK(reason("ulysses", "full", 5) == "deals key and value heads out: takes at most kv_heads=4 ranks, not 5");
  CHECK(reason("halo", "local:sinks=2", 2) == "hands on windows, no sinks: takes sinks=0 over ranks");
  CHECK(reason("halo", "local:sinks=2", 1).empty());
  Problem cross = p;
  cross.q_len = 32;
  CHECK(scheme("ring").supports(**registry().configure("full"), cross, 2).reason() == "needs q_len equal to kv_len over ranks");
}
