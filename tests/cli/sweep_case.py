"""What the tests of attn_sweep share."""
import csv
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

SWEEP = os.environ["ATTN_SWEEP"]
FAULTY = os.environ["ATTN_FAULTY"]
ROOT = pathlib.Path(__file__).resolve().parents[2]
# No machine to read: what disturbs a cell has tests of its own (noise_test.py).
QUICK = ["--samples", "2", "--rounds", "1", "--sample-time", "0.001", "--heads", "2", "--machine-root", "/none"]


def run(*arguments, **options):
    return subprocess.run([SWEEP, *arguments], capture_output=True, text=True, timeout=300, **options)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def as_lines(columns):
    """JSON that a diff shows column by column."""
    return "[\n" + ",\n".join("  " + json.dumps(column) for column in columns) + "\n]\n"


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.out = str(self.folder / "a.csv")

    def sweep(self, *arguments):
        return run(*QUICK, "--out", self.out, *arguments)

    def refused(self, *arguments, say=()):
        """Exit 2, one sentence on stderr, nothing on stdout, no file."""
        done = run("--out", self.out, *arguments)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(done.stdout, "")
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        for words in say:
            self.assertIn(words, done.stderr)
        self.assertFalse(os.path.exists(self.out))
        return done.stderr
