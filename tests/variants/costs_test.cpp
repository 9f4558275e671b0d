// What every page declares of one small problem, by hand: a batch of 2, 3 heads, 8 tokens, head_dim 4 and value_dim 6, or 4 where a page
// wants that; not causal, except for what is always so. Six heads in all; q and k are 768 bytes each, v and the output 1152, or 768.
// `state` is of one sequence of 8 tokens when the next one is decoded: 120 bytes a token where keys and values are kept.
#include <set>

#include "variants/run.hpp"

using namespace attn;
using namespace attn::test;

namespace {

constexpr double heads = 6, qkvo = 3840, all_of_4 = 3072, x_and_out = 1536, v_and_out = 2304;
constexpr index_t not_decoded = 0, token_bytes = 3 * 10 * 4;

struct Declared {
  const char* name;
  double flops, bytes, exps;
  index_t state;
  index_t value_dim = 6;
};

const Declared table[] = {
    // scores: two products of 8 x 8 pairs with 4 and 6 numbers
    {"full", heads * 2 * 64 * 10, qkvo, heads * 64, 8 * token_bytes},
    {"entmax", heads * 2 * 64 * 10, qkvo, 0, 8 * token_bytes},
    {"relu", heads * 2 * 64 * 10, qkvo, 0, 8 * token_bytes},
    {"sigmoid", heads * 2 * 64 * 10, qkvo, heads * 64, not_decoded},
    {"softmax1", heads * 2 * 64 * 10, qkvo, heads * 64, 8 * token_bytes},
    {"diff", heads * 2 * 2 * 64 * (2 + 6), qkvo, heads * 2 * 64, 8 * token_bytes},
    {"softcap", heads * 2 * 64 * 10, qkvo, heads * 64, 8 * token_bytes},
    {"alibi", heads * 2 * 64 * 10, qkvo, heads * 64, 8 * token_bytes},
    {"qk_norm", heads * 2 * 64 * 10, qkvo, heads * 64, 8 * token_bytes},
    {"additive:size=3", heads*(2 * (8 + 8) * 4 * 3 + 64 * (3 * 3 + 2 * 6)), qkvo + 4 * 3 * (4 * 3 + 4 * 3 + 3),
     heads * 64 * (3 + 1), 8 * token_bytes},
    {"luong_concat:size=3", heads*(2 * (8 + 8) * 4 * 3 + 64 * (3 * 3 + 2 * 6)), qkvo + 4 * 3 * (8 * 3 + 3), heads * 64 * (3 + 1),
     8 * token_bytes},
    {"luong_general", heads*(2 * 64 * 10 + 2 * 8 * 4 * 4), qkvo + 4 * 3 * 4 * 4, heads * 64, 8 * token_bytes},

    // sparse: the keys of each row
    {"local:left=2,right=1,sinks=1", heads * 2 * (2 + 3 + 4 + 5 + 5 + 5 + 5 + 4) * 10, qkvo, heads * 33, (3 + 1) * token_bytes},
    {"dilated:window=1,step=2", heads * 2 * (2 + 2 + 3 + 3 + 3 + 3 + 2 + 2) * 10, qkvo, heads * 20, 3 * token_bytes},
    {"blockwise:block=2,before=1,after=0", heads * 2 * (2 + 2 + 4 * 6) * 10, qkvo, heads * 28, 4 * token_bytes},
    {"fixed:block=2,summary=1", heads * 2 * 8 * (2 + 3) * 10, qkvo, heads * 40, (2 + 4) * token_bytes},
    {"strided:stride=3", heads * 2 * (3 + 5 + 6 + 6 + 6 + 6 + 5 + 4 + 7) * 10, qkvo, heads * 48, 8 * token_bytes},
    {"global:tokens=1", heads * 2 * (8 + 7) * 10, qkvo, heads * 15, token_bytes},
    {"longformer:window=1,dilated_heads=0,tokens=1", heads * 2 * (8 + 3 + 4 + 4 + 4 + 4 + 4 + 3) * 10, qkvo, heads * 34,
     (2 + 1) * token_bytes},
    {"bigbird:block=1,random=1", heads * 2 * (8 + 5 + 6 + 6 + 6 + 6 + 5 + 8) * 10, qkvo, heads * 50, 8 * token_bytes},

    // selective: scoring is not counted
    {"block_topk:block=2,keep=2,first=0,local=1", heads * 2 * 8 * 4 * 10, qkvo, heads * 32, not_decoded},
    {"moba:block=2,keep=2", heads * 2 * (1 + 2 + 3 + 4 + 3 + 4 + 3 + 4) * 10, qkvo, heads * 24, 8 * token_bytes},

    // compressed keys seen by each row, keys of chosen blocks, a window of two
    {"nsa:block=2,stride=2,select=2,keep=3,window=2", heads * 2 * (16 + 32 + 15) * 10, qkvo, heads * 63, 8 * token_bytes},
    {"vertical_slash:block=2,last=2,vertical=1,slash=1,first=1,local=1", heads * 2 * (1 + 2 + 3 + 4 + 4 + 5 + 4 + 5) * 10, qkvo,
     heads * 28, not_decoded},
    // beside the cache two bounds of each of 4 channels and 4 pages
    {"quest:page=2,keep=2", heads * 2 * (1 + 2 + 3 + 4 + 3 + 4 + 3 + 4) * 10, qkvo, heads * 24,
     8 * token_bytes + 3 * 2 * 4 * 4 * 4},
    // with the sum of each kept key, and the position of two of them
    {"h2o:heavy=2,recent=2", heads * 2 * (1 + 2 + 3 + 5 * 4) * 10, qkvo, heads * 26, 3 * (4 * (4 + 6 + 1) + 2) * 4},
    // a prompt of 6, of which 4 keys are kept, and its two last queries
    {"snapkv:keep=2,window=2", heads * 2 * (1 + 2 + 3 + 4 + 5 + 6 + 5 + 6) * 10, qkvo, heads * 32, 3 * (6 * 10 + 2 * 4) * 4},

    // graph: edges, with one of each node to itself where loops are added; their lists are read
    {"graph:degree=2", heads * 2 * 8 * 2 * 10, qkvo + 4 * 2 * 8 * 2, heads * 16, not_decoded},
    {"gat:degree=2", heads*(2 * 8 * 3 * 6 + 2 * 16 * 4), qkvo + 4 * (2 * 8 * 2 + 2 * 3 * 4), heads * 24, not_decoded},
    {"gatv2:degree=2", heads * 8 * 3 * (4 * 4 + 2 * 6), qkvo + 4 * (2 * 8 * 2 + 3 * 4), heads * 24, not_decoded},

    // clustered: pairs, then the products that choose them
    {"clustered:clusters=2,bits=3", heads*(2 * 2 * 8 * 10 + 2 * 8 * 4 * 3), qkvo, heads * 2 * 8, not_decoded},
    {"clustered_improved:clusters=2,topk=3,bits=3", heads*(2 * (2 * 8 + 8 * 3) * 10 + 2 * 8 * 4 * 3), qkvo, heads * 40,
     not_decoded},
    {"reformer:chunk=2,rounds=1,before=1,after=0", heads*(2 * 8 * (1 + 2) * 10 + 2 * 8 * 4 * 4), qkvo, heads * 24, not_decoded},
    {"routing:clusters=2,window=4", heads*(2 * 2 * 4 * 4 * 10 + 2 * (8 + 8) * 4 * 2), qkvo, heads * 32, not_decoded},
    // own and sorted blocks; what mixes 4 blocks into 4; what scores them; exponentials of both and of two normalisations
    {"sinkhorn:block=2,iterations=2", heads*(2 * 8 * 4 * 10 + 2 * 16 * 2 * 10 + 2 * 4 * 4 * (4 + 4)), qkvo,
     heads*(32 + 16 * (2 * 2 + 1)), 8 * token_bytes + 3 * 2 * 10 * 4},

    // low rank
    {"compressed:r=2", heads*(2 * 8 * 4 * 10 + 2 * 8 * (4 * 4 + 6 * 6)), qkvo, heads * 8 * 4, (4 + 1) * token_bytes},
    {"inducing:m=3", heads*(2 * 3 * (8 + 8) * 10 + 2 * 3 * (6 * 4 + 6 * 6)), qkvo, heads * 3 * (8 + 8), not_decoded},
    {"linformer:k=3,sharing=none", heads * 2 * 3 * (8 + 8) * 10, qkvo + 2 * 3 * 3 * 8 * 4, heads * 8 * 3, not_decoded},
    // through 2 landmarks; four products of 2 x 2 matrices in the iteration, then Z with what was gathered; means
    {"nystrom:landmarks=2,iterations=1,conv=0", heads*(2 * 2 * (8 + 8) * 10 + 4 * 2 * 8 + 2 * 4 * 10 + (8 + 8) * 4), qkvo,
     heads * 2 * (8 + 8), not_decoded},
    // latents of 3 + 6 numbers become keys of 3 and values of 6
    {"mla:rope=1,form=expand", heads*(2 * 8 * 9 * 9 + 2 * 64 * 10), qkvo + 4 * 3 * 9 * 9, heads * 64, 8 * token_bytes},

    // kernelized: features by 6 values and a denominator, once for keys and once for queries
    {"linear", heads * 4 * 8 * 4 * 7, qkvo, heads * 2 * 8 * 4, 3 * 4 * 7 * 4},
    {"cosformer", heads * 4 * 8 * 8 * 7, qkvo, 0, 3 * 8 * 7 * 4},
    {"hedgehog", heads*(4 * 8 * 8 * 7 + 4 * 8 * 4 * 4), qkvo, heads * 2 * 8 * 8, 3 * 8 * 7 * 4},
    {"efficient", heads * 4 * 8 * 4 * 6, qkvo, heads * 2 * 8 * 4, not_decoded},
    {"performer:m=5", heads*(4 * 8 * 5 * 4 + 4 * 8 * 5 * 7), qkvo, heads * 2 * 8 * 5, 3 * ((5 + 1) * 7 + 1) * 4},
    {"rfa:m=5", heads*(4 * 8 * 5 * 4 + 4 * 8 * 10 * 7), qkvo, heads * 2 * 8 * 10, 3 * 10 * 7 * 4},
    {"rfa:m=5,gate=yes", heads*(4 * 8 * 5 * 4 + 4 * 8 * 10 * 7), qkvo, heads * 2 * 8 * 10, 3 * (10 * 7 + 1) * 4},
    {"taylor:dim=2", heads*(4 * 8 * 6 * 7 + 4 * 8 * 4 * 2), qkvo, 0, 3 * 6 * 7 * 4},

    // gated: products with a state of 4 x 6, beside which a gate or the own key and value may be kept
    {"fox", heads * 2 * 36 * 10, qkvo, heads * 36, 8 * token_bytes},
    {"retention", heads * 4 * 8 * 24, qkvo, 0, 3 * (24 + 1) * 4},
    {"mamba2", heads*(4 * 8 * 24 + 2 * 8 * 6), qkvo, heads * 2 * 8, 3 * (24 + 1 + 4 + 6) * 4},
    {"gla:rank=2", heads*(4 * 8 * 24 + 4 * 8 * 4 * 2), qkvo, heads * 3 * 8 * 4, 3 * (24 + 4) * 4},
    {"gated_delta", heads * 6 * 8 * 24, qkvo, heads * 3 * 8, 3 * 24 * 4},
    {"kda:rank=2", heads*(6 * 8 * 24 + 4 * 8 * 4 * 2), qkvo, heads * 3 * 8 * 4, 3 * 24 * 4},
    {"rwkv7:rank=2", heads*(8 * 8 * 24 + 8 * 8 * 4 * 2 + 2 * 8 * 10), qkvo, heads * 3 * 8 * 4, 3 * (24 + 4 + 6) * 4},

    // synthesizers: weights of 8 x 8 without keys, so values alone are kept
    {"synth_dense", heads*(2 * 8 * 4 * 4 + 2 * 64 * 10), 768 + v_and_out + 4 * 3 * 4 * (4 + 8), heads * 64, 8 * 3 * 6 * 4},
    {"synth_dense_factored:a=2", heads*(2 * 8 * 4 * (4 + 2 + 4) + 64 * (1 + 2 * 6)), 768 + v_and_out + 4 * 3 * 4 * (4 + 2 + 4),
     heads * 64, 8 * 3 * 6 * 4},
    {"synth_mixture", heads * 2 * 64 * 10, qkvo + 4 * 3 * 64, heads * 64, 8 * token_bytes},
    {"synth_random", heads * 2 * 64 * 6, v_and_out + 4 * 3 * 64, 0, 8 * 3 * 6 * 4},
    {"synth_random:cached=no", heads * 2 * 64 * 6, v_and_out + 4 * 3 * 64, 3 * 64, 8 * 3 * 6 * 4},
    {"synth_random_factored:k=2", heads * 2 * 64 * 6 + 3 * 2 * 64 * 2, v_and_out + 4 * 3 * (8 + 8) * 2, 3 * 64, 8 * 3 * 6 * 4},

    // without attention
    {"aft:form=full", heads * 4 * (4 * 64 + 5 * 8), all_of_4, heads * 2 * 8 * 4, 3 * 8 * 8 * 4, 4},
    {"aft:form=simple", heads * 4 * 5 * 8, all_of_4, heads * 2 * 8 * 4, 3 * 5 * 4 * 4, 4},
    {"dynamic_conv:width=3", heads * 2 * 4 * ((2 + 6 * 3 + 2) + 8 * 3), x_and_out + 4 * 3 * 4 * 3, heads * 8 * 3, 3 * 3 * 4 * 4, 4},
    {"light_conv:width=3", heads * 2 * 4 * (2 + 6 * 3 + 2), x_and_out, 3 * 3, 3 * 3 * 4 * 4, 4},
    {"conv1d:width=3", heads * 2 * (2 + 6 * 3 + 2) * 4 * 4, x_and_out + 4 * 3 * 3 * 4 * 4, 0, 3 * 3 * 4 * 4, 4},
    {"long_conv", heads * 4 * (2 * 36 + 8 + 8), all_of_4 + 4 * 3 * 4 * 8, 0, 8 * 3 * 8 * 4, 4},
    {"gmlp", heads * 2 * 4 * 64, 3 * 768 + 4 * 64, 0, 3 * (8 * 4 + 4) * 4, 4},
    {"mlp_mixer:hidden=5", heads * 4 * 8 * 5 * 4, x_and_out + 4 * 2 * 8 * 5, heads * 5 * 4, not_decoded, 4},
    {"fnet", heads * 2.5 * 8 * 4 * (3 + 2), x_and_out, 0, not_decoded, 4},

    // baselines
    {"copy_v", 0, v_and_out, 0, 3 * 6 * 4},
    {"mean_v", heads * 8 * 6, v_and_out, 0, 3 * 2 * 6 * 4},
    {"gru", heads * 12 * 8 * 4 * 4, x_and_out + 4 * 3 * 2 * 3 * 4 * 4, heads * 3 * 8 * 4, 3 * 4 * 4, 4},
    {"lstm", heads * 16 * 8 * 4 * 4, x_and_out + 4 * 3 * 2 * 4 * 4 * 4, heads * 5 * 8 * 4, 3 * 2 * 4 * 4, 4},
};

Problem small(const Variant& v, index_t value_dim) {
  Problem p{.batch = 2, .heads = 3, .kv_heads = 3, .q_len = 8, .kv_len = 8, .head_dim = 4, .value_dim = value_dim};
  if (!v.supports(p)) p.causal = true;
  return p;
}

}  // namespace

TEST_CASE("what pages declare of one small problem is what it comes to by hand") {
  for (const Declared& by_hand : table) {
    const auto v = variant(by_hand.name);
    const Problem p = small(*v, by_hand.value_dim);
    INFO(by_hand.name);
    REQUIRE(v->supports(p));
    const Cost cost = v->cost(p);
    CHECK(cost.flops == by_hand.flops);
    CHECK(cost.bytes == by_hand.bytes);
    CHECK(cost.exps == by_hand.exps);
    Problem step = p;
    step.causal = true, step.pass = Pass::decode, step.q_len = 1;
    CHECK((v->supports(step) ? v->state_bytes(step) : not_decoded) == by_hand.state);
  }
}

TEST_CASE("no page is without figures by hand") {
  std::set<std::string> known;
  for (const Declared& by_hand : table) known.insert(variant(by_hand.name)->name().id);
  const auto all = registry().configure_list("*");
  REQUIRE(all);
  for (const auto& v : *all) {
    INFO("add '" << v->name().id << "' to the table");
    CHECK(known.count(v->name().id) == 1);
  }
}
