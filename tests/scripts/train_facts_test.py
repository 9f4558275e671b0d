"""train_facts.py: what holds, fails, was not run and could not be judged is told apart."""
import csv
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "train_facts.py"
BASE = {"task": "mqar:kv=8", "n": "64", "width": "64", "variant": "full", "options": "", "rate": "0.003", "seed": "1", "verdict": "ok",
        "accuracy": "1", "train_accuracy": "1", "floor": "0.125", "levels": "some_value=0.1250;window_16=0.6400"}


class Facts(unittest.TestCase):
    def judge(self, sentence, *rows):
        """(exit code, the verdicts on all facts that begin with the sentence)"""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.train.csv"
            with open(path, "w", newline="") as file:
                writer = csv.DictWriter(file, list(BASE))
                writer.writeheader()
                writer.writerows({**BASE, **row} for row in rows)
            done = subprocess.run([sys.executable, SCRIPT, path], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.stderr, "")
        return done.returncode, {line[:13].strip() for line in done.stdout.splitlines() if line[13:].startswith(sentence)}

    def test_what_has_no_rows_was_not_run(self):
        self.assertEqual(self.judge(""), (0, {"not run"}))

    def test_accuracies_are_means_over_seeds_each_at_its_rate_that_learned_best(self):
        solved = "recall, N=64, 8 pairs: full and linear solve it"
        linear, other = {"variant": "linear"}, {"rate": "0.1", "accuracy": "0.2", "train_accuracy": "0.2"}
        good = [{}, {**linear, **other}, {**linear, "accuracy": "0.99"}]
        self.assertEqual(self.judge(solved, *good, {**linear, "seed": "2", "accuracy": "0.97"}, {**linear, **other, "seed": "2"}),
                         (0, {"holds"}))
        self.assertEqual(self.judge(solved, *good, {**linear, "seed": "2", "accuracy": "0.5"}), (1, {"FAILS"}))
        self.assertEqual(self.judge(solved, *good, {**linear, **other, "seed": "2"}), (1, {"FAILS"}))

    def test_a_window_is_judged_by_its_own_ceiling(self):
        fact = "recall, N=64, 8 pairs: a window of 16 reaches its ceiling"
        window = {"variant": "local", "options": "left=16,right=16,sinks=0"}
        for accuracy, verdict in (("0.59", "holds"), ("0.5", "FAILS"), ("0.7", "FAILS")):
            self.assertEqual(self.judge(fact, {**window, "accuracy": accuracy})[1], {verdict})

    def test_a_point_whose_control_failed_is_no_failure(self):
        row = {"task": "induction", "n": "30", "width": "32", "accuracy": "0.5", "verdict": "inconclusive"}
        self.assertEqual(self.judge("induction, N=30: full solves it", row), (0, {"inconclusive"}))

    def test_of_the_reference_only_what_its_page_says_fails(self):
        reference = ROOT / "results" / "reference"
        done = subprocess.run([sys.executable, SCRIPT, reference / "train.csv", reference / "default-sweep.csv",
                               reference / "clustered.csv"], capture_output=True, text=True, timeout=60)
        failed = [line for line in done.stdout.splitlines() if line.startswith("FAILS")]
        (page,) = reference.glob("notes/*-task-accuracy.md")
        page = page.read_text()
        page = page[:page.index("## Accuracy against")]
        missed = [line for line in page.splitlines() if "**missed**" in line]
        self.assertEqual(len(failed), len(missed), done.stdout)
        for fact, said in zip(failed, missed):
            for word in ("Linformer with k=16", "every learner"):
                self.assertEqual(word in fact, word in said)


if __name__ == "__main__":
    unittest.main()
