"""attn_sweep --resume goes on with what the file was begun with, and with nothing else."""
import json
import pathlib
import shlex
import signal
import subprocess
import unittest

from sweep_case import Case, SWEEP, rows_of, run

GRID = ["--variants", "copy_v,mean_v", "--n", "64,128"]


class Resume(Case):
    def begun(self, rows=2):
        """A sweep of four cells of which so many are there."""
        self.assertEqual(self.sweep(*GRID).returncode, 0)
        path = pathlib.Path(self.out)
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:1 + rows]))

    def cells(self):
        return sorted((row["variant"], row["q_len"], row["heads"]) for row in rows_of(self.out))

    def check_whole(self):
        self.assertEqual(self.cells(), sorted((v, n, "2") for v in ("copy_v", "mean_v") for n in ("64", "128")))

    def test_axes_and_settings_come_from_the_context(self):
        self.begun()
        done = run("--out", self.out, "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.check_whole()
        self.assertEqual({row["samples"] for row in rows_of(self.out)}, {"2"})

    def test_the_same_axes_in_other_words_are_accepted(self):
        self.begun()
        done = run("--out", self.out, "--resume", "--n", "64..128*2", "--variants", "mean_v,copy_v")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.check_whole()

    def test_axes_that_differ_are_refused_with_both(self):
        self.begun()
        before = pathlib.Path(self.out).read_bytes()
        for given, then in ((["--n", "64,256"], "--n 64,128"), (["--variants", "full"], "--variants copy_v,mean_v"),
                            (["--kv-len", "32"], "no --kv-len"), (["--head-dim", "32"], "--head-dim 64"), (["--heads=4"], "--heads 2")):
            words = " ".join(given).replace("=", " ")
            done = run("--out", self.out, "--resume", *given)
            self.assertEqual(done.returncode, 2)
            self.assertEqual(done.stderr, f"attn_sweep: --resume: {words} is given, '{self.out}' was begun with {then}; "
                                          f"accepted: no {words.split()[0]}, or another --out\n")
            self.assertEqual(pathlib.Path(self.out).read_bytes(), before)

    def test_a_family_that_has_grown_is_told_of_and_not_measured(self):
        self.begun(rows=0)
        context = pathlib.Path(self.out.replace(".csv", ".context.json"))
        told = json.loads(context.read_text())
        told["asked"]["variants"] = "*_v"
        told["asked"]["axes"]["variant"] = ["copy_v"]
        context.write_text(json.dumps(told))
        done = run("--out", self.out, "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"'*_v' has got mean_v since {self.out} was begun: not measured here, but with --variants mean_v and another --out",
                      done.stderr)
        self.assertEqual({row["variant"] for row in rows_of(self.out)}, {"copy_v"})

    def test_without_a_beginning_and_without_axes_there_is_nothing_to_go_on_with(self):
        done = run("--out", self.out, "--resume")
        self.assertEqual(done.returncode, 2)
        self.assertIn("says what to measure; accepted: axes, such as --variants and --n, or no --resume for the default sweep", done.stderr)
        self.assertFalse(pathlib.Path(self.out).exists())

    def test_another_goal_is_refused(self):
        race = ["--variants", "local", "--n", "64", "--input", "iid:0.1", "--iso-error", "0.5"]
        self.assertEqual(self.sweep(*race).returncode, 0)
        done = run("--out", self.out, "--resume", "--iso-error", "0.2")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--iso-error 0.2 is given", done.stderr)
        self.assertIn("was begun with --iso-error 0.5", done.stderr)
        again = run("--out", self.out, "--resume")
        self.assertEqual(again.returncode, 0)
        self.assertNotIn("searching", again.stderr)
        self.assertEqual(len(rows_of(self.out)), 1)

    def test_ctrl_c_prints_the_command_that_goes_on(self):
        slow = ["--samples", "9", "--rounds", "3", "--sample-time", "0.02", "--heads", "2", "--machine-root", "/none"]
        process = subprocess.Popen([SWEEP, *slow, *GRID, "--out", self.out], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("[2/"):
                break
        process.send_signal(signal.SIGINT)
        said += process.stderr.readlines()
        self.assertEqual(process.wait(60), 130)
        command = said[-1].partition("this goes on: ")[2].strip()
        self.assertEqual(command, shlex.join([SWEEP, "--out", self.out, "--resume"]))
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.check_whole()


if __name__ == "__main__":
    unittest.main()
