"""attn_sweep as its users meet it: statuses, refusals, interruptions, resumption, golden output."""
import csv
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

from sanitizer import unsanitized

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


class Passes(Case):
    def test_a_training_step_is_timed_where_there_is_a_backward_pass(self):
        done = self.sweep("--variants", "full,gru", "--n", "80", "--pass", "forward,forward_backward")
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = {(row["variant"], row["pass"]): row for row in rows_of(self.out)}
        self.assertEqual(len(rows), 4)
        forward, both = rows["full", "forward"], rows["full", "forward_backward"]
        self.assertEqual((forward["status"], both["status"]), ("ok", "ok"))
        self.assertAlmostEqual(float(both["flops"]) / float(forward["flops"]), 3.5, places=4)
        self.assertGreater(float(both["time_min_s"]), float(forward["time_min_s"]))
        self.assertIn("--pass forward_backward", both["command"])
        self.assertEqual(rows["gru", "forward"]["status"], "ok")
        self.assertEqual(rows["gru", "forward_backward"]["status"], "unsupported")
        self.assertIn("has no backward pass of its own", rows["gru", "forward_backward"]["reason"])

    def test_an_unknown_pass_is_refused(self):
        self.refused("--pass", "backward", say=("backward", "forward_backward"))


class Scopes(Case):
    def test_a_layer_is_gated_and_timed_and_says_its_mixers_share(self):
        done = self.sweep("--variants", "full,fnet", "--n", "80", "--scope", "mixer,layer")
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = {(row["variant"], row["scope"]): row for row in rows_of(self.out)}
        self.assertEqual(len(rows), 4)
        for variant in ("full", "fnet"):
            mixer, layer = rows[variant, "mixer"], rows[variant, "layer"]
            self.assertEqual((mixer["status"], layer["status"]), ("ok", "ok"))
            self.assertEqual(mixer["mixer_share"], "")
            self.assertTrue(0 < float(layer["mixer_share"]) < 1, layer["mixer_share"])
            self.assertEqual(layer["err_scope"], "whole")
            self.assertGreater(float(layer["parameter_bytes"]), 5 * 4 * 128 * 128)
            self.assertEqual(layer["fid_skill"], "")
            self.assertIn("a whole layer", layer["fid_reason"])
            self.assertIn("--scope layer", layer["command"])
            self.assertNotIn("--scope", mixer["command"])
        # Wq, Wk, Wv, Wo and an MLP twice as wide: eight products by [128, 128] for each of 80 tokens.
        self.assertAlmostEqual(float(rows["full", "layer"]["flops"]) - float(rows["full", "mixer"]["flops"]), 16 * 80 * 128 * 128, -3)
        self.assertIn("scope=layer", done.stdout)
        self.assertIn("mixer's share", done.stdout)

    def test_what_no_layer_has_is_a_row_with_the_reason(self):
        done = self.sweep("--variants", "full,fnet", "--n", "64", "--scope", "layer", "--kv-len", "64,80")
        rows = {(row["variant"], row["kv_len"]): row for row in rows_of(self.out)}
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(rows["full", "80"]["status"], "unsupported")
        self.assertIn("in a layer needs q_len equal to kv_len", rows["full", "80"]["reason"])
        self.assertEqual(rows["full", "64"]["status"], "ok")

    def test_a_layer_has_a_forward_pass_only(self):
        self.sweep("--variants", "full", "--n", "64", "--scope", "layer", "--pass", "forward_backward")
        (row,) = rows_of(self.out)
        self.assertEqual(row["status"], "unsupported")
        self.assertIn("full in a layer has no backward pass", row["reason"])

    def test_layers_are_timed_beside_each_other(self):
        self.sweep("--variants", "linear", "--n", "64", "--scope", "layer", "--against", "full")
        rows = {row["variant"]: row for row in rows_of(self.out)}
        self.assertEqual((rows["linear"]["status"], rows["linear"]["against"]), ("ok", "full"))
        self.assertGreater(float(rows["linear"]["ratio_median"]), 0)

    def test_budgets_for_an_error_are_those_of_the_mixer(self):
        done = self.sweep("--variants", "local", "--n", "64", "--scope", "layer", "--iso-error", "0.5", "--input", "iid:0.1")
        (row,) = rows_of(self.out)
        self.assertEqual((row["status"], row["scope"]), ("ok", "layer"), done.stderr)

    def test_an_unknown_scope_is_refused(self):
        self.refused("--scope", "block", say=("block", "mixer, layer"))


class Statuses(Case):
    def outcome(self, variant, *arguments):
        done = self.sweep("--plugin", FAULTY, "--variants", variant, "--n", "64", *arguments)
        (row,) = rows_of(self.out)
        return done, row

    def test_a_sound_cell_is_ok_and_has_its_figures(self):
        done, row = self.outcome("faulty")
        self.assertEqual((done.returncode, row["status"]), (0, "ok"), done.stderr)
        self.assertGreater(float(row["time_median_s"]), 0)
        self.assertEqual(row["family"], "test")
        self.assertEqual(len(row["samples_s"].split(";")), 2)

    @unsanitized
    def test_a_crash_ends_one_row(self):
        done, row = self.outcome("faulty:how=crash")
        self.assertEqual((done.returncode, row["status"]), (1, "crashed"))
        self.assertIn("signal 11", row["reason"])
        self.assertEqual(row["time_median_s"], "")

    def test_an_exception_is_a_crash_with_its_words(self):
        done, row = self.outcome("faulty:how=raise")
        self.assertEqual((done.returncode, row["status"]), (1, "crashed"))
        self.assertIn("thrown on purpose", row["reason"])

    def test_leaving_the_process_is_a_crash(self):
        done, row = self.outcome("faulty:how=leave")
        self.assertEqual((done.returncode, row["status"]), (1, "crashed"))
        self.assertIn("no answer", row["reason"])

    def test_a_hang_is_timed_out(self):
        begin = time.monotonic()
        done, row = self.outcome("faulty:how=hang", "--timeout", "1")
        self.assertEqual(row["status"], "timed_out")
        self.assertLess(time.monotonic() - begin, 60)

    @unsanitized
    def test_endless_allocation_is_out_of_memory(self):
        done, row = self.outcome("faulty:how=hog", "--memory-limit", "1G")
        self.assertEqual(row["status"], "out_of_memory")

    def test_a_wrong_result_is_inaccurate_and_has_no_time(self):
        done, row = self.outcome("faulty:how=wrong")
        self.assertEqual((done.returncode, row["status"]), (1, "inaccurate"))
        self.assertAlmostEqual(float(row["err_max_abs"]), 0.5, places=5)
        self.assertEqual(row["time_median_s"], "")

    def test_a_forgotten_row_is_inaccurate(self):
        done, row = self.outcome("faulty:how=forget")
        self.assertEqual((done.returncode, row["status"]), (1, "inaccurate"))
        self.assertEqual(row["err_max_abs"], "inf")

    def test_a_child_left_behind_does_not_hold_the_sweep(self):
        done, row = self.outcome("faulty:how=fork")
        self.assertEqual(row["status"], "ok")

    def test_an_undefined_problem_is_unsupported_with_the_reason(self):
        done = self.sweep("--variants", "linformer,full", "--n", "32", "--causal", "yes")
        rows = {row["variant"]: row for row in rows_of(self.out)}
        self.assertEqual((rows["linformer"]["status"], rows["full"]["status"]), ("unsupported", "ok"))
        self.assertIn("no causal form", rows["linformer"]["reason"])
        self.assertEqual(done.returncode, 0)

    def test_only_refused_cells_is_exit_5(self):
        self.assertEqual(self.sweep("--variants", "linformer", "--n", "32", "--causal", "yes").returncode, 5)

    def test_the_budget_skips_what_it_does_not_reach(self):
        self.sweep("--variants", "copy_v,mean_v", "--n", "64..512*2", "--budget", "0.0001")
        statuses = {row["status"] for row in rows_of(self.out)}
        self.assertIn("skipped_budget", statuses)
        self.assertEqual(len(rows_of(self.out)), 8)

    def test_what_the_budget_skipped_is_measured_on_resume(self):
        grid = ["--variants", "copy_v,mean_v", "--n", "64..256*2"]
        self.sweep(*grid, "--budget", "0.0001")
        self.assertIn("skipped_budget", {row["status"] for row in rows_of(self.out)})
        done = self.sweep(*grid, "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([row["status"] for row in rows_of(self.out)], ["ok"] * 6)
        self.assertEqual(len({(row["variant"], row["q_len"]) for row in rows_of(self.out)}), 6)

    def test_a_resumed_sweep_with_nothing_to_do_exits_as_its_rows_say(self):
        for arguments, code in ((["--plugin", FAULTY, "--variants", "faulty:how=crash"], 1),
                                (["--variants", "linformer", "--causal", "yes"], 5), (["--variants", "copy_v"], 0)):
            for mode in ("--force", "--resume"):
                self.assertEqual(self.sweep(*arguments, "--n", "64", mode).returncode, code, (arguments, mode))

    def test_a_resumed_sweep_tells_of_all_its_rows(self):
        self.assertEqual(self.sweep("--variants", "copy_v", "--n", "64").returncode, 0)
        self.assertEqual(self.sweep("--plugin", FAULTY, "--variants", "faulty:how=crash", "--n", "64", "--resume").returncode, 1)
        done = self.sweep("--variants", "copy_v,mean_v", "--n", "64", "--resume")
        self.assertEqual(done.returncode, 1, done.stderr)  # as the file says, not as this call alone would
        table = done.stdout.splitlines()
        for name in ("copy_v", "mean_v", "faulty"):
            self.assertEqual(sum(name in line for line in table), 1, done.stdout)
        self.assertIn("1 new, 2 from before", table)
        (kept,) = [line for line in table if line.lstrip().startswith("copy_v")]
        row = next(row for row in rows_of(self.out) if row["variant"] == "copy_v")
        self.assertIn(f"{float(row['roof_fraction']):.2f} {row['roof_binds']}", kept)

    def test_a_csv_that_another_program_saved_is_gone_on_with(self):
        self.assertEqual(self.sweep("--variants", "copy_v", "--n", "64").returncode, 0)
        text = pathlib.Path(self.out).read_bytes()
        pathlib.Path(self.out).write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
        done = self.sweep("--variants", "copy_v,mean_v", "--n", "64", "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.out, newline="", encoding="utf-8-sig") as file:
            self.assertEqual([row["variant"] for row in csv.DictReader(file)], ["copy_v", "mean_v"])

    def test_the_budget_ends_the_search_for_an_error_too(self):
        done = self.sweep("--variants", "local", "--n", "64", "--iso-error", "0.5", "--input", "iid:0.1", "--budget", "0.0001")
        self.assertEqual([row["status"] for row in rows_of(self.out)], ["skipped_budget"])
        self.assertNotIn("iso-error", done.stderr)

    def test_a_broken_variant_does_not_disturb_its_neighbours(self):
        done = self.sweep("--plugin", FAULTY, "--variants", "faulty:how=crash,copy_v,full", "--n", "64")
        self.assertEqual({row["variant"]: row["status"] for row in rows_of(self.out)},
                         {"faulty": "crashed", "copy_v": "ok", "full": "ok"})


class Pairs(Case):
    def test_a_variant_is_timed_beside_the_reference(self):
        done = self.sweep("--variants", "mean_v,full", "--n", "256", "--against", "full", "--samples", "6", "--rounds", "2")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("vs full, paired", done.stdout)
        rows = {row["variant"]: row for row in rows_of(self.out)}
        self.assertEqual(set(rows), {"mean_v", "full"})
        for row in rows.values():
            own, other = ([float(s) for s in row[column].split(";")] for column in ("samples_s", "against_s"))
            self.assertEqual((len(own), len(other), row["against"]), (6, 6, "full"))
            ratios = sorted(a / b for a, b in zip(own, other))
            self.assertAlmostEqual(float(row["ratio_median"]) / ((ratios[2] + ratios[3]) / 2), 1, places=3)
            self.assertAlmostEqual(float(row["ratio_ci_low"]) / ratios[0], 1, places=3)
            self.assertAlmostEqual(float(row["ratio_ci_high"]) / ratios[-1], 1, places=3)
            self.assertIn("--against full", row["command"])
        self.assertLess(float(rows["mean_v"]["ratio_median"]), 0.7)
        self.assertTrue(0.5 < float(rows["full"]["ratio_median"]) < 2, rows["full"]["ratio_median"])  # against itself

    def test_the_reference_has_a_row_of_its_own(self):
        self.sweep("--variants", "copy_v", "--n", "64", "--against", "local:left=3,right=4")
        self.assertEqual({row["variant"]: row["against"] for row in rows_of(self.out)},
                         dict.fromkeys(("copy_v", "local"), "local:left=3,right=4,sinks=0"))

    def test_a_sweep_without_pairs_has_none(self):
        self.sweep("--variants", "copy_v", "--n", "64")
        (row,) = rows_of(self.out)
        self.assertEqual([row[c] for c in ("against", "against_s", "ratio_median", "ratio_ci_low", "ratio_ci_high")], [""] * 5)

    def test_unknown_references_are_refused(self):
        self.refused("--against", "ful", say=("--against", "ful", "full"))
        self.refused("--against", "full,local", say=("--against",))
        self.refused("--against", "sparse", say=("--against",))

    def test_a_reference_that_cannot_run_is_a_row_with_the_reason(self):
        done = self.sweep("--variants", "full", "--n", "32", "--causal", "yes", "--against", "linformer")
        rows = {row["variant"]: row for row in rows_of(self.out)}
        self.assertEqual(rows["full"]["status"], "unsupported")
        self.assertIn("--against linformer:", rows["full"]["reason"])
        self.assertIn("no causal form", rows["full"]["reason"])
        self.assertEqual(done.returncode, 5)

    def test_nothing_is_timed_against_a_wrong_result(self):
        done = self.sweep("--plugin", FAULTY, "--variants", "full", "--n", "64", "--against", "faulty:how=wrong")
        rows = {row["variant"]: row for row in rows_of(self.out)}
        self.assertEqual((done.returncode, rows["full"]["status"], rows["full"]["time_median_s"]), (1, "inaccurate", ""))
        self.assertIn("--against faulty:how=wrong", rows["full"]["reason"])


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
        done = self.sweep("--variants", "copy_v", "--n", "64", "--resume")
        first.terminate()
        self.assertEqual(first.wait(60), 130)
        self.assertEqual(done.returncode, 2)
        self.assertIn("another sweep", done.stderr)


class Output(Case):
    def golden(self, name, text):
        path = ROOT / "tests" / "golden" / name
        if os.environ.get("ATTN_APPROVE"):
            path.write_text(text)
        self.assertEqual(text, path.read_text(), f"ATTN_APPROVE=1 accepts the new {name}")

    def test_the_columns_are_golden_and_head_the_csv(self):
        self.sweep("--variants", "copy_v", "--n", "64")
        header = pathlib.Path(self.out).read_text().splitlines(keepends=True)[0]
        self.golden("header.csv", header)
        context = json.loads((self.folder / "a.context.json").read_text())
        self.assertEqual(context["csv_schema"], 2)
        self.golden("columns.json", as_lines(context["columns"]))
        self.assertEqual([column["name"] for column in context["columns"]], header.strip().split(","))
        self.assertEqual(header.strip().split(","), [line.split()[0] for line in run("--columns").stdout.splitlines()])

    def test_the_family_table_is_the_readme(self):
        path = ROOT / "variants" / "README.md"
        before, _, _ = path.read_text().partition("| family |")
        text = before + run("--list=md").stdout
        if os.environ.get("ATTN_APPROVE"):
            path.write_text(text)
        self.assertEqual(text, path.read_text(), "ATTN_APPROVE=1 writes the new variants/README.md")

    def test_the_page_in_the_readme_runs_as_a_plugin(self):
        self.sweep("--plugin", os.environ["ATTN_README_PAGE"], "--variants", "my_window:width=9", "--n", "200")
        (row,) = rows_of(self.out)
        self.assertEqual((row["status"], row["family"]), ("ok", "plugin"))

    def test_a_page_that_new_variant_wrote_is_measured_at_once(self):
        self.sweep("--plugin", os.environ["ATTN_NEW_PAGE"], "--variants", "full,fresh_idea", "--n", "200")
        self.assertEqual({row["variant"]: row["status"] for row in rows_of(self.out)}, {"full": "ok", "fresh_idea": "ok"})

    def test_the_list_is_json_on_request(self):
        entries = json.loads(run("--list=json").stdout)
        ids = [entry["id"] for entry in entries]
        ids += [f"{entry['id']}@{other['name']}" for entry in entries for other in entry["implementations"]]
        self.assertEqual(len(ids), len(set(ids)))
        self.assertEqual(sorted(ids), sorted(path.stem for path in (ROOT / "variants").glob("*/*.cpp")))

    def test_every_row_carries_the_command_that_repeats_it(self):
        self.sweep("--variants", "local:left=3", "--n", "64")
        (row,) = rows_of(self.out)
        again = str(self.folder / "again.csv")
        command = row["command"].replace("attn_sweep", SWEEP, 1) + f" --out {again}"
        self.assertEqual(subprocess.run(command, shell=True, capture_output=True).returncode, 0)
        (repeated,) = rows_of(again)
        for column in ("variant", "options", "q_len", "heads", "input", "seed", "threads", "isa", "err_max_abs"):
            self.assertEqual(row[column], repeated[column])

    def test_json_lines_hold_the_same_rows(self):
        jsonl = self.folder / "a.jsonl"
        self.sweep("--variants", "copy_v,full", "--n", "64", "--jsonl", str(jsonl))
        lines = [json.loads(line) for line in jsonl.read_text().splitlines()]
        rows = rows_of(self.out)
        self.assertEqual([line["variant"] for line in lines], [row["variant"] for row in rows])
        self.assertEqual(lines[0]["q_len"], 64)
        self.assertEqual(list(lines[0]), list(rows[0]))

    def test_the_context_stands_beside_the_csv(self):
        self.sweep("--variants", "copy_v", "--n", "64")
        context = json.loads((self.folder / "a.context.json").read_text())
        self.assertGreater(context["peaks"][0]["fma_gflops"], 0)
        for part in ("machine", "build", "libraries", "command_line", "date"):
            self.assertIn(part, context)

    def test_the_three_meters_agree(self):
        self.sweep("--variants", "default", "--n", "1024", "--heads", "8")
        for row in rows_of(self.out):
            self.assertEqual((row["variant"], row["status"], row["meters_agree"]), (row["variant"], "ok", "1"))

    def test_stdout_is_quiet_on_request_and_stderr_has_a_line_a_cell(self):
        done = self.sweep("--variants", "copy_v", "--n", "64", "--quiet")
        self.assertEqual((done.stderr, done.stdout.count("\n")), ("", 1))
        done = self.sweep("--variants", "copy_v", "--n", "64,128", "--force")
        self.assertEqual(done.stderr.count("\n"), 2)


if __name__ == "__main__":
    unittest.main()
