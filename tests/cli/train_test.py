"""attn_train as its users meet it: toy trainings whose outcome analysis tells, refusals, interruption, resumption."""
import csv
import json
import math
import os
import pathlib
import shlex
import signal
import subprocess
import tempfile
import unittest

TRAIN = os.environ["ATTN_TRAIN"]
SMALL = ["--width", "32", "--rate", "0.005", "--quiet"]
TINY = ["--width", "16", "--mlp", "16", "--batch", "4", "--steps", "10", "--test-samples", "32", "--quiet"]


def run(*arguments, **options):
    return subprocess.run([TRAIN, *arguments], capture_output=True, text=True, timeout=300, **options)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.out = str(self.folder / "a.train.csv")

    def train(self, *arguments):
        return run("--out", self.out, *arguments)

    def trained(self, *arguments):
        """{(variant, n): row}; the program ends well."""
        done = self.train(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return {(row["variant"], int(row["n"])): row for row in rows_of(self.out)}

    def level(self, row, name):
        return float(dict(part.split("=") for part in row["levels"].split(";"))[name])

    def refused(self, *arguments, say=()):
        done = self.train(*arguments)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(done.stdout, "")
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        for words in say:
            self.assertIn(words, done.stderr)
        self.assertFalse(os.path.exists(self.out))


class WhatAnalysisTells(Case):
    def test_packed_recall_is_solved_by_full_attention_and_guessed_by_a_random_synthesizer(self):
        # The Synthesizer's weights do not see the tokens: it can only name some value of this context, one of four.
        rows = self.trained("--task", "mqar:kv=4,vocabulary=32", "--variants", "full,synth_random:cached=no", "--n", "32",
                            "--steps", "400", *SMALL)
        full, blind = rows["full", 32], rows["synth_random", 32]
        self.assertGreaterEqual(float(full["accuracy"]), 0.97)
        self.assertLessEqual(float(blind["accuracy"]), 0.25 + 0.03)
        self.assertGreaterEqual(float(blind["accuracy"]), 0.25 - 0.08)
        self.assertEqual(float(full["floor"]), 0.25)
        self.assertLess(int(full["steps_to_99"]), 400)
        self.assertEqual((full["verdict"], blind["steps_to_99"]), ("ok", ""))
        self.assertEqual(int(full["state_bytes"]), 2 * 32 * 32 * 4)
        self.assertGreater(int(full["peak_memory_bytes"]), 0)

    def test_a_window_recalls_what_lies_inside_it(self):
        rows = self.trained("--task", "mqar:kv=4,vocabulary=32", "--variants", "local:left=8,right=8", "--n", "32",
                            "--steps", "600", *SMALL)
        row = rows["local", 32]
        ceiling = self.level(row, "window_8")
        self.assertLess(0.5, ceiling)
        self.assertLess(ceiling, 0.8)
        self.assertLessEqual(float(row["accuracy"]), ceiling + 0.03)
        self.assertGreaterEqual(float(row["accuracy"]), ceiling - 0.08)

    def test_a_marker_is_out_of_a_window_s_reach_and_within_that_of_global_tokens(self):
        rows = self.trained("--task", "marker", "--variants", "local:left=4,right=4,longformer:window=4,tokens=1", "--n", "48",
                            "--steps", "300", *SMALL)
        chance, samples = 0.1, 2048
        self.assertLessEqual(float(rows["local", 48]["accuracy"]), chance + 3 * math.sqrt(chance * (1 - chance) / samples) + 0.01)
        self.assertGreaterEqual(float(rows["full", 48]["accuracy"]), 0.99)
        self.assertGreaterEqual(float(rows["longformer", 48]["accuracy"]), 0.95)

    def test_a_point_whose_control_fails_is_inconclusive(self):
        rows = self.trained("--task", "mqar:kv=4,vocabulary=32", "--variants", "linear", "--n", "32", "--steps", "5",
                            "--width", "32", "--quiet")
        self.assertEqual({row["verdict"] for row in rows.values()}, {"inconclusive"})
        self.assertIn("below the bar of 0.97", rows["linear", 32]["reason"])


class Rows(Case):
    def test_figures_do_not_depend_on_how_many_runs_go_at_once(self):
        arguments = ["--task", "mqar:kv=2", "--variants", "linear,reformer:chunk=4", "--n", "16", "--seed", "1,2", *TINY]
        timing = {"train_s", "train_steps_per_s", "peak_memory_bytes", "finished"}
        found = []
        for jobs in ("1", "4"):
            out = str(self.folder / f"{jobs}.csv")
            done = run("--out", out, "--jobs", jobs, *arguments)
            self.assertEqual(done.returncode, 0, done.stderr)
            found.append(sorted(json.dumps({k: v for k, v in row.items() if k not in timing}) for row in rows_of(out)))
        self.assertEqual(len(found[0]), 6)
        self.assertEqual(found[0], found[1])

    def test_a_variant_that_cannot_run_the_task_is_a_row_with_the_reason(self):
        rows = self.trained("--task", "mqar:kv=2", "--variants", "fnet", "--n", "16", "--causal", "yes", *TINY)
        row = rows["fnet", 16]
        self.assertEqual((row["verdict"], row["accuracy"], row["steps"]), ("refused", "", ""))
        self.assertIn("has no causal form", row["reason"])

    def test_a_sequence_is_answered_by_a_recurrent_model_that_the_variant_joins_or_none(self):
        rows = self.trained("--task", "reverse:alphabet=4", "--variants", "additive:size=8,gru,fnet", "--n", "6", "--width", "32",
                            "--rate", "0.01", "--steps", "200", "--test-samples", "200", "--quiet")
        self.assertEqual({row["body"] for row in rows.values()}, {"recurrent"})
        self.assertGreaterEqual(float(rows["full", 6]["accuracy"]), 0.95)
        self.assertLess(int(rows["gru", 6]["parameters"]), int(rows["full", 6]["parameters"]))
        self.assertEqual((rows["fnet", 6]["verdict"], rows["additive", 6]["chrf"]), ("refused", ""))
        self.assertIn("has no cross form", rows["fnet", 6]["reason"])

    def test_a_translation_is_tested_on_all_pairs_that_are_held_out_and_scored_by_characters(self):
        pairs = self.folder / "pairs.tsv"
        pairs.write_text("".join(f"{a}{b}\t{b}{a}\n" for a in "abcdef" for b in "ghijk"))
        row = self.trained("--task", f"translate:{pairs}", "--variants", "full", "--n", "4", "--width", "32", "--rate", "0.01",
                           "--steps", "200", "--quiet")["full", 4]
        self.assertEqual(int(row["test_samples"]), 6)
        self.assertGreaterEqual(float(row["chrf"]), 0.3)
        self.assertEqual(self.level(row, "copied"), 0)
        again = self.train("--task", f"translate:{self.folder}/none.tsv", "--n", "4", "--out", str(self.folder / "b.csv"), *TINY)
        self.assertEqual(again.returncode, 5, again.stderr)
        self.assertIn("none.tsv", rows_of(self.folder / "b.csv")[0]["reason"])

    def test_a_size_that_no_sequence_fits_is_a_row_with_the_reason(self):
        done = self.train("--task", "glyphs", "--variants", "linear", "--n", "500", *TINY)
        self.assertEqual(done.returncode, 5, done.stderr)
        for row in rows_of(self.out):
            self.assertEqual(row["verdict"], "refused")
            self.assertIn("square of a side", row["reason"])

    def test_a_loss_that_is_no_number_ends_the_run_as_diverged_with_the_step(self):
        done = self.train("--task", "mqar:kv=2", "--variants", "full", "--n", "16", *TINY, "--rate", "1e30")
        (row,) = rows_of(self.out)
        self.assertEqual(row["verdict"], "diverged")
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"at step {row['steps']}", row["reason"])
        self.assertEqual(row["accuracy"], "")

    def test_a_context_stands_beside_the_csv_and_a_row_s_command_repeats_it(self):
        row = self.trained("--task", "mqar:kv=2", "--variants", "full", "--n", "16", *TINY)["full", 16]
        context = json.loads((self.folder / "a.train.context.json").read_text())
        self.assertIn("cpu", context["machine"])
        command = row["command"].split()
        self.assertEqual(command[0], "attn_train")
        other = str(self.folder / "again.csv")
        self.assertEqual(run(*command[1:], "--quiet", "--out", other).returncode, 0)
        (again,) = rows_of(other)
        self.assertEqual((row["accuracy"], row["loss"]), (again["accuracy"], again["loss"]))

    def test_the_columns_are_golden_head_the_csv_and_stand_in_the_context(self):
        self.trained("--task", "mqar:kv=2", "--variants", "full", "--n", "16", *TINY)
        header = pathlib.Path(self.out).read_text().splitlines()[0].split(",")
        context = json.loads((self.folder / "a.train.context.json").read_text())
        self.assertEqual(context["csv_schema"], 2)
        self.assertEqual([column["name"] for column in context["columns"]], header)
        self.assertEqual([line.split()[0] for line in run("--columns").stdout.splitlines()], header)
        golden = pathlib.Path(__file__).resolve().parents[1] / "golden" / "train_columns.json"
        text = "[\n" + ",\n".join("  " + json.dumps(column) for column in context["columns"]) + "\n]\n"
        if os.environ.get("ATTN_APPROVE"):
            golden.write_text(text)
        self.assertEqual(text, golden.read_text(), "ATTN_APPROVE=1 accepts the new columns")

    def test_the_columns_that_the_reports_read_are_there(self):
        names = [line.split()[0] for line in run("--columns").stdout.splitlines()]
        self.assertEqual(len(names), len(set(names)))
        for name in ("task", "n", "variant", "accuracy", "accuracy_ci_low", "accuracy_ci_high", "floor", "skill", "verdict",
                     "steps_to_99", "train_steps_per_s", "peak_memory_bytes", "state_bytes", "parameters"):
            self.assertIn(name, names)


class Interruption(Case):
    LONG = ["--task", "mqar:kv=2", "--variants", "linear", "--n", "16", "--jobs", "1", *TINY]

    def test_ctrl_c_keeps_finished_runs_and_resume_goes_on_to_the_same_rows(self):
        whole = str(self.folder / "whole.csv")
        seeds = ["--seed", "1..40"]
        arguments = [TRAIN, *self.LONG[:-1], *seeds]  # with progress, which says when to interrupt
        process = subprocess.Popen([*arguments, "--out", self.out], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for line in process.stderr:
            if line.startswith("[3/"):
                break
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        command = words.partition("finished rows are kept, this goes on: ")[2].strip()
        self.assertEqual(command, shlex.join([TRAIN, "--out", self.out, "--resume"]))
        kept = rows_of(self.out)
        self.assertTrue(3 <= len(kept) < 80, len(kept))
        done = subprocess.run(command + " --quiet", shell=True, capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.splitlines()[-2:],
                         [f"{80 - len(kept)} new, {len(kept)} from before", f"80 rows in {self.out}"])
        self.assertEqual(run(*self.LONG, *seeds, "--out", whole).returncode, 0)
        key = lambda row: (row["variant"], int(row["seed"]), row["accuracy"], row["loss"])
        self.assertEqual(sorted(map(key, rows_of(self.out))), sorted(map(key, rows_of(whole))))

    def test_a_resumed_training_tells_of_all_its_rows(self):
        self.trained(*self.LONG, "--seed", "1")
        done = self.train(*self.LONG[:-1], "--seed", "1..3", "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("linear")]
        rows = [row for row in rows_of(self.out) if row["variant"] == "linear"]
        self.assertEqual(len(rows), 3)
        mean = sum(float(row["accuracy"]) for row in rows) / 3
        self.assertIn(f"{mean:.4f}", line)
        self.assertIn("4 new, 2 from before", done.stdout.splitlines())

    def test_closed_and_full_streams_do_not_end_the_training(self):
        for streams in (">&- 2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"):
            command = f"exec {TRAIN} {' '.join(self.LONG[:-1])} --out {self.out} --force {streams}"
            self.assertEqual(subprocess.run(["sh", "-c", command], timeout=300).returncode, 0, streams)
            self.assertEqual(len(rows_of(self.out)), 2, streams)

    def test_a_list_that_nobody_could_read_says_so_in_the_exit_code(self):
        for what in ("--help", "--list", "--columns", "--version", "--dry-run"):
            with open("/dev/full", "w") as full:
                self.assertEqual(subprocess.run([TRAIN, what], stdout=full, timeout=60).returncode, 6, what)

    def test_a_torn_last_line_is_repaired(self):
        self.trained(*self.LONG)
        text = pathlib.Path(self.out).read_text()
        pathlib.Path(self.out).write_text(text[:-40])
        self.assertEqual(self.train(*self.LONG, "--resume").returncode, 0)
        self.assertEqual(len(rows_of(self.out)), 2)


class BadInput(Case):
    def test_unknown_names_are_refused_with_the_nearest(self):
        self.refused("--task", "mqr", say=["did you mean 'mqar'?"])
        self.refused("--task", "mqar:kw=3", say=["did you mean 'kv'?"])
        self.refused("--variants", "linaer", say=["did you mean 'linear'?"])
        self.refused("--taks", "mqar", say=["did you mean --task?"])

    def test_values_out_of_range_are_refused(self):
        self.refused("--n", "0", say=["--n", "0 is outside 1.."])
        self.refused("--rate", "fast", say=["'fast' is not a number; accepted: table, sweep, or a list"])
        self.refused("--rate", "-1", say=["-1 is not above 0"])
        self.refused("--width", "x", say=["--width: 'x' is not a whole number"])
        self.refused("--heads", "0", say=["--heads: 0 is outside 1..256"])
        self.refused("--body", "lstm", say=["'lstm' is not one of layers, recurrent"])
        self.refused("--samples", "-5", say=["--samples"])
        self.refused("--task", "translate", say=["names no file; accepted: FILE.tsv|FILE.mo"])
        self.refused("--positions", "rope", say=["none, sinusoidal, learned, rotary, alibi"])
        self.refused("--causal", "both", say=["'both' is not one of no, yes"])
        self.refused("--memory-limit", "much", say=["'much' is not a size"])
        self.refused("--timeout", "nan", say=["--timeout", "'nan'", "from 0.001 to 1e+07"])
        self.refused("--timeout", "0", say=["--timeout", "'0'"])
        self.refused("--resume", "--force", say=["exclude each other"])

    def test_an_existing_file_is_not_overwritten(self):
        pathlib.Path(self.out).write_text("mine\n")
        done = self.train("--task", "mqar:kv=2", "--n", "16", *TINY)
        self.assertEqual(done.returncode, 2)
        self.assertIn("--resume goes on with it, --force replaces it", done.stderr)
        self.assertEqual(pathlib.Path(self.out).read_text(), "mine\n")

    def test_a_run_that_takes_too_long_is_a_row(self):
        done = self.train("--task", "mqar", "--variants", "full", "--n", "256", "--timeout", "0.3", "--quiet")
        self.assertEqual(done.returncode, 5, done.stderr)
        (row,) = rows_of(self.out)
        self.assertEqual(row["verdict"], "timed_out")

    def test_a_dry_run_says_what_would_be_trained(self):
        done = run("--dry-run", "--task", "mqar:kv=4", "--n", "16,32", "--variants", "linear", "--seed", "1,2")
        self.assertEqual(done.returncode, 0)
        self.assertIn("8 runs", done.stdout)

    def test_an_id_of_before_is_taken_and_its_name_of_today_said(self):
        done = run("--dry-run", "--task", "mqar:kv=4", "--n", "16", "--variants", "full_unfused")
        self.assertEqual((done.returncode, done.stderr), (0, "attn_train: full_unfused is now called full@unfused\n"))
        self.assertIn("full@unfused", done.stdout)

    def test_a_task_or_a_rate_that_is_given_twice_is_trained_once(self):
        done = run("--dry-run", *2 * ["--task", "mqar:kv=4"], "--n", "16", "--variants", "linear", "--rate", "0.1,0.1")
        self.assertEqual(done.returncode, 0)
        self.assertIn("2 runs", done.stdout)


if __name__ == "__main__":
    unittest.main()
