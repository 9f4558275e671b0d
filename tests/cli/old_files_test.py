"""Files of earlier releases (tests/golden/old) are read, or refused with a sentence; they are never changed by that."""
import csv
import os
import pathlib
import shutil
import subprocess
import sys
import unittest

import numpy

from sweep_case import QUICK, ROOT, Case

APPLY = os.environ["ATTN_APPLY"]
SWEEP = os.environ["ATTN_SWEEP"]
OLD = ROOT / "tests/golden/old"


class OldFiles(Case):
    def copy(self, name):
        path = self.folder / name
        shutil.copy(OLD / name, path)
        if (context := OLD / name.replace(".csv", ".context.json")).exists():
            shutil.copy(context, self.folder / context.name)
        return path

    def one_sentence(self, said):
        self.assertEqual(said.count("\n"), 1, said)
        self.assertNotIn("Traceback", said)

    def test_a_sweep_goes_on_with_an_old_file_or_says_why_it_cannot(self):
        files = sorted(OLD.glob("sweep-*.csv"))
        self.assertGreaterEqual(len(files), 2)
        for file in files:
            path = self.copy(file.name)
            with open(path, newline="") as opened:
                rows = list(csv.DictReader(opened))
            done = subprocess.run([SWEEP, *QUICK, "--variants", "copy_v", "--n", "32", "--out", str(path), "--resume"], capture_output=True, text=True,
                                  timeout=300)
            if done.returncode == 2:
                self.one_sentence(done.stderr)
                self.assertIn("columns", done.stderr)
                self.assertEqual(path.read_bytes(), file.read_bytes())
            else:
                self.assertEqual(done.returncode, 0, done.stderr)
                with open(path, newline="") as opened:
                    after = list(csv.DictReader(opened))
                self.assertEqual(after[:len(rows)], rows)
                self.assertEqual(len(after), len(rows) + 1)

    def test_reports_and_comparisons_read_every_old_file(self):
        for name in sorted(path.name for path in OLD.glob("sweep-*.csv")):
            path = self.copy(name)
            for script, *more in (("report.py", "-o", self.folder / "a.html"), ("compare.py", path), ("crossover.py",)):
                done = subprocess.run([sys.executable, "-B", ROOT / "scripts" / script, path, *more], capture_output=True, text=True)
                self.assertNotIn("Traceback", done.stderr)
                self.assertIn(done.returncode, (0, 4, 5), (script, name, done.stderr))

    def test_a_state_goes_on_to_what_it_went_on_to_then_or_is_refused_with_its_build(self):
        states = sorted(OLD.glob("state-*.npz"))
        self.assertGreaterEqual(len(states), 2)
        for file in states:
            state = self.copy(file.name)
            with numpy.load(OLD / file.name.replace("state-", "next-")) as then:
                arguments, expected = str(then["arguments"]).split(), then["out"]
                for name in "qkv":
                    numpy.save(self.folder / f"{name}.npy", then[name])
            out = self.folder / "out.npy"
            done = subprocess.run([APPLY, *arguments, *(part for n in "qkv" for part in (f"--{n}", str(self.folder / f"{n}.npy"))), "--state", str(state),
                                   "--out", str(out), "--force"], capture_output=True, text=True, timeout=300)
            if done.returncode == 2:
                self.one_sentence(done.stderr)
                self.assertIn("is a state of build", done.stderr)
                self.assertEqual(state.read_bytes(), file.read_bytes())
            else:
                self.assertEqual(done.returncode, 0, done.stderr)
                numpy.testing.assert_allclose(numpy.load(out), expected, atol=2e-5)


if __name__ == "__main__":
    unittest.main()
