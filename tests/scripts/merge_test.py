"""merge.py: rows of several nodes stand in one table only where the nodes are alike; nothing is lost, nothing counted twice."""
import csv
import json
import os
import time
import unittest

import numpy as np

import synthetic
from testing import ScriptTest

CELL = "--variants full --n 1024"


class Merge(ScriptTest):
    def shard(self, block, node="n1", n=None, rows=None, anchor=(0.01, 0.01), peak=100.0, torn=False, commit="abc123", **machine):
        """A block of 3 variants at one length, measured on `node`."""
        n = n or 128 * (block + 1)
        rows = rows or [synthetic.row(variant, n, np.full(9, 1e-3 * (i + 1))) for i, variant in enumerate(("full", "linear", "nystrom"))]
        path = synthetic.write(self.folder / f"shard-{block:04d}.csv", rows, machine={**synthetic.MACHINE, "host": node, **machine})
        context_path = path.with_name(f"shard-{block:04d}.context.json")
        context = json.loads(context_path.read_text())
        context["peaks"][0]["fma_gflops"] = peak
        context["attnbench"]["commit"] = commit
        context_path.write_text(json.dumps(context))
        if anchor:
            path.with_name(f"shard-{block:04d}.anchor.json").write_text(json.dumps(
                {"node": node, "cell": CELL, "begin_s": anchor[0], "end_s": anchor[1], "clock_ahead_s": machine.get("clock", 0)}))
        if torn:
            path.write_bytes(path.read_bytes()[:-20])
        return path

    def merge(self, *arguments, code=0):
        return self.run_script("merge.py", self.folder, "-o", "out/all.csv", *arguments, code=code)

    def setUp(self):
        super().setUp()
        (self.folder / "out").mkdir()

    def refuses(self, code, *words, more=()):
        done = self.run_script("merge.py", self.folder, "-o", "out/all.csv", *more, code=code)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertFalse((self.folder / "out/all.csv").exists())

    def rows(self, name="all.csv"):
        with open(self.folder / "out" / name, newline="") as file:
            return list(csv.DictReader(file))

    def test_rows_of_nodes_that_are_alike_stand_in_one_table_as_they_were(self):
        paths = [self.shard(0, "n1"), self.shard(1, "n2", anchor=(0.0102, 0.0099)), self.shard(2, "n1", peak=103)]
        self.assertIn("9 rows of 3 shards and 2 nodes", self.merge().stdout)
        merged = self.rows()
        self.assertEqual([row.pop("node") for row in merged], ["n1"] * 3 + ["n2"] * 3 + ["n1"] * 3)
        before = [row for path in paths for row in csv.DictReader(path.read_text().splitlines())]
        self.assertEqual(merged, before)
        context = json.loads((self.folder / "out/all.context.json").read_text())
        self.assertEqual([(n["node"], n["rows"]) for n in context["nodes"]], [("n1", 6), ("n2", 3)])
        self.assertEqual(context["peaks"][0]["fma_gflops"], 100.0)

    def test_reports_and_comparisons_read_a_merged_table_and_say_its_nodes(self):
        for block, node in enumerate(("n1", "n2", "n1")):
            self.shard(block, node)
        self.merge()
        self.assertIn("2 nodes (n1, n2)", self.run_script("compare.py", "out/all.csv", "out/all.csv").stdout)
        self.run_script("report.py", "out/all.csv", "-o", "a.html")
        self.assertIn("2 nodes (n1, n2)", (self.folder / "a.html").read_text())

    def test_a_fact_that_differs_is_named_with_its_node(self):
        for fact, value in (("cpu", "Other CPU"), ("microcode", "0x2"), ("governor", "powersave"), ("usable_cores", 64), ("isa_used", "scalar")):
            with self.subTest(fact):
                self.shard(0, "n1")
                self.shard(1, "n1")
                self.shard(2, "n2", **{fact: value})
                self.refuses(3, "node n2", f"machine.{fact}", str(value))
        self.shard(2, "n2", commit="fff")
        self.refuses(3, "node n2", "attnbench.commit: fff")

    def test_peaks_and_anchors_beyond_the_tolerance_are_named_with_node_and_figure(self):
        for block, node in enumerate(("n1", "n2", "n3")):
            self.shard(block, node)
        self.shard(2, "n3", peak=106)
        self.refuses(3, "node n3: peak fma_gflops (avx2, 2 threads) is 106, +6.0 %")
        self.merge("--tolerance", "7%")
        (self.folder / "out/all.csv").unlink()
        self.shard(2, "n3", anchor=(0.0106, 0.0106))
        self.refuses(3, f"node n3: anchor {CELL} is 0.0106, +6.0 %")
        self.shard(2, "n3", anchor=(0.0095, 0.0106))
        self.refuses(3, "node n3: the anchor cell went from 0.0095 s to 0.0106 s while 'shard-0002.csv' was measured")

    def test_odd_nodes_are_kept_apart_when_asked_and_nothing_is_lost(self):
        for block, node in enumerate(("n1", "n2", "n3", "n1")):
            self.shard(block, node, peak=120 if node == "n3" else 100)
        said = self.merge("--quarantine").stdout
        self.assertIn("apart: node n3: peak fma_gflops", said)
        self.assertEqual({row["node"] for row in self.rows()}, {"n1", "n2"})
        self.assertEqual({row["node"] for row in self.rows("all.quarantined.csv")}, {"n3"})
        self.assertEqual(len(self.rows()) + len(self.rows("all.quarantined.csv")), 12)

    def test_of_two_nodes_that_differ_neither_is_odd(self):
        self.shard(0, "n1")
        self.shard(1, "n2", peak=120)
        self.refuses(3, "most nodes do not agree", more=["--quarantine"])
        self.shard(1, "n2", cpu="Other CPU")
        self.refuses(3, "most nodes do not agree", more=["--quarantine"])
        self.merge("--quarantine", "n2")
        self.assertEqual({row["node"] for row in self.rows()}, {"n1"})

    def test_nodes_without_an_anchor_are_not_taken_on_trust(self):
        self.shard(0, "n1")
        self.shard(1, "n2", anchor=None)
        self.refuses(2, "no anchor cell was measured", "n2")
        self.merge("--no-anchor")
        (self.folder / "out/all.csv").unlink()
        self.shard(1, "n2", anchor=(0.01, 0.05))
        self.merge("--no-anchor")

    def test_a_cell_that_stands_twice_is_refused_with_both_places(self):
        self.shard(0, "n1", n=128)
        self.shard(1, "n2", n=128)
        self.refuses(2, "shard-0000.csv' (node n1) and", "shard-0001.csv' (node n2)", "full")
        row = synthetic.row("full", 512, np.full(9, 1e-3))
        self.shard(1, "n1", rows=[row, row])
        self.refuses(2, "shard-0001.csv' twice")

    def test_a_torn_shard_is_refused_or_kept_apart(self):
        self.shard(0, "n1")
        self.shard(1, "n2", torn=True)
        self.refuses(2, "shard-0001.csv' (node n2) ends in a torn line")
        self.assertIn("apart: ", self.merge("--quarantine").stdout)
        self.assertEqual(len(self.rows("all.quarantined.csv")), 2)  # its whole lines
        self.assertEqual(len(self.rows()), 3)

    def test_clocks_that_disagree_are_said(self):
        self.shard(0, "n1")
        self.shard(1, "n2", clock=95.0)
        self.assertIn("the clock of node n2 is 95 s ahead", self.merge("--no-anchor").stdout)

    def plan(self, blocks, commit="abc123", cells=3):
        lines = ["# attnbench plan 1", f"# build attnbench-0.1.0-gcc-12 commit {commit}", "block\tseconds\tcells\tproblem\targuments"]
        path = self.folder / "plan.tsv"
        path.write_text("\n".join(lines + [f"{b}\t1.0\t{cells}\tq_len=128\t--n 128" for b in range(blocks)]) + "\n")
        return path

    def test_a_plan_says_what_is_missing(self):
        self.shard(0, "n1")
        self.shard(2, "n1")
        self.refuses(2, "1 of 3 blocks are missing, the first is 1", more=["--plan", self.plan(3)])
        self.assertIn("missing: 1 blocks", self.merge("--plan", self.plan(3), "--partial").stdout)
        (self.folder / "out/all.csv").unlink()
        self.refuses(2, "is of commit abc123, the plan", more=["--plan", self.plan(3, commit="fff")])
        self.refuses(2, "has 3 rows, its block has 4 cells", more=["--plan", self.plan(3, cells=4)])
        self.refuses(2, "no block of the plan", more=["--plan", self.plan(2)])

    def test_a_published_shard_is_read_with_what_lies_beside_its_attempt(self):
        self.shard(0, "n1")
        (self.folder / "shards").mkdir()
        os.symlink("../shard-0000.csv", self.folder / "shards/shard-0000.csv")
        self.run_script("merge.py", "shards", "-o", "out/all.csv")
        self.assertEqual({row["node"] for row in self.rows()}, {"n1"})
        self.run_script("report.py", "shards/shard-0000.csv", "-o", "a.html")
        self.assertIn("Test CPU", (self.folder / "a.html").read_text())

    def test_bad_input(self):
        self.refused(5, "has no CSV", "merge.py", self.folder / "out", "-o", "out/all.csv")
        self.refused(2, "cannot be read", "merge.py", "none.csv", "-o", "out/all.csv")
        path = self.shard(0)
        self.refused(2, "is not a share", "merge.py", path, "-o", "out/all.csv", "--tolerance", "much")
        self.refused(2, "there is no node n9", "merge.py", path, "-o", "out/all.csv", "--quarantine", "n9")
        path.with_name("shard-0000.context.json").write_text("{")
        self.refused(2, "is no readable JSON", "merge.py", path, "-o", "out/all.csv")
        path.with_name("shard-0000.context.json").unlink()
        self.refused(2, "nobody can tell which node", "merge.py", path, "-o", "out/all.csv")
        (self.folder / "odd.csv").write_text("a,b\n1,2\n")
        self.refused(2, "no CSV of attn_sweep or attn_train", "merge.py", "odd.csv", "-o", "out/all.csv")
        self.shard(0)
        self.run_script("merge.py", path, "-o", "out/all.csv")
        self.refused(2, "--force replaces it", "merge.py", path, "-o", "out/all.csv")
        if os.path.exists("/dev/full"):
            self.refused(2, "was not written", "merge.py", path, "-o", "/none/all.csv")

    def test_two_hundred_shards_of_a_hundred_rows_take_less_than_five_seconds(self):
        for block in range(200):
            rows = [synthetic.row(f"local:left={i}", 128 * (block + 1), np.full(9, 1e-3)) for i in range(100)]
            self.shard(block, f"n{block % 8}", rows=rows)
        begin, before = time.monotonic(), os.times()
        self.merge()
        wall, after = time.monotonic() - begin, os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        print(f"200 shards of 100 rows: {wall:.1f} s ({cpu:.1f} s of processor)")
        self.assertLess(cpu, 5)
        self.assertEqual(len(self.rows()), 20000)


if __name__ == "__main__":
    unittest.main()
