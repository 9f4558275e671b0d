"""attn_sweep --plan: a grid as lines, one a block, that other machines measure; and folders of captures, of which each file is an input."""
import os
import pathlib
import re
import shlex
import subprocess
import unittest

import numpy as np

from sweep_case import Case, QUICK, SWEEP, rows_of, run

GRID = ["--variants", "full,local:left=8,right=8,linear", "--n", "32,48", "--causal", "both", "--heads", "2", "--head-dim", "16", "--input", "iid:1"]


def blocks_of(path):
    lines = path.read_text().splitlines()
    return lines[:4], [line.split("\t") for line in lines[4:]]


class Plan(Case):
    def plan(self, *arguments):
        path = self.folder / "plan.tsv"
        done = run(*QUICK, *arguments, "--plan", str(path))
        self.assertEqual(done.returncode, 0, done.stderr)
        return (*blocks_of(path), done.stdout)

    def test_a_line_is_all_variants_of_one_problem(self):
        head, blocks, said = self.plan(*GRID)
        self.assertEqual(said, f"4 blocks in {self.folder}/plan.tsv\n")
        self.assertEqual(head[0], "# attnbench plan 1")
        self.assertEqual(head[1], "# build " + run("--version").stdout.splitlines()[0])
        self.assertTrue(head[2].startswith("# 4 blocks, 12 cells, about "), head[2])
        self.assertEqual(head[3].split("\t"), ["block", "seconds", "cells", "problem", "arguments"])
        self.assertEqual([(b[0], b[2]) for b in blocks], [(str(i), "3") for i in range(4)])
        self.assertTrue(all(float(b[1]) > 0 for b in blocks))

    def test_the_lines_measure_what_the_sweep_would(self):
        _, blocks, _ = self.plan(*GRID)
        planned = [run(*shlex.split(block[4]), "--dry-run").stdout for block in blocks]
        whole = run(*QUICK, *GRID, "--dry-run").stdout
        cells = lambda text: [line for line in text.splitlines() if not re.match(r"\d+ cells?, about ", line)]  # noqa: E731
        self.assertEqual([line for text in planned for line in cells(text)], cells(whole))

    def test_threads_and_instruction_set_are_the_node_s_unless_they_are_asked_for(self):
        _, blocks, _ = self.plan(*GRID)
        self.assertFalse(any(flag in block[4] for block in blocks for flag in ("--threads", "--isa")))
        _, blocks, _ = self.plan(*GRID, "--threads", "1", "--isa", "scalar")
        self.assertTrue(all("--threads 1" in block[4] and "--isa scalar" in block[4] for block in blocks))

    def test_settings_are_part_of_a_line(self):
        _, blocks, _ = self.plan(*GRID, "--timeout", "7", "--fidelity", "none", "--against", "full", "--memory-limit", "2G")
        for flag in ("--samples 2", "--rounds 1", "--timeout 7", "--fidelity none", "--against full", "--memory-limit 2G", "--machine-root /none"):
            self.assertIn(flag, blocks[0][4])

    def test_a_line_can_be_run(self):
        _, blocks, _ = self.plan(*GRID)
        done = run(*shlex.split(blocks[3][4]), "-q", "--out", self.out)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual({(row["q_len"], row["causal"]) for row in rows_of(self.out)}, {("48", "1")})

    def test_a_node_without_the_plan_s_instruction_set_says_so_and_publishes_nothing(self):
        head, blocks, _ = self.plan(*GRID, "--isa", "scalar")
        lacking = "neon" if os.uname().machine == "x86_64" else "avx512"
        plan = self.folder / "plan.tsv"
        plan.write_text(plan.read_text().replace("--isa scalar", f"--isa {lacking}"))
        shard = pathlib.Path(__file__).resolve().parents[2] / "scripts/cluster/attn_shard"
        done = subprocess.run([shard, "--plan", plan, "--index", "0", "--sweep", SWEEP, "--anchor", ""], capture_output=True, text=True,
                              env={**os.environ, "ATTN_NODE": "n7", "ATTN_LOCK_DIR": str(self.folder)})
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, rf"node n7: attn_sweep ended with 2 on block 0, '.*shard-0000.csv': .*'{lacking}' is not available; "
                                      "this machine and build have ")
        self.assertEqual(list((self.folder / "plan.run/shards").iterdir()), [])

    def test_a_plan_that_cannot_be_written_is_said(self):
        done = run(*QUICK, *GRID, "--plan", "/none/plan.tsv")
        self.assertEqual((done.returncode, done.stderr.count("\n")), (6, 1))
        self.assertIn("--plan", done.stderr)


class Trainings(Case):
    def test_a_line_is_one_point_and_seed_with_its_control(self):
        train = os.environ.get("ATTN_TRAIN", "")
        if not os.path.isfile(train):
            self.skipTest("no attn_train")
        call = [train, "--task", "mqar:kv=4", "--n", "32,64", "--variants", "linear,mean_v", "--seed", "1..2", "--rate", "0.001,0.003", "--steps", "20"]
        path = self.folder / "plan.tsv"
        done = subprocess.run([*call, "--plan", str(path)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = path.read_text().splitlines()
        self.assertEqual(lines[:2], ["# attnbench plan 1", "# program attn_train"])
        blocks = [line.split("\t") for line in lines if line[0].isdigit()]
        self.assertEqual([block[2] for block in blocks], ["6"] * 4)
        runs = lambda words: [line for line in subprocess.run([*words, "--dry-run"], capture_output=True, text=True).stdout.splitlines()  # noqa: E731
                              if not line.endswith(" runs")]
        planned = [line for block in blocks for line in runs([train, *shlex.split(block[4])])]
        self.assertEqual(sorted(planned), sorted(runs(call)))


class Folder(Case):
    def captures(self, **shapes):
        folder = self.folder / "captured"
        folder.mkdir()
        rng = np.random.Generator(np.random.Philox(3))
        for name, (heads, n, dim, causal) in shapes.items():
            q, k, v = (rng.standard_normal((1, heads, n, dim)).astype(np.float32) for _ in range(3))
            np.savez(folder / f"{name}.npz", q=q, k=k, v=v, causal=np.array([causal], np.float32), layer=np.array(name))
        return folder

    def test_each_file_is_an_input_of_its_own_shape(self):
        folder = self.captures(layer0=(2, 40, 16, 0), layer1=(2, 40, 16, 1), layer2=(1, 24, 8, 0))
        done = self.sweep("--input", f"npz:{folder}/", "--variants", "full,local")
        self.assertEqual(done.returncode, 0, done.stderr)
        told = {(row["input"], row["q_len"], row["heads"], row["head_dim"], row["causal"]) for row in rows_of(self.out)}
        self.assertEqual(told, {(f"npz:{folder}/layer0.npz", "40", "2", "16", "0"), (f"npz:{folder}/layer1.npz", "40", "2", "16", "1"),
                                (f"npz:{folder}/layer2.npz", "24", "1", "8", "0")})

    def test_a_row_of_a_layer_is_repeated_by_its_command(self):
        folder = self.captures(layer0=(2, 40, 16, 1))
        self.sweep("--input", f"npz:{folder}", "--variants", "full")
        command = shlex.split(rows_of(self.out)[0]["command"])
        done = run(*command[1:], "--machine-root", "/none", "-q", "--out", str(self.folder / "again.csv"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(rows_of(self.folder / "again.csv")[0]["causal"], "1")

    def test_a_folder_without_captures_and_a_file_that_is_none_are_refused(self):
        folder = self.captures()
        self.refused("--input", f"npz:{folder}", say=("has no .npz file",))
        (folder / "layer0.npz").write_text("no archive")
        self.refused("--input", f"npz:{folder}", say=("layer0.npz",))


if __name__ == "__main__":
    unittest.main()
