#!/usr/bin/env python3
"""Writes the page of a new variant and its test: new_variant.py ID FAMILY [--root DIR]; or, with --python, a file ID.py with a
function of NumPy arrays, which attn_sweep --guest 'python3 ID.py' measures.

They compile, pass and are measured at once: softmax attention over the keys within `reach` of the query. Put your
formula in `definition`, your fast path in `run`, and properties that need no definition in the test.
"""
import argparse
import re
import sys
from pathlib import Path

PAGE = """\
#include "attn/kernels/softmax/attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// @id@: softmax over the keys within `reach` of the query.
//   out_i = sum_j softmax_j(q_i.k_j / sqrt(D)) v_j,  |i-j| <= reach;  j <= i when causal
//   Author et al. YEAR, arXiv:NUMBER, section S
//   useful flops 2 pairs (D + Dv), pairs ~ N (2 reach + 1); no workspace that grows with N; exact for reach >= N - 1
struct @Type@ {
  using Engine = kernels::Attention;  // the harness asks it what layouts of keys it reads
  struct Options {
    index_t reach = 64;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>().integer("reach", &Options::reach, 0, unlimited, "keys allowed on either side of the query");
  }

  static VariantInfo info() {
    return {.title = "@title@",
            .formula = "softmax over |i-j| <= reach",
            .paper = "Author et al. YEAR, arXiv:NUMBER, section S",
            .cost_in_n = "N (2 reach+1) D",
            .exactness = Exactness::pattern,
            .grouped_heads = true,
            .time_exponent = 1};
  }

  // Useful work, however it is done: the pairs of query and key that count.
  static Cost cost(const Problem& p, const Options& o) {
    return softmax_cost(p, count_pairs(p, [&](index_t i) { return visible_keys(p, i, i - o.reach, i + o.reach); }));
  }

  // The truth that the fast path is held against, generic over the number type.
  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    return softmax_attention(p, in, [&](index_t i, index_t j) { return i - j <= o.reach && j - i <= o.reach; });
  }

  // The plan: everything that allocates or can fail.
  @Type@(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : o_(o), engine_(p, {.keys_per_query = 2 * o.reach + 1}, workspace) {}

  // The fast path. The engine asks, one block of queries at a time, which keys they see.
  void run(const Arrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    engine_.run(a, workspace, [&](const kernels::QueryBlock&, kernels::KeyList& keys) { keys.all().band(o_.reach, o_.reach); });
  }

 private:
  Options o_;
  Engine engine_;
};
ATTN_VARIANT(@id@, @Type@)

}  // namespace attn
"""

TEST = """\
#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("@id@: a reach as long as the keys is full attention") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(100, 16, causal);
    const Qkv in = arrays(p);
    check_equal(run("@id@:reach=99", p, in), run("full", p, in));
  }
}

TEST_CASE("@id@: a reach of 0 copies V") {
  const Problem p = problem(75);
  const Qkv in = arrays(p);
  check_equal(run("@id@:reach=0", p, in), in.v, 1e-6);
}

TEST_CASE("@id@: conforms with a short reach") { check_conforms("@id@:reach=3"); }

TEST_CASE("@id@: the pair count is the definition's") { check_pair_count("@id@:reach=7"); }
"""

FUNCTION = '''\
"""@id@: a variant for attnbench:  attn_sweep --guest 'python3 @id@.py' --variants full,@id@"""
import numpy as np

name = "@id@"
title = "@title@"
exactness = "pattern"  # against softmax attention: exact, pattern, approximation, or different, where the distance says nothing
options = {"reach": 64}  # what --variants @id@:reach=128 may change, with the usual values


def weights(q, k, causal, reach):
    """Softmax over the keys within `reach` of the query. The two sequences end together."""
    i, j = np.arange(k.shape[2] - q.shape[2], k.shape[2])[:, None], np.arange(k.shape[2])
    seen = (abs(i - j) <= reach) & ((j <= i) | (not causal))
    logits = np.where(seen, q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]).astype(q.dtype), -np.inf)
    top = logits.max(-1, keepdims=True)
    p = np.exp(logits - np.where(np.isneginf(top), 0, top))
    total = p.sum(-1, keepdims=True)
    return p / np.where(total == 0, 1, total)


def attention(q, k, v, causal, reach):
    """What is timed. q [B,H,N,D], k [B,H,M,D], v [B,H,M,Dv] of float32; returns [B,H,N,Dv]. Make it fast."""
    return weights(q, k, causal, reach) @ v


def reference(q, k, v, causal, reach):
    """The definition, as plain as it can be: attention() is held against it, in float64. Without one no time is vouched for."""
    return weights(q, k, causal, reach) @ v


def cost(problem, reach):
    """Useful work, however it is done: the pairs of query and key that count. Without one the roof is that of reading the inputs."""
    pairs = problem.batch * problem.heads * problem.q_len * min(problem.kv_len, 2 * reach + 1)
    return {"flops": 2.0 * pairs * (problem.head_dim + problem.value_dim), "exps": pairs}
'''


def fail(sentence):
    print(f"new_variant.py: {sentence}", file=sys.stderr)
    sys.exit(2)


def write(pages, words):
    for path, text in pages.items():
        for mark, word in words.items():
            text = text.replace(mark, word)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("id", help="such as local or mean_v: the file's name and the CSV's")
    parser.add_argument("family", nargs="?", help="folder under variants/: scores, sparse, lowrank, ..., or a new one")
    parser.add_argument("--python", action="store_true", help="a file of Python in the current folder, or in --root, instead")
    parser.add_argument("--root", type=Path, help="tree to write to (default: this one)")
    given = parser.parse_args()
    if given.python == (given.family is not None):
        fail("--python takes no FAMILY" if given.python else "give the FAMILY, a folder under variants/, or --python")
    for what, name in ("ID", given.id), ("FAMILY", given.family or "guest"):
        if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
            fail(f"{what} '{name}' is not lower case letters, digits and single underscores, such as mean_v")

    words = {
        "@id@": given.id,
        "@Type@": "".join(word.capitalize() for word in given.id.split("_")),
        "@title@": given.id.replace("_", " ").capitalize(),
    }
    if given.python:
        path = (given.root or Path()) / f"{given.id}.py"
        if path.exists():
            fail(f"{path} exists already")
        write({path: FUNCTION}, words)
        return
    given.root = given.root or Path(__file__).parents[1]
    page = given.root / "variants" / given.family / f"{given.id}.cpp"
    test = given.root / "tests/variants" / f"{given.id}_test.cpp"
    for there in (*given.root.glob(f"variants/*/{given.id}.cpp"), *([test] if test.exists() else [])):
        fail(f"{there} exists already")

    write({page: PAGE, test: TEST}, words)


if __name__ == "__main__":
    main()
