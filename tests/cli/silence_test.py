"""Nothing that a user says is ignored in silence: each case has its sentence."""
import os
import re
import subprocess
import unittest

import numpy

from sweep_case import Case, run

APPLY, TRAIN, MEAN_V = os.environ["ATTN_APPLY"], os.environ["ATTN_TRAIN"], os.environ["ATTN_TREES_MEAN_V"]


def call(program, *arguments, **variables):
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120, env={**os.environ, **variables})


class Overridden(Case):
    def test_axes_that_an_input_of_tensors_decides(self):
        file = self.folder / "x.npy"
        numpy.save(file, numpy.ones((2, 48, 8), numpy.float32))
        name = f"npy:{file},{file},{file}"
        done = run("--dry-run", "--variants", "copy_v", "--n", "32", "--heads", "4", "--head-dim", "64", "--input", name)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr.splitlines(),
                         [f"attn_sweep: --heads 4 changes nothing: input {name} has 2, which is measured",
                          f"attn_sweep: --head-dim 64 changes nothing: input {name} has 8, which is measured"])

    def test_more_threads_than_processors(self):
        done = self.sweep("--variants", "copy_v", "--n", "64", "--threads", "128", "--machine-root", "/")
        self.assertRegex(done.stderr, r"attn_sweep: 128 threads share \d+ allowed processors?: their times are those of fewer")
        file = self.folder / "x.npy"
        numpy.save(file, numpy.ones((2, 48, 8), numpy.float32))
        done = call(APPLY, "--variant", "copy_v", "--q", file, "--k", file, "--v", file, "--out", self.folder / "o.npy", "--threads", "128")
        self.assertRegex(done.stderr, r"attn_apply: 128 threads share \d+ allowed processors?")
        done = call(TRAIN, "--task", "mqar:kv=2", "--n", "16", "--variants", "linear", "--width", "16", "--mlp", "16", "--batch", "4", "--steps", "2",
                    "--test-samples", "8", "--jobs", "128", "--out", self.folder / "a.train.csv")
        self.assertRegex(done.stderr, r"attn_train: --jobs: 128 threads share \d+ allowed processors?")


class Variables(Case):
    def test_one_that_no_flag_has_is_named_with_the_nearest(self):
        done = call(os.environ["ATTN_SWEEP"], "--dry-run", "--variants", "copy_v", "--n", "64", ATTN_HEAD_DIMS="32")
        self.assertEqual(done.stderr, "attn_sweep: ATTN_HEAD_DIMS is set and no flag has it, did you mean ATTN_HEAD_DIM? It changes nothing\n")

    def test_flags_of_each_program_are_known_to_the_others(self):
        for program in (os.environ["ATTN_SWEEP"], TRAIN):
            flags = re.findall(r"^ +(?:-\w,)?--([a-z][a-z-]*)", call(program, "--help").stdout, re.M)
            self.assertGreater(len(flags), 20)
            variables = {"ATTN_" + flag.upper().replace("-", "_"): "" for flag in flags if flag != "help"}
            for other in (os.environ["ATTN_SWEEP"], TRAIN):
                self.assertEqual(call(other, "--version", **variables).stderr, "")


class Configs(Case):
    def config(self, text):
        path = self.folder / "c.toml"
        path.write_text(text)
        return run("--dry-run", "--variants", "copy_v", "--n", "64", "--config", str(path))

    def test_a_key_that_is_no_flag_names_the_nearest(self):
        done = self.config("head_dims = 32\n")
        self.assertEqual(done.returncode, 2)
        self.assertIn("config key 'head_dims' of", done.stderr)
        self.assertIn("is no flag, did you mean 'head-dim'?", done.stderr)

    def test_underscores_are_dashes(self):
        self.assertIn("head_dim=32", self.config("head_dim = 32\n").stdout)
        self.assertIn("head_dim=32", self.config("head-dim = 32\n").stdout)
        self.assertIn("head_dim=32", run("--dry-run", "--variants", "copy_v", "--n", "64", "--head_dim", "32").stdout)

    def test_a_truth_value_is_yes_or_no(self):
        self.assertIn("causal=1", self.config("causal = true\n").stdout)


class Causal(Case):
    def test_it_means_the_same_in_all_programs(self):
        file = self.folder / "x.npy"
        numpy.save(file, numpy.random.default_rng(1).normal(size=(1, 6, 8)).astype(numpy.float32))

        def applied(*arguments):
            done = call(APPLY, "--variant", "full", "--q", file, "--k", file, "--v", file, "--out", self.folder / "o.npy", "--force", *arguments)
            self.assertEqual(done.returncode, 0, done.stderr)
            return numpy.load(self.folder / "o.npy")

        for words, causal in (((), 0), (("--causal",), 1), (("--causal", "yes"), 1), (("--causal=1",), 1), (("--causal", "no"), 0)):
            swept = run("--dry-run", "--variants", "copy_v", "--n", "64", *words).stdout
            self.assertEqual("causal=1" in swept, bool(causal), words)
            first_row_is_v = numpy.allclose(applied(*words)[0, 0, 0], numpy.load(file)[0, 0], atol=1e-6)
            self.assertEqual(first_row_is_v, bool(causal), words)
            self.assertEqual(call(TRAIN, "--dry-run", "--task", "mqar:kv=2", "--n", "16", "--variants", "linear", *words).returncode, 0)
        for program, words in ((APPLY, ("--q", file, "--k", file, "--v", file)), (TRAIN, ("--task", "mqar:kv=2", "--n", "16"))):
            done = call(program, *words, "--causal", "maybe")
            self.assertEqual(done.returncode, 2)
            self.assertIn("--causal: 'maybe' is not one of no, yes", done.stderr)


class Plugins(Case):
    def test_an_id_that_the_tree_has_too(self):
        cell = ["--plugin", MEAN_V, "--variants", "mean_v", "--n", "64"]
        self.refused(*cell, say=("brings variant 'mean_v', which exists already: rename its file, or --prefer plugin takes it instead",))
        self.refused(*cell, "--prefer", "tree", say=("plugin",))
        done = self.sweep(*cell, "--prefer", "plugin")
        self.assertEqual(done.returncode, 0, done.stderr)
        import csv
        with open(self.out, newline="") as file:
            (row,) = csv.DictReader(file)
        self.assertEqual((row["variant"], row["family"], row["status"]), ("mean_v", "test", "ok"))
        self.assertIn("--prefer plugin", row["command"])

    def test_two_plugins_of_one_id(self):
        self.refused("--plugin", MEAN_V, "--plugin", MEAN_V, "--prefer", "plugin", "--n", "64", say=("which exists already",))


if __name__ == "__main__":
    unittest.main()
