#include "attn/inputs/input.hpp"

#include <cmath>
#include <cstdint>

#include "attn/exec/arena.hpp"
#include "support.hpp"

using namespace attn;

TEST_CASE("every kind is documented, and its bare name or its refusal parses") {
  for (const auto& doc : input_docs()) {
    REQUIRE(!doc.doc.empty());
    REQUIRE(doc.syntax.starts_with(doc.name));
  }
  REQUIRE(input_docs().front().name == "text");
}

TEST_CASE("names are canonical and parse back") {
  const std::vector<std::pair<std::string, std::string>> names{{"iid", "iid:1"},
                                                               {"iid:1.0", "iid:1"},
                                                               {" iid:tau=3 ", "iid:3"},
                                                               {"text:", "text"},
                                                               {"text", "text"},
                                                               {"cluster", "cluster:16,6,0.7"},
                                                               {"cluster:8", "cluster:8,6,0.7"},
                                                               {"cluster:g=9", "cluster:16,9,0.7"},
                                                               {"sink:0.5,1", "sink:0.5,1"},
                                                               {"local", "local:24,8"},
                                                               {"needle:14", "needle:14"},
                                                               {"heavy", "heavy:0.6,1.5"},
                                                               {"lowrank", "lowrank:8,3"}};
  for (const auto& [given, canonical] : names) {
    REQUIRE(input(given)->name() == canonical);
    REQUIRE(input(canonical)->name() == canonical);
  }
}

TEST_CASE("bad names are refused in one sentence") {
  REQUIRE(refusal("idd:1").find("did you mean 'iid'") != std::string::npos);
  REQUIRE(refusal("gaussian:1").find("accepted: text, wav") != std::string::npos);
  REQUIRE(refusal("").find("unknown input ''") != std::string::npos);
  REQUIRE(refusal("iid:x") == "input 'iid:x': 'x' is not a number");
  REQUIRE(refusal("iid:").find("iid:1") != std::string::npos);
  REQUIRE(refusal("iid:-1").find("tau=-1 is outside") != std::string::npos);
  REQUIRE(refusal("iid:nan").find("is outside") != std::string::npos);
  REQUIRE(refusal("iid:inf").find("is outside") != std::string::npos);
  REQUIRE(refusal("iid:1,2").find("too many arguments; accepted: iid[:tau=1]") != std::string::npos);
  REQUIRE(refusal("cluster:2.5").find("whole numbers") != std::string::npos);
  REQUIRE(refusal("cluster:q=1").find("unknown argument; accepted: cluster[:C=16,g=6,rho=0.7]") != std::string::npos);
  REQUIRE(refusal("sink:1").find("outside") != std::string::npos);
}

TEST_CASE("problems that an input cannot serve are refused") {
  Problem p = problem(16, 4, 4);
  REQUIRE(input("lowrank:8")->adapt(p).reason() == "input lowrank:8,3 needs head_dim >= 8, not 4");
  REQUIRE(input("local")->adapt(problem(16, 4, 3)).reason() == "input local:24,8 needs head_dim >= 4, not 3");
  p.q_len = 0;
  REQUIRE(!input("iid")->adapt(p));
  p = problem(16, 4);
  p.kv_heads = 3;
  REQUIRE(input("iid")->make(p, 1).reason() == "4 heads cannot share 3 kv_heads evenly");
  p = problem(index_t{1} << 39);
  REQUIRE(input("iid")->make(p, 1).reason().find("would not fit any memory") != std::string::npos);
}

TEST_CASE("tensors are aligned, staggered and of the problem's shape") {
  Problem p = problem(1024);
  p.q_len = 100;
  p.value_dim = 32;
  p.kv_heads = 2;
  const Tensors t = Tensors::allocate(p);
  REQUIRE(t.q.extents() == std::array<index_t, 4>{1, 4, 100, 64});
  REQUIRE(t.k.extents() == std::array<index_t, 4>{1, 2, 1024, 64});
  REQUIRE(t.v.extents() == std::array<index_t, 4>{1, 2, 1024, 32});
  std::vector<std::uintptr_t> bases;
  for (const auto& view : {t.q, t.k, t.v}) bases.push_back(reinterpret_cast<std::uintptr_t>(view.data_handle()));
  for (const auto base : bases) REQUIRE(base % 64 == 0);
  REQUIRE((bases[1] - bases[0]) % 4096 == 576);
  REQUIRE((bases[2] - bases[1]) % 4096 == 576);
}

TEST_CASE("the same tensors for any number of threads; others for another seed") {
  Problem p = problem(130);
  p.batch = 2;
  p.kv_heads = 2;
  p.q_len = 70;
  p.value_dim = 24;
  for (const auto& name : {"iid", "lowrank", "cluster", "local", "sink", "heavy", "needle", "text"}) {
    const Tensors alone = make(name, p);
    REQUIRE(same(alone, make(name, p)));
    REQUIRE(!same(alone, make(name, p, 2)));
    Arena(3).execute([&] { REQUIRE(same(alone, make(name, p))); });
    for (const auto& view : {alone.q, alone.k, alone.v}) {
      for (const float x : values(view)) REQUIRE(std::isfinite(x));
    }
    // heads and batch items differ
    REQUIRE(alone.q(0, 0, 5, 60) != alone.q(0, 1, 5, 60));
    REQUIRE(alone.v(0, 0, 5, 20) != alone.v(1, 0, 5, 20));
  }
}

TEST_CASE("placement of known rows") {
  Problem p = problem(64, 1, 4);
  Tensors t = Tensors::allocate(p);  // zeros: uniform attention
  Placement at = place(p, t);
  REQUIRE(at.logit_std == Approx(0).margin(1e-12));
  REQUIRE(at.perplexity == Approx(1));
  REQUIRE(at.row_entropy == Approx(std::log(64)));
  REQUIRE(at.sink_mass == Approx(1.0 / 64));
  REQUIRE(at.top32_mass == Approx(0.5));
  REQUIRE(at.q_norm2 == Approx(0).margin(1e-12));

  for (index_t i = 0; i < 64; ++i) t.q(0, 0, i, 0) = 2;
  t.k(0, 0, 0, 0) = 100;  // logit 100 on key 0
  at = place(p, t);
  REQUIRE(at.sink_mass == Approx(1));
  REQUIRE(at.perplexity == Approx(1.0 / 64));
  REQUIRE(at.row_entropy == Approx(0).margin(1e-12));
  REQUIRE(at.q_norm2 == Approx(2));
  REQUIRE(to_string(at).find("sink_mass=1") != std::string::npos);
  p.causal = true;
  REQUIRE(place(p, t).sink_mass == Approx(1));
}
