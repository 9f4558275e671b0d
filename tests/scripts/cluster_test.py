"""attn_shard, status and submit.sh without a cluster: a block is published once, whole, and of one node. A stand-in measures."""
import csv
import os
import resource
import signal
import subprocess
import time
import unittest
from pathlib import Path

from testing import SCRIPTS, ScriptTest

CLUSTER = SCRIPTS / "cluster"
FAKE = Path(__file__).resolve().parent / "fake_node_sweep.py"
VARIANTS = "full,linear,nystrom"


class Cluster(ScriptTest):
    def setUp(self):
        super().setUp()
        self.plan = self.write_plan(3)
        self.run_folder = self.folder / "plan.run"

    def write_plan(self, blocks, name="plan.tsv", build="attnbench-0.1.0-gcc-12 commit abc123"):
        path = self.folder / name
        lines = ["# attnbench plan 1", f"# build {build}", f"# {blocks} blocks", "block\tseconds\tcells\tproblem\targuments"]
        path.write_text("\n".join(lines + [f"{b}\t2.0\t3\tq_len={128 * (b + 1)}\t--variants {VARIANTS} --n {128 * (b + 1)}" for b in range(blocks)]) + "\n")
        return path

    def environment(self, node, **more):
        return {**os.environ, "ATTN_NODE": node, "ATTN_LOCK_DIR": str(self.folder), **{key: str(value) for key, value in more.items()}}

    def start(self, index, node="n1", before=None, **more):
        return subprocess.Popen([CLUSTER / "attn_shard", "--plan", self.plan, "--index", str(index), "--sweep", FAKE], cwd=self.folder, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment(node, **more), preexec_fn=before)

    def shard(self, index, node="n1", code=0, **more):
        process = self.start(index, node, **more)
        out, err = process.communicate(timeout=120)
        self.assertNotIn("Traceback", err)
        self.assertEqual(process.returncode, code, out + err)
        return out + err

    def rows(self, block):
        with open(self.run_folder / f"shards/shard-{block:04d}.csv", newline="") as file:
            return list(csv.DictReader(file))

    def wait_for(self, what, seconds=60):
        end = time.monotonic() + seconds
        while not what():
            self.assertLess(time.monotonic(), end, "waited in vain")
            time.sleep(0.02)

    def first_row_of(self, block):
        files = list(self.run_folder.glob(f"attempts/shard-{block:04d}.*/shard-{block:04d}.csv"))
        return any(len(file.read_text().splitlines()) >= 2 for file in files)

    def status(self, code):
        done = subprocess.run([CLUSTER / "status", self.plan], capture_output=True, text=True)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout

    def test_a_plan_is_measured_by_two_nodes_and_merged(self):
        self.assertIn("0 of 3 blocks published, 0 at work, 0 failed, 3 waiting", self.status(3))
        self.shard("0-1", "n1")
        self.assertIn("2 of 3 blocks published", self.status(3))
        self.shard(2, "n2")
        said = self.status(0)
        self.assertIn("3 of 3 blocks published", said)
        self.assertEqual([[row["note"] for row in self.rows(b)] for b in range(3)], [["n1"] * 3, ["n1"] * 3, ["n2"] * 3])
        merge = said.splitlines()[-1].split()
        self.assertIn("9 rows of 3 shards and 2 nodes", self.run_script("merge.py", *merge[1:]).stdout)

    def test_a_published_block_is_not_measured_again(self):
        self.shard(0, "n1")
        self.assertIn("published already", self.shard(0, "n2"))
        self.assertEqual({row["note"] for row in self.rows(0)}, {"n1"})

    def test_a_stopped_block_goes_on_with_its_rows_on_its_node(self):
        gate = self.folder / "gate"
        gate.touch()
        process = self.start(0, "n1", FAKE_GATE=gate)
        self.wait_for(lambda: self.first_row_of(0))
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 143, err)
        self.assertIn("finished rows of block 0 are kept for this node", err)
        gate.unlink()
        self.shard(0, "n1")
        self.assertEqual(len(list(self.run_folder.glob("attempts/shard-0000.*"))), 1)
        self.assertEqual(len(self.rows(0)), 3)

    def test_another_node_begins_a_stopped_block_anew(self):
        gate = self.folder / "gate"
        gate.touch()
        process = self.start(0, "n1", FAKE_GATE=gate)
        self.wait_for(lambda: self.first_row_of(0))
        process.kill()
        process.communicate()
        self.shard(0, "n2")
        self.assertEqual({row["note"] for row in self.rows(0)}, {"n2"})
        self.assertEqual(len(self.rows(0)), 3)

    def test_of_two_complete_attempts_the_later_is_refused(self):
        gate = self.folder / "gate"
        gate.touch()
        zombie = self.start(0, "n1", FAKE_GATE=gate)
        self.wait_for(lambda: self.first_row_of(0))
        self.shard(0, "n2")
        gate.unlink()
        out, err = zombie.communicate(timeout=60)
        self.assertEqual((zombie.returncode, "refused: another attempt was complete first" in out), (0, True), out + err)
        self.assertEqual({row["note"] for row in self.rows(0)}, {"n2"})
        self.assertIn("1 late attempts refused", self.status(3))

    def test_an_orphan_of_the_same_block_is_ended_another_one_makes_the_node_busy(self):
        gate = self.folder / "gate"
        gate.touch()
        orphan = self.start(0, "n1", FAKE_GATE=gate)
        self.wait_for(lambda: self.first_row_of(0))
        self.assertIn("node n1 is busy", self.shard(1, "n1", code=2))
        gate.unlink()
        self.shard(0, "n1")
        orphan.communicate(timeout=60)
        self.assertEqual(len(self.rows(0)), 3)

    def test_under_slurm_any_orphan_on_the_node_is_ended(self):
        gate = self.folder / "gate"
        gate.touch()
        orphan = self.start(0, "n1", FAKE_GATE=gate)
        self.wait_for(lambda: self.first_row_of(0))
        self.shard(1, "n1", SLURM_JOB_ID=7)
        orphan.communicate(timeout=60)
        self.assertNotEqual(orphan.returncode, 0)

    def test_a_plan_of_another_build_is_refused_with_node_and_build(self):
        said = self.shard(0, "n1", code=2, FAKE_BUILD="attnbench-0.1.0-gcc-12 commit fff")
        self.assertIn("node n1: ", said)
        self.assertIn("commit fff, the plan", said)

    def test_a_sweep_that_refuses_is_a_failed_block_with_its_sentence(self):
        said = self.shard(0, "n1", code=1, FAKE_CODE=2)
        self.assertIn("node n1: attn_sweep ended with 2 on block 0", said)
        self.assertIn("as told", said)
        self.assertIn("block 0 failed: node n1: attn_sweep ended with 2", self.status(3))
        self.shard(0, "n1")
        self.assertIn("1 of 3 blocks published, 0 at work, 0 failed", self.status(3))

    def test_a_disk_that_takes_no_more_fails_the_block_with_node_and_file_and_costs_no_row(self):
        said = self.shard(0, "n1", code=1, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)))
        self.assertIn("node n1: ", said)
        self.assertIn("shard-0000", said)
        self.assertIn("0 of 3 blocks published, 0 at work, 1 failed", self.status(3))
        self.shard(0, "n1")
        self.assertEqual([row["variant"] for row in self.rows(0)], VARIANTS.split(","))

    def test_bad_input(self):
        self.assertIn("block 9 is not in", self.shard(9, code=2))
        self.assertIn("no block such as", self.shard("x", code=2))
        self.shard(0)
        self.plan = self.write_plan(4)
        self.assertIn("holds shards of another plan", self.shard(0, code=2))
        self.plan.write_text("# attnbench plan 1\n0\t1\n")
        self.assertIn("line 2 is no block", self.shard(0, code=2))
        self.plan.write_text("not a plan\n")
        self.assertIn("no plan", self.shard(0, code=2))
        for arguments, words in (([], "name a plan"), (["none.tsv"], "no plan"), (["--pack"], "needs a value"), (["--what"], "unknown option")):
            done = subprocess.run([CLUSTER / "submit.sh", *arguments], capture_output=True, text=True, cwd=self.folder)
            self.assertEqual(done.returncode, 2)
            self.assertIn(words, done.stderr)


if __name__ == "__main__":
    unittest.main()
