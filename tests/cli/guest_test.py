"""Guests: gated, timed and kept like any variant; whatever one does wrong costs its own row, with a reason, and nothing stays behind."""
import glob
import json
import os
import subprocess
import sys
import textwrap

from cases import alone, main
from sanitizer import unsanitized
from sweep_case import QUICK, ROOT, Case, rows_of, run

GUESTS = ROOT / "scripts/guests"
FAULTY_GUEST = ROOT / "tests/cli/faulty_guest.py"
os.environ["ATTN_PYTHON"] = sys.executable  # NumPy is the system's Python's


def left_behind(mark):
    return subprocess.run(["pgrep", "-f", mark], capture_output=True, text=True).stdout


class GuestCase(Case):
    def write(self, name, text):
        path = self.folder / name
        path.write_text(textwrap.dedent(text))
        return f"{sys.executable} {path}"

    def row(self, name, *arguments, code=0):
        done = self.sweep(*arguments)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        rows = {row["name"]: row for row in rows_of(self.out)}
        self.stdout = done.stdout
        return rows[name]


class Shipped(GuestCase):
    def test_numpy_agrees_with_the_definition_and_has_a_time_and_a_memory_of_its_own(self):
        row = self.row("full@numpy", "--variants", "full,full@numpy", "--n", "256", "--causal", "yes")
        self.assertEqual((row["status"], row["variant"], row["implementation"], row["err_scope"]), ("ok", "full", "numpy", "whole"))
        self.assertLess(float(row["err_relative"]), 1e-6)
        self.assertGreater(float(row["time_median_s"]), 0)
        self.assertIn("NumPy", row["note"])
        # Two arrays of logits, or more, are made in a run: heads * N * N floats each.
        self.assertGreater(int(row["peak_rss_bytes"]), 2 * 256 * 256 * 4)

    def test_every_variant_of_numpy_passes_the_gate(self):
        done = self.sweep("--variants", "*@numpy", "--n", "100", "--head-dim", "16")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual({row["status"] for row in rows_of(self.out)}, {"ok"})
        self.assertEqual({row["err_scope"] for row in rows_of(self.out)}, {"whole"})

    def test_decodes_by_the_same_functions(self):
        row = self.row("full@numpy", "--variants", "full@numpy", "--n", "200", "--pass", "decode", "--kv-heads", "1")
        self.assertEqual((row["status"], row["pass"], row["append_s"]), ("ok", "decode", ""))
        self.assertGreater(float(row["tokens_per_s"]), 0)

    def test_what_a_file_says_of_a_guest_is_what_the_guest_says(self):
        for file in GUESTS.glob("*.json"):
            told = json.loads(file.read_text())
            command = ["/bin/sh", "-c", told.pop("command")]
            environment = {**os.environ, "ATTN_GUEST_FOLDER": str(GUESTS), "PYTHONPATH": str(GUESTS)}
            done = subprocess.run(command, input='{"ask": "hello", "protocol": 1}\n', capture_output=True, text=True, env=environment,
                                  timeout=60)
            self.assertEqual(json.loads(done.stdout), told, f"{file}: {done.stderr}")

    def test_a_missing_library_is_a_refused_row_that_says_what_to_install(self):
        (self.folder / "numpy.py").write_text("raise ImportError('no NumPy')")
        (self.folder / "torch.py").write_text("raise ImportError('no PyTorch')")
        (self.folder / "onnxruntime.py").write_text("raise ImportError('no ONNX Runtime')")
        done = run(*QUICK, "--out", self.out, "--variants", "full@*", "--n", "64",
                   env={**os.environ, "PYTHONPATH": str(self.folder), "ATTN_ONEDNN_GRAPH": str(self.folder / "none")})
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = {row["implementation"]: row for row in rows_of(self.out)}
        for name, words in (("numpy", "python3-numpy"), ("torch", "python3-torch"), ("onnxruntime", "onnxruntime"), ("flex", "python3-torch"),
                            ("onednn_graph", "libdnnl-dev")):
            self.assertEqual(rows[name]["status"], "unsupported")
            self.assertIn(words, rows[name]["reason"])
        self.assertEqual(rows["native"]["status"], "ok")

    def test_passes_and_scopes_that_guests_have_not_are_refused_rows(self):
        for arguments, words in ((["--pass", "forward_backward"], "runs forward"), (["--scope", "layer"], "--scope mixer"),
                                 (["--cache", "cold"], "--cache hot"), (["--dtype", "bf16"], "takes f32")):
            row = self.row("full@numpy", "--variants", "full@numpy", "--n", "64", "--force", *arguments, code=5)
            self.assertEqual(row["status"], "unsupported")
            self.assertIn(words, row["reason"])

    def test_is_clocked_in_turn_with_a_native_variant(self):
        row = self.row("full@numpy", "--variants", "full@numpy", "--n", "64", "--against", "full")
        self.assertGreater(float(row["ratio_median"]), 0)


class Faults(GuestCase):
    def faulty(self, hows, *arguments, code=1, variant="full"):
        """The rows of one sweep of a sound variant and of a guest for each fault, by fault; what they leave behind is looked for."""
        mark = f"mark_{os.getpid()}_{len(hows)}"
        guests = [text for how in hows for text in ("--guest", f"{sys.executable} {FAULTY_GUEST} {how} {mark}")]
        done = self.sweep(*guests, "--variants", ",".join(["copy_v", *(f"{variant}@{how}" if variant == "full" else variant for how in hows)]),
                          "--n", "64", "--force", *arguments)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        rows = rows_of(self.out)
        self.assertEqual(len(rows), 1 + len(hows))
        self.assertEqual({row["status"] for row in rows if row["variant"] == "copy_v"}, {"ok"})
        self.assertEqual(left_behind(mark), "")
        self.assertEqual(glob.glob("/dev/shm/attnbench-guest-*"), [])
        return {row["implementation"]: row for row in rows if row["variant"] != "copy_v"}

    def test_without_a_fault_it_is_measured_on_the_threads_and_processors_asked_for(self):
        row = self.faulty(["none"], "--threads", "1", code=0)["none"]
        self.assertEqual((row["status"], row["threads"]), ("ok", "1"))
        self.assertIn("threads=1", row["note"])
        self.assertRegex(row["note"], r"processors=\[\d+\]$")

    def test_in_bf16_it_is_held_to_a_framework_s_arithmetic_in_bf16_and_no_less(self):
        rows = self.faulty(["rounded", "wrong"], "--dtype", "bf16", "--kv-dtype", "bf16")
        self.assertEqual({how: row["status"] for how, row in rows.items()}, {"rounded": "ok", "wrong": "inaccurate"})
        self.assertEqual(rows["rounded"]["compute"], "bf16_dot")
        self.assertGreater(float(rows["rounded"]["err_max_abs"]), 1e-4)
        row = self.faulty(["none"], "--dtype", "bf16", "--kv-dtype", "f32", code=0)["none"]
        self.assertIn("one number type for q, k and v", row["reason"])

    def test_each_fault_ends_as_one_row_with_a_reason(self):
        faults = {"die": ("crashed", "ended with code 7 before it answered 'run': out of patience"),
                  "plan_dies": ("crashed", "ended by signal 11"),
                  "noise": ("crashed", "step 1 of 3"),
                  "flood": ("crashed", "more than 64 KiB"),
                  "json": ("crashed", "one object of JSON"),
                  "list": ("crashed", "one object of JSON"),
                  "error": ("crashed", "ValueError: shapes do not match"),
                  "no_seconds": ("crashed", "number of seconds"),
                  "text": ("crashed", "number of seconds"),
                  "shape": ("crashed", "shape [1,2,64,63], accepted: [1,2,64,64]"),
                  "dtype": ("crashed", "elements that are not '<f4'"),
                  "big": ("crashed", "has 1073741824 bytes, accepted: at most"),
                  "path": ("crashed", "outside of its folder"),
                  "absolute": ("crashed", "outside of its folder"),
                  "link": ("crashed", "cannot be read from its folder"),
                  "pipe": ("crashed", "no regular file"),
                  "no_file": ("crashed", "cannot be read from its folder"),
                  "no_name": ("crashed", "without the name of a file"),
                  "nan": ("inaccurate", "finite"),
                  "wrong": ("inaccurate", "misses its definition"),
                  "refuse": ("unsupported", "Mondays")}
        rows = self.faulty(faults)
        self.assertEqual(set(rows), set(faults))
        for how, (status, words) in faults.items():
            self.assertEqual((how, rows[how]["status"], rows[how]["time_median_s"]), (how, status, ""), rows[how]["reason"])
            self.assertIn(words, rows[how]["reason"])

    @alone
    def test_a_guest_that_lies_about_its_time_loses_its_row(self):
        rows = self.faulty(["lie", "lie_more", "lie_nothing"], "--sample-time", "0.01", "--threads", "1")
        for row in rows.values():
            self.assertEqual((row["status"], row["time_median_s"]), ("crashed", ""), row["reason"])
            self.assertIn("the guest says that", row["reason"])

    def test_a_guest_that_hangs_is_timed_out_and_leaves_nothing_behind(self):
        rows = self.faulty(["hang", "fork_hang"], "--timeout", "5", code=0)
        self.assertEqual({row["status"] for row in rows.values()}, {"timed_out"})

    def test_a_daemon_that_a_guest_starts_ends_with_it_and_memory_is_metered_from_outside(self):
        rows = self.faulty(["daemon", "hog"], code=0)
        self.assertEqual({row["status"] for row in rows.values()}, {"ok"})
        self.assertGreater(int(rows["hog"]["peak_rss_bytes"]), 30 << 20)  # of 32 MiB: the kernel counts in batches
        self.assertLess(int(rows["hog"]["peak_rss_bytes"]), 64 << 20)
        self.assertLess(int(rows["daemon"]["peak_rss_bytes"]), 8 << 20)

    def test_a_reference_of_another_shape_costs_the_row(self):
        row = self.faulty(["reference_shape"], variant="faulty")["native"]
        self.assertEqual(row["status"], "crashed")
        self.assertIn("answered 'reference' with an array of shape", row["reason"])

    def test_two_guests_of_one_name_are_refused(self):
        command = f"{sys.executable} {FAULTY_GUEST} noise"
        self.refused("--guest", command, "--guest", command, "--variants", "full", "--n", "64", say=["'full@noise', which exists already"])
        self.refused("--guest", f"{sys.executable} {FAULTY_GUEST} none", "--guest", f"{sys.executable} {FAULTY_GUEST} wrong", "--variants", "full", "--n", "64",
                     say=["variant 'faulty', which another guest has brought"])

    def test_who_does_not_introduce_itself_is_refused_in_one_sentence(self):
        for how, words in (("hello_dies", "code 3 before it answered 'hello': there is no such library"),
                           ("hello_noise", "'ready' is no JSON"), ("hello_protocol", "protocol is 2, accepted: 1"),
                           ("hello_name", "small letters"), ("hello_nothing", "variants is empty")):
            self.refused("--guest", f"{sys.executable} {FAULTY_GUEST} {how}", "--variants", "full", "--n", "64", say=["--guest", words])
        self.refused("--guest", f"{sys.executable} {FAULTY_GUEST} hello_hangs", "--timeout", "1", "--variants", "full", "--n", "64",
                     say=["'hello' within 1 s"])
        self.refused("--guest", "/no/such/program", "--variants", "full", "--n", "64", say=["code 127"])


MINE = '''
    import numpy as np

    name = "mine"
    options = {"sharpness": 1.0}

    def attention(q, k, v, causal, sharpness):
        logits = sharpness * q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5
        if causal:
            logits = np.where(np.tri(q.shape[2], k.shape[2], k.shape[2] - q.shape[2], dtype=bool), logits, -np.inf)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True) @ v
'''


class Functions(GuestCase):
    def test_what_new_variant_writes_is_measured_at_once_and_conforms(self):
        written = subprocess.run([sys.executable, ROOT / "scripts/new_variant.py", "--python", "mine"], cwd=self.folder, capture_output=True,
                                 text=True, check=True)
        self.assertEqual(written.stdout, "mine.py\n")
        command = f"{sys.executable} {self.folder / 'mine.py'}"
        row = self.row("mine", "--guest", command, "--variants", "full,mine", "--n", "256", "--causal", "yes")
        self.assertEqual((row["status"], row["err_scope"], row["exactness"]), ("ok", "whole", "pattern"))
        row = self.row("mine:reach=255", "--guest", command, "--variants", "mine:reach=255", "--n", "256", "--force")
        self.assertGreater(float(row["fid_skill"]), 0.999999)
        done = run("--verify", "--quiet", "--guest", command, "--property", "agreement,causality,heads,output")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_attn_apply_runs_it_on_tensors(self):
        command = self.write("a.py", MINE)
        import numpy
        tensors = numpy.random.default_rng(1).standard_normal((3, 2, 20, 8)).astype("f4")
        for name, tensor in zip("qkv", tensors):
            numpy.save(self.folder / f"{name}.npy", tensor)
        outs = []
        for number, variant in enumerate((["--guest", command, "--variant", "mine"], ["--variant", "full@numpy"], ["--variant", "full"])):
            path = self.folder / f"{number}.npy"
            files = [text for name in "qkv" for text in (f"--{name}", str(self.folder / f"{name}.npy"))]
            done = subprocess.run([os.environ["ATTN_APPLY"], *variant, *files, "--out", str(path)], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            outs.append(numpy.load(path))
        for out in outs[:2]:
            numpy.testing.assert_allclose(out, outs[2], atol=1e-6)
        bad = self.write("b.py", "def attention(q, k, v, causal):\n    raise ValueError('no')\n")
        done = subprocess.run([os.environ["ATTN_APPLY"], "--guest", bad, "--variant", "b", *files, "--out", str(self.folder / "b.npy")],
                              capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1), done.stderr)
        self.assertIn("ValueError: no", done.stderr)

    def test_a_function_with_a_reference_is_gated(self):
        command = self.write("a.py", MINE + '''
    reference = attention

    def cost(problem, sharpness):
        return {"flops": 4.0 * problem.batch * problem.heads * problem.q_len * problem.kv_len * problem.head_dim}
''')
        row = self.row("mine", "--guest", command, "--variants", "full,mine", "--n", "128")
        self.assertEqual((row["status"], row["family"], row["err_scope"]), ("ok", "guest", "whole"))
        self.assertAlmostEqual(float(row["flops"]) / (4 * 2 * 128 * 128 * 64), 1, places=5)
        self.assertGreater(float(row["fid_skill"]), 0.999)
        self.assertIn("--guest", row["command"])
        row = self.row("mine:sharpness=2", "--guest", command, "--variants", "mine:sharpness=2", "--n", "128", "--force")
        self.assertEqual((row["status"], row["options"]), ("ok", "sharpness=2"))
        self.assertLess(float(row["fid_skill"]), 0.999)

    def test_without_a_reference_its_time_is_marked(self):
        command = self.write("a.py", MINE)
        row = self.row("mine", "--guest", command, "--variants", "mine", "--n", "128")
        self.assertEqual((row["status"], row["err_scope"], row["err_max_abs"]), ("ok", "ungated", ""))
        self.assertIn("ungated", row["note"])
        self.assertRegex(self.stdout, r"mine +[\d.]+ [mu]s (~ )?\? .* ungated")

    def test_a_function_that_misses_its_reference_has_no_time(self):
        command = self.write("a.py", MINE + '''
    def reference(q, k, v, causal, sharpness):
        return attention(q, k, v, causal, sharpness) + 0.01
''')
        row = self.row("mine", "--guest", command, "--variants", "mine", "--n", "128", code=1)
        self.assertEqual((row["status"], row["time_median_s"]), ("inaccurate", ""))

    def test_learned_tensors_are_drawn_by_the_harness_and_shared_with_the_reference(self):
        command = self.write("a.py", '''
    def parameters(problem):
        return {"w": (problem.heads, problem.head_dim, problem.value_dim)}

    def attention(q, k, v, causal, w):
        return q @ w

    reference = attention
''')
        row = self.row("a", "--guest", command, "--variants", "a", "--n", "2000")
        self.assertEqual((row["status"], row["err_scope"]), ("ok", "twin"))
        self.assertEqual(int(row["parameter_bytes"]), 2 * 64 * 64 * 4)

    def test_what_a_function_throws_or_returns_is_the_reason_of_its_row(self):
        for body, words in (("raise ValueError('no such head')", "ValueError: no such head"), ("return v[..., :1]", "shape [1,2,64,1]"),
                            ("return None", "failed at 'output': TypeError: the function returned nothing"), ("print('noise'); raise SystemExit(3)", "ended with code 3")):
            command = self.write("a.py", f"def attention(q, k, v, causal):\n    {body}\n")
            row = self.row("a", "--guest", command, "--variants", "a", "--n", "64", "--force", code=1)
            self.assertEqual(row["status"], "crashed")
            self.assertIn(words, row["reason"])

    def test_printing_does_no_harm(self):
        command = self.write("a.py", "def attention(q, k, v, causal):\n    print('hello')\n    return v.copy()\n")
        self.assertEqual(self.row("a", "--guest", command, "--variants", "a", "--n", "64")["status"], "ok")

    def test_unknown_options_and_values_are_refused(self):
        command = self.write("a.py", MINE)
        self.refused("--guest", command, "--variants", "mine:width=3", say=["unknown option 'width'", "sharpness"])
        self.refused("--guest", command, "--variants", "mine:sharpness=much", say=["much"])
        self.refused("--guest", command, "--guest", command, "--variants", "mine", say=["another guest has brought"])


class Conformance(GuestCase):
    def verify(self, command, *arguments):
        return run("--verify", "--quiet", "--guest", command, *arguments)

    @unsanitized
    def test_numpy_conforms(self):
        done = self.verify(f"{sys.executable} {GUESTS / 'numpy_reference.py'}", "--variants", "full@numpy,linear@numpy")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertRegex(done.stdout, r"agreement +\d+ +2  holds")

    def test_the_guests_variants_are_tried_and_a_fault_is_found(self):
        command = f"{sys.executable} {FAULTY_GUEST} wrong"
        done = self.verify(command, "--property", "agreement,output,bounds", "--format", "json")
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        found = {v["variant"]: {f["property"]: f for f in v["findings"]} for v in json.loads(done.stdout)["variants"]}
        self.assertEqual(set(found), {"full@wrong", "faulty"})
        self.assertIn("error", found["full@wrong"]["agreement"]["failure"])
        self.assertIn("--guest", found["full@wrong"]["agreement"]["repeat"])
        self.assertIn("process of its own", found["faulty"]["bounds"]["none"])


if __name__ == "__main__":
    main()
