"""A plan on two Slurm nodes and over ssh, with nodes that fail: every block is published once, whole, and of one node.

Both nodes are this machine, with a core each. The program measures where it is built, else a stand-in."""
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import slurm_cluster
from cluster_test import CLUSTER, FAKE, VARIANTS
from testing import ScriptTest

SWEEP = os.environ.get("ATTN_SWEEP", "")
REAL = os.path.isfile(SWEEP)
GRID = ["--variants", "full,linear,mean_v", "--n", "32,48", "--causal", "both", "--heads", "2", "--head-dim", "16", "--input", "iid:1",
        "--threads", "1", "--samples", "2", "--rounds", "1", "--sample-time", "0.001", "--fidelity", "none", "--machine-root", "/none"]
ANCHOR = "--variants full --n 64 --heads 2 --head-dim 16 --input iid:1 --threads 1 --fidelity none --samples 2 --rounds 1 --sample-time 0.001"


class Grid(ScriptTest):
    seeds = 3

    @property
    def blocks(self):
        return 4 * self.seeds

    def grid(self):
        return [*GRID, "--seed", f"1..{self.seeds}"]

    def write_plan(self):
        """The program's own, or one for the stand-in."""
        if REAL:
            subprocess.run([SWEEP, *self.grid(), "--plan", str(self.plan)], check=True, capture_output=True)
            return
        lines = ["# attnbench plan 1", "# build attnbench-0.1.0-gcc-12 commit abc123", "block\tseconds\tcells\tproblem\targuments"]
        lines += [f"{b}\t2.0\t3\tq_len={32 * (b + 1)}\t--variants {VARIANTS} --n {32 * (b + 1)}" for b in range(self.blocks)]
        self.plan.write_text("\n".join(lines) + "\n")

    def setUp(self):
        super().setUp()
        self.plan, self.run_folder = self.folder / "plan.tsv", self.folder / "plan.run"
        self.write_plan()
        self.environment = {"ATTN_SWEEP": SWEEP if REAL else str(FAKE), "ATTN_ANCHOR": ANCHOR, "ATTN_LOCK_DIR": str(self.folder), "FAKE_SLEEP": "0.2"}

    def events(self):
        path = self.run_folder / "events.tsv"
        return [line.split("\t") for line in path.read_text().splitlines()] if path.exists() else []

    def shards(self):
        return sorted((self.run_folder / "shards").glob("shard-*.csv"))

    def rows(self, path):
        return list(csv.DictReader(path.read_text().splitlines()))

    def keys(self, path):
        columns = json.loads((path.resolve().with_name(path.name.removesuffix(".csv") + ".context.json")).read_text())["columns"]
        names = [column["name"] for column in columns if column["role"] == "key"]
        return [tuple(row[name] for name in names) for row in self.rows(path)]

    def assert_whole(self, nodes):
        """Every block once and of one node; the merged table has the keys of one machine's."""
        self.assertEqual(len(self.shards()), self.blocks)
        keys = [key for shard in self.shards() for key in self.keys(shard)]
        self.assertEqual((len(keys), len(set(keys))), (3 * self.blocks, 3 * self.blocks))
        published = [event for event in self.events() if event[1] == "published"]
        self.assertEqual(sorted(int(event[2]) for event in published), list(range(self.blocks)))
        self.assertLessEqual({event[4] for event in published}, nodes)
        # Times of a few microseconds on a busy machine: whether nodes are alike is merge_test's to try.
        self.run_script("merge.py", self.run_folder / "shards", "-o", "all.csv", "--plan", self.plan, "--tolerance", "99%", "--no-anchor")
        merged = self.rows(self.folder / "all.csv")
        by_block = {}
        for shard in self.shards():
            told = json.loads((shard.resolve().parent / f"{shard.stem}.anchor.json").read_text())
            by_block.setdefault(shard.name, set()).add(told["node"])
        self.assertTrue(all(len(of) == 1 for of in by_block.values()))
        self.assertEqual(len(merged), 3 * self.blocks)
        if REAL:
            subprocess.run([SWEEP, *self.grid(), "-q", "--out", self.folder / "one.csv"], check=True, capture_output=True)
            self.assertEqual(set(self.keys(self.folder / "one.csv")), set(keys))


class Slurm(Grid):
    def setUp(self):
        super().setUp()
        short = Path(tempfile.mkdtemp(prefix="sl", dir="/tmp"))  # unix sockets have short names
        self.addCleanup(shutil.rmtree, short, True)
        self.cluster = slurm_cluster.Cluster(short)
        self.cluster.environment.update(self.environment)
        self.addCleanup(self.cluster.stop)
        self.cluster.start()

    def submit(self):
        return subprocess.Popen([CLUSTER / "submit.sh", self.plan, "--pack", "0", "--wait"], env=self.cluster.environment, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def started_on(self, node, after=0):
        return next((e for e in self.events()[after:] if e[1] in ("started", "resumed") and e[4] == node), None)

    def test_a_plan_survives_a_node_that_goes_down_and_a_job_that_is_killed(self):
        begin = time.monotonic()
        array = self.submit()
        self.assertTrue(self.cluster.until(lambda: self.started_on("n2"), 40), self.cluster.logs())
        drilled = self.started_on("n2")
        self.cluster.call("scontrol", "update", "nodename=n2", "state=down", "reason=drill")
        self.assertTrue(self.cluster.until(lambda: not Path(f"/proc/{drilled[5]}").exists(), 20), "the shard of the node that is down lives")
        seen = len(self.events())
        self.assertTrue(self.cluster.until(lambda: self.started_on("n1", seen), 40), self.cluster.logs())
        killed = self.started_on("n1", seen)
        os.kill(int(killed[5]), signal.SIGKILL)
        self.cluster.call("scontrol", "update", "nodename=n2", "state=resume")
        _, err = array.communicate(timeout=300)
        self.assertEqual(array.returncode, 3, err + self.cluster.logs())  # the block of the killed job is missing
        self.assertEqual(len(self.shards()), self.blocks - 1)
        again = self.submit()  # what was published is not measured again
        _, err = again.communicate(timeout=200)
        self.assertEqual(again.returncode, 0, err + self.cluster.logs())
        print(f"12 blocks on two Slurm nodes, one down, one job killed: {time.monotonic() - begin:.0f} s{'' if REAL else ' (stand-in)'}")
        self.assert_whole({"n1", "n2"})
        done = subprocess.run([CLUSTER / "status", self.plan], capture_output=True, text=True)
        self.assertIn("12 of 12 blocks published, 0 at work, 0 failed, 0 waiting", done.stdout)
        self.assertEqual({e[4] for e in self.events() if e[1] == "published"}, {"n1", "n2"})


class Ssh(Grid):
    seeds = 1

    def test_a_login_that_is_dead_leaves_the_work_to_the_living_one(self):
        if not shutil.which("parallel"):
            self.skipTest("GNU parallel is missing")
        with open(self.folder / "hosts", "w") as hosts:
            hosts.write("127.0.0.2\n:\n")  # nobody answers there
        begin = time.monotonic()
        done = subprocess.run([CLUSTER / "submit.sh", self.plan, "--pack", "0", "--ssh", self.folder / "hosts"], capture_output=True, text=True, timeout=300,
                              env={**os.environ, **self.environment, "ATTN_NODE": "living"}, cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        print(f"4 blocks over ssh, one login dead: {time.monotonic() - begin:.0f} s{'' if REAL else ' (stand-in)'}")
        self.assert_whole({"living"})


if __name__ == "__main__":
    lacks = slurm_cluster.missing() or ("" if os.geteuid() == 0 else "root")
    if lacks:
        print(f"skipped: {lacks} is missing; scripts/setup.sh --cluster installs slurm-wlm, munge and parallel")
        sys.exit(77)
    unittest.main()
