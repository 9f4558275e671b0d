"""What attn_sweep refuses, where its options come from, how it is interrupted and goes on."""
import json
import os
import pathlib
import signal
import subprocess
import time
import unittest

from sweep_case import Case, SWEEP, rows_of, run


class Refusals(Case):
    def test_an_unknown_variant_names_the_nearest(self):
        self.refused("--variants", "linformr", say=("linformr", "linformer"))

    def test_an_unknown_option_names_the_nearest(self):
        self.refused("--variants", "local:lft=3", say=("lft", "left"))

    def test_values_out_of_range(self):
        self.refused("--variants", "local:left=-1", say=("left=-1", "0.."))
        self.refused("--n", "0", say=("--n", "0"))
        self.refused("--n", "128..64*2", say=("128..64*2",))
        self.refused("--n", "many", say=("many",))
        self.refused("--causal", "maybe", say=("maybe", "both"))
        self.refused("--samples", "0", say=("samples",))
        self.refused("--isa", "mmx", say=("mmx", "scalar"))
        self.refused("--memory-limit", "lots", say=("lots",))
        for least in ("0", "1", "1K", "15M"):
            self.refused("--variants", "copy_v", "--n", "64", "--memory-limit", least, say=(f"'{least}'", "16M"))
        for flag, least in (("--sample-time", "0"), ("--timeout", "0.001"), ("--budget", "0")):
            for value in ("nan", "-1", "inf", "soon"):
                self.refused(flag, value, say=(flag, f"'{value}'", f"from {least} to 1e+07"))
        self.refused("--timeout", "0", say=("--timeout", "'0'", "from 0.001 to 1e+07"))
        self.refused("--iso-error", "nan", say=("--iso-error", "nan", "1e-06"))

    def test_a_flag_without_its_value(self):
        self.refused("--n=", "--variants", "full", say=("--n= has no value",))

    def test_an_unknown_flag_names_the_nearest(self):
        self.refused("--variant", "full", say=("--variant", "--variants"))

    def test_a_head_dim_that_no_kernel_takes(self):
        self.refused("--variants", "full", "--n", "64", "--head-dim", "300", say=("--head-dim", "300", "1..256"))
        self.refused("--variants", "full", "--n", "64", "--value-dim", "257", say=("--value-dim", "257", "1..256"))

    def test_a_length_beyond_the_file_is_a_refused_row(self):
        import numpy
        file = self.folder / "x.npy"
        numpy.save(file, numpy.ones((2, 48, 8), numpy.float32))
        done = self.sweep("--variants", "copy_v", "--n", "32,64", "--input", f"npy:{file},{file},{file}")
        self.assertEqual(done.returncode, 0, done.stderr)
        inside, beyond = rows_of(self.out)
        self.assertEqual((inside["q_len"], inside["status"]), ("32", "ok"))
        self.assertEqual((beyond["q_len"], beyond["status"]), ("64", "unsupported"))
        self.assertIn("q_len=48", beyond["reason"])

    def test_without_lengths_a_file_is_measured_to_its_end(self):
        import numpy
        file = self.folder / "x.npy"
        numpy.save(file, numpy.ones((1, 150, 8), numpy.float32))
        self.sweep("--variants", "copy_v", "--input", f"npy:{file},{file},{file}")
        self.assertEqual([row["q_len"] for row in rows_of(self.out)], ["128", "150"])

    def test_a_missing_text(self):
        self.refused("--input", "text:/no/such/file", say=("/no/such/file",))

    def test_missing_truncated_and_strange_npy(self):
        import numpy
        good = self.folder / "q.npy"
        numpy.save(good, numpy.zeros((2, 8, 4), numpy.float32))
        cut = self.folder / "cut.npy"
        cut.write_bytes(good.read_bytes()[:-20])
        fortran = self.folder / "f.npy"
        numpy.save(fortran, numpy.asfortranarray(numpy.zeros((2, 8, 4), numpy.float32)))
        longer = self.folder / "longer.npy"
        numpy.save(longer, numpy.zeros((2, 9, 4), numpy.float32))
        other = self.folder / "objects.npy"
        numpy.save(other, numpy.array([{}, {}]), allow_pickle=True)
        for bad in (self.folder / "none.npy", cut, fortran, other):
            self.refused("--input", f"npy:{bad},{good},{good}", say=(bad.name,))
        self.refused("--input", f"npy:{good},{good},{longer}", say=("longer.npy",))

    def test_an_unwritable_output(self):
        done = run("--out", "/proc/none/a.csv", "--variants", "copy_v", "--n", "64")
        self.assertEqual(done.returncode, 2)
        self.assertIn("/proc/none/a.csv", done.stderr)

    def test_an_existing_output_is_not_overwritten(self):
        pathlib.Path(self.out).write_text("precious\n")
        done = self.sweep("--variants", "copy_v", "--n", "64")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--force", done.stderr)
        self.assertEqual(pathlib.Path(self.out).read_text(), "precious\n")

    def test_a_refused_output_leaves_the_others_as_they_were(self):
        cell = ["--variants", "copy_v", "--n", "64"]
        for bad in (["--jsonl", "/proc/zz"], ["--save-output", "/proc/zz"], ["--jsonl", self.out]):
            self.refused(*cell, *bad, say=(bad[0],))
        self.sweep(*cell)
        before = pathlib.Path(self.out).read_text()
        for bad in (["--jsonl", "/proc/zz"], ["--save-output", "/proc/zz"], ["--jsonl", self.out]):
            self.assertEqual(self.sweep(*cell, "--force", *bad).returncode, 2)
            self.assertEqual(pathlib.Path(self.out).read_text(), before)

    def test_resuming_does_not_replace_a_file_of_something_else(self):
        notes = self.folder / "notes.txt"
        notes.write_text("precious\n")
        done = self.sweep("--variants", "copy_v", "--n", "64", "--resume", "--jsonl", str(notes))
        self.assertEqual(done.returncode, 2)
        self.assertIn("notes.txt", done.stderr)
        self.assertEqual(notes.read_text(), "precious\n")

    def test_what_is_no_regular_file(self):
        pipe = str(self.folder / "pipe")
        os.mkfifo(pipe)
        for path in ("/dev/zero", pipe):
            self.refused("--config", path, say=(path, "no regular file"))
            done = run("--variants", "copy_v", "--n", "64", "--resume", "--out", path)
            self.assertEqual(done.returncode, 2)
            self.assertIn("no regular file", done.stderr)

    def test_resuming_a_file_of_another_schema(self):
        pathlib.Path(self.out).write_text("a,b\n1,2\n")
        done = self.sweep("--variants", "copy_v", "--n", "64", "--resume")
        self.assertEqual(done.returncode, 2)
        self.assertIn("columns", done.stderr)
        self.assertEqual(pathlib.Path(self.out).read_text(), "a,b\n1,2\n")

    def test_a_config_file_that_is_not_toml(self):
        config = self.folder / "c.toml"
        config.write_text("n = = 3\n")
        self.refused("--config", str(config), say=("c.toml", "line 1"))
        config.write_text("nn = 3\n")
        self.refused("--config", str(config), say=("nn",))
        config.write_text('jsonl = ""\n')
        self.refused("--config", str(config), say=("c.toml", "'jsonl'", "is empty"))
        for text, what in (("[sweep]\nn = 3\n", "a table"), ("\u00e9 = 3\n", "beyond ASCII"), ("n = 3\n# \x01\n", "line 2"),
                           ('n = """3"""\n', "several lines")):
            config.write_text(text)
            self.refused("--config", str(config), say=("c.toml", what, "accepted: key = value"))


class Sources(Case):
    def dry(self, *arguments, **environment):
        done = run("--dry-run", "--variants", "copy_v", *arguments, env={**os.environ, **environment})
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_flags_beat_variables_beat_the_config_file(self):
        config = self.folder / "c.toml"
        config.write_text('n = [64, 96]\nthreads = 1\n')
        self.assertIn("q_len=96", self.dry("--config", str(config)))
        self.assertIn("q_len=32", self.dry("--config", str(config), ATTN_N="32"))
        self.assertNotIn("q_len=96", self.dry("--config", str(config), ATTN_N="32"))
        self.assertIn("q_len=16", self.dry("--config", str(config), "--n", "16", ATTN_N="32"))

    def test_a_variable_without_text_is_none(self):
        self.assertEqual(self.dry(ATTN_OUT="", ATTN_N="", ATTN_INPUT="", ATTN_FORCE="", ATTN_CONFIG=""), self.dry())

    def test_a_dry_run_writes_nothing(self):
        self.dry("--out", self.out)
        self.assertEqual(os.listdir(self.folder), [])


class Interruptions(Case):
    GRID = ["--variants", "copy_v,mean_v,full", "--n", "64..512*2", "--seed", "1"]
    SLOW = ["--samples", "9", "--rounds", "3", "--sample-time", "0.02", "--heads", "2"]

    def interrupted_by(self, number, rows=4):
        process = subprocess.Popen([SWEEP, *self.SLOW, *self.GRID, "--out", self.out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if os.path.exists(self.out) and len(rows_of(self.out)) >= rows:
                break
            time.sleep(0.02)
        process.send_signal(number)
        return process.wait(60)

    def check_resumed(self):
        before = pathlib.Path(self.out).read_text()
        done = run(*self.SLOW, *self.GRID, "--out", self.out, "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        after = pathlib.Path(self.out).read_text()
        self.assertTrue(after.startswith(before[:before.rfind("\n") + 1]))
        whole = str(self.folder / "whole.csv")
        run(*self.SLOW, *self.GRID, "--out", whole)
        key = lambda row: (row["variant"], row["q_len"], row["status"])
        self.assertEqual(sorted(map(key, rows_of(self.out))), sorted(map(key, rows_of(whole))))
        self.assertEqual(len(rows_of(self.out)), 12)
        self.assertFalse(os.path.exists(self.out + ".journal"))

    def test_ctrl_c_keeps_finished_rows_and_exits_130(self):
        self.assertEqual(self.interrupted_by(signal.SIGINT), 130)
        self.assertGreaterEqual(len(rows_of(self.out)), 4)
        self.check_resumed()

    def test_sigkill_loses_at_most_the_running_cell(self):
        self.interrupted_by(signal.SIGKILL)
        self.assertGreaterEqual(len(rows_of(self.out)), 4)
        # Rounds that were finished are not measured again: they wait in the journal.
        lines = pathlib.Path(self.out + ".journal").read_text().splitlines(keepends=True)
        journalled = [json.loads(line)["cell"] for line in lines if line.endswith("}\n")]
        self.assertGreaterEqual(len(journalled), 4)
        self.check_resumed()

    def test_a_torn_last_line_is_repaired(self):
        self.sweep("--variants", "copy_v,mean_v", "--n", "64")
        text = pathlib.Path(self.out).read_text()
        pathlib.Path(self.out).write_text(text[:-30])
        done = self.sweep("--variants", "copy_v,mean_v", "--n", "64", "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sorted(row["variant"] for row in rows_of(self.out)), ["copy_v", "mean_v"])

    def test_a_file_that_ends_within_its_header_goes_on(self):
        for text in ("", "schema,vari"):
            pathlib.Path(self.out).write_text(text)
            done = self.sweep("--variants", "copy_v", "--n", "64", "--resume")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual([row["status"] for row in rows_of(self.out)], ["ok"])

    def test_two_sweeps_cannot_share_an_output(self):
        first = subprocess.Popen([SWEEP, *self.SLOW, *self.GRID, "--out", self.out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not os.path.exists(self.out):
            time.sleep(0.01)
        done = run(*self.SLOW, *self.GRID, "--out", self.out, "--resume")
        first.terminate()
        self.assertEqual(first.wait(60), 130)
        self.assertEqual(done.returncode, 2)
        self.assertIn("another sweep", done.stderr)


if __name__ == "__main__":
    unittest.main()
