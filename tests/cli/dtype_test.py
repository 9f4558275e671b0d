"""--dtype and --kv-dtype: what is stored in fewer bits is gated, metered and told apart, and what a user may get wrong."""
import subprocess
import unittest

import numpy

from sweep_case import Case, SWEEP, rows_of, run


class NumberTypes(Case):
    def test_every_variant_is_ok_or_refused_with_a_reason(self):
        done = self.sweep("--variants", "all", "--n", "130", "--dtype", "bf16,f16", "--causal", "both", "--fidelity", "none")
        self.assertEqual(done.returncode, 0, done.stderr)
        for row in rows_of(self.out):
            self.assertIn(row["status"], ("ok", "unsupported"), row["variant"] + ": " + row["reason"])
            self.assertNotIn("dtype", row["reason"])

    def test_a_row_tells_what_it_was_stored_as_and_made_with(self):
        self.sweep("--variants", "full,relu", "--n", "300", "--dtype", "f32,bf16,f16", "--kv-dtype", "f32,bf16,q8")
        rows = {(row["variant"], row["dtype"], row["kv_dtype"]): row for row in rows_of(self.out)}
        self.assertEqual(len(rows), 18)
        for (variant, dtype, kv_dtype), row in rows.items():
            self.assertEqual(row["status"], "ok", row["reason"])
            self.assertEqual(row["storage_error"] == "", (dtype, kv_dtype) == ("f32", "f32"), row)
            self.assertIn(row["compute"], ("f32", "bf16_dot"))
            if variant == "relu" or dtype != kv_dtype or dtype != "bf16":
                self.assertEqual(row["compute"], "f32")
                self.assertLess(float(row["err_relative"]), 1e-5)  # of the definition of what was stored
        whole, half = rows["full", "f32", "f32"], rows["full", "bf16", "bf16"]
        inputs = 3 * 2 * 300 * 64
        self.assertEqual(float(whole["bytes"]) - float(half["bytes"]), 2 * inputs)
        self.assertEqual(float(whole["bytes"]) - float(rows["full", "f32", "q8"]["bytes"]), 2 * 2 * 300 * (64 * 4 - 68))
        errors = [float(rows["full", "f32", kv]["storage_error"]) for kv in ("bf16", "q8")]
        self.assertTrue(1e-4 < errors[0] < 1e-2 and 1e-4 < errors[1] < 3e-2, errors)
        # A page that reads floats has the copies in its workspace.
        more = int(rows["relu", "bf16", "bf16"]["workspace_bytes"]) - int(rows["relu", "f32", "f32"]["workspace_bytes"])
        self.assertGreaterEqual(more, 4 * inputs)

    def test_its_command_repeats_it(self):
        self.sweep("--variants", "full", "--n", "100", "--dtype", "f16", "--kv-dtype", "q8")
        (row,) = rows_of(self.out)
        self.assertIn("--dtype f16 --kv-dtype q8", row["command"])
        again = str(self.folder / "again.csv")
        done = subprocess.run(row["command"].replace("attn_sweep", SWEEP, 1) + f" --out {again}", shell=True, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        (repeated,) = rows_of(again)
        for column in ("dtype", "kv_dtype", "compute", "err_max_abs", "storage_error"):
            self.assertEqual(row[column], repeated[column], column)

    def test_a_cache_is_kept_in_its_type(self):
        self.sweep("--variants", "full,linear", "--n", "500", "--pass", "decode", "--kv-dtype", "f32,bf16,q8")
        kept = {(row["variant"], row["kv_dtype"]): int(row["state_bytes"]) for row in rows_of(self.out)}
        self.assertEqual([kept["full", kv] for kv in ("f32", "bf16", "q8")], [500 * 2 * 2 * bytes for bytes in (256, 128, 68)])
        self.assertEqual(len({kept["linear", kv] for kv in ("f32", "bf16", "q8")}), 1)  # sums stay f32
        for row in rows_of(self.out):
            self.assertEqual(row["status"], "ok", row["reason"])

    def test_what_no_type_or_no_row_holds_is_refused(self):
        for arguments, says in ((("--dtype", "fp8"), "--dtype: 'fp8' is no dtype; accepted: f32, bf16, f16, q8"),
                                (("--kv-dtype", "int4"), "--kv-dtype: 'int4' is no dtype")):
            done = self.sweep("--variants", "full", "--n", "64", *arguments)
            self.assertEqual(done.returncode, 2)
            self.assertIn(says, done.stderr)
        self.sweep("--variants", "full", "--n", "64", "--head-dim", "40", "--kv-dtype", "q8")
        (row,) = rows_of(self.out)
        self.assertEqual(row["status"], "unsupported")
        self.assertIn("multiples of 32", row["reason"])
        self.sweep("--variants", "full", "--n", "64", "--dtype", "q8", "--force")
        (row,) = rows_of(self.out)
        self.assertIn("no queries", row["reason"])

    def test_numbers_too_large_for_f16_are_a_refused_row_with_their_count(self):
        files = []
        for name in "qkv":
            array = numpy.random.default_rng(1).standard_normal((2, 96, 16)).astype(numpy.float32)
            if name == "k":
                array[0, :5, 3] = 7e4
            numpy.save(self.folder / f"{name}.npy", array)
            files.append(str(self.folder / f"{name}.npy"))
        self.sweep("--variants", "full", "--input", "npy:" + ",".join(files), "--dtype", "f32,bf16,f16")
        rows = {row["dtype"]: row for row in rows_of(self.out)}
        self.assertEqual([rows[dtype]["status"] for dtype in ("f32", "bf16", "f16")], ["ok", "ok", "unsupported"])
        self.assertIn("5 of the 3072 numbers of K are too large for f16", rows["f16"]["reason"])

    def test_the_doctor_says_what_the_machine_has_for_small_numbers(self):
        said = subprocess.run([SWEEP, "--doctor"], capture_output=True, text=True).stdout
        for topic in ("f16 conversion", "bf16 dot product", "AMX"):
            self.assertRegex(said, f"fine +{topic}: (there|none: )")


if __name__ == "__main__":
    unittest.main()
