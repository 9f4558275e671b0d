"""What attn_sweep says before it measures: memory and time of each cell; shapes of models that people know."""
import unittest

import numpy

from sweep_case import Case, FAULTY, rows_of, run


class Foreseen(Case):
    def test_a_dry_run_tells_memory_and_time_of_each_cell(self):
        done = run("--dry-run", "--variants", "full,full@unfused,linformer", "--n", "1024", "--heads", "8", "--causal")
        self.assertEqual(done.returncode, 0, done.stderr)
        head, full, unfused, linformer, end = done.stdout.splitlines()
        self.assertRegex(full, r"^  full: 8\.\d+ MiB \(inputs 8 MiB, workspace .* KiB\); about .* m?s$")
        self.assertRegex(unfused, r"^  full@unfused: .* \(inputs 8 MiB, workspace [\d.]+ MiB\); about ")
        self.assertRegex(linformer, r"^  linformer:.*: linformer has no causal form")
        self.assertRegex(end, r"^3 cells, about [\d.]+ m?s, at most [\d.]+ MiB at a time$")

    def test_the_state_of_a_decode_is_foretold_as_it_is_measured(self):
        decode = ["--variants", "full,linear", "--pass", "decode", "--n", "2048", "--heads", "2"]
        said = run("--dry-run", *decode).stdout
        self.assertIn("state 2 MiB", said)  # 2048 keys and values of 2 heads of 64
        self.assertEqual(self.sweep(*decode).returncode, 0)
        self.assertEqual({row["variant"]: row["state_bytes"] for row in rows_of(self.out)}["full"], str(2 << 20))

    def test_the_list_tells_memory_of_every_variant(self):
        done = run("--list", "--n", "512", "--heads", "2")
        self.assertEqual(done.returncode, 0, done.stderr)
        _, _, needs = done.stdout.partition("memory and time of a cell at q_len=512")
        self.assertRegex(needs, r"\n  full: [\d.]+ MiB \(inputs 1 MiB")
        self.assertRegex(needs, r"\n  performer:.*: .*parameters [\d.]+ .*workspace [\d.]+")

    def test_a_killed_row_tells_what_it_needs(self):
        done = self.sweep("--variants", "full@unfused", "--n", "4096", "--memory-limit", "128M", "--threads", "1")
        (row,) = rows_of(self.out)
        self.assertEqual((done.returncode, row["status"]), (5, "out_of_memory"), done.stderr)
        self.assertRegex(row["reason"], r"; it needs [\d.]+ MiB \(inputs 8 MiB, workspace [\d.]+ MiB\)$")

    def test_a_row_that_takes_too_long_tells_how_long_it_would(self):
        self.sweep("--plugin", FAULTY, "--variants", "faulty:how=hang", "--n", "64", "--timeout", "1")
        (row,) = rows_of(self.out)
        self.assertRegex(row["reason"], r"^no answer within --timeout 1 s; by its cost a run takes about .* us, and a round .* m?s$")

    def test_an_inaccurate_row_names_query_and_keys(self):
        self.sweep("--plugin", FAULTY, "--variants", "faulty:how=shifted", "--n", "64")
        (row,) = rows_of(self.out)
        self.assertEqual(row["status"], "inaccurate")
        self.assertRegex(row["reason"], r"\(whole\); worst at batch 0, head \d, query \d+, .*; query (\d+) weighs key \d+ \(1\), which the "
                                        r"definition does not and does not weigh key \1 \(1\), which the definition does$")


class Shapes(Case):
    def test_a_shape_sets_heads_widths_and_causality_and_rows_name_it(self):
        done = self.sweep("--variants", "copy_v", "--n", "64", "--shape", "bert-base")
        self.assertEqual(done.returncode, 2)  # the case's --heads 2
        self.assertIn("--heads 2 is given, --shape bert-base has 12; accepted: one of them", done.stderr)
        done = run("--variants", "copy_v", "--n", "64", "--shape", "bert-base,qwen3-0.6b", "--samples", "1", "--rounds", "1",
                   "--sample-time", "0", "--machine-root", "/none", "--out", self.out)
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = [[row[axis] for axis in ("shape", "heads", "kv_heads", "head_dim", "value_dim", "causal")] for row in rows_of(self.out)]
        self.assertEqual(rows, [["bert-base", "12", "12", "64", "64", "0"], ["qwen3-0.6b", "16", "8", "128", "128", "1"]])
        self.assertIn("--shape qwen3-0.6b", rows_of(self.out)[1]["command"])

    def test_layers_with_a_window_are_local_attention_beside_the_others(self):
        said = run("--dry-run", "--variants", "full", "--n", "64", "--shape", "gemma-3-1b").stdout
        self.assertIn("heads=4 kv_heads=1 head_dim=256", said)
        self.assertIn("  local:left=511,right=0,sinks=0: ", said)

    def test_the_list_of_shapes_tells_their_source(self):
        said = run("--list", "shapes").stdout
        self.assertRegex(said, r"\nllama-3-8b +32 +8 +128 +yes +-  32; config.json of meta-llama/Meta-Llama-3-8B\n")

    def test_bad_shapes(self):
        self.refused("--shape", "lama-3-8b", say=("'lama-3-8b' is no known shape, did you mean 'llama-3-8b'?", "--list shapes"))
        file = self.folder / "x.npy"
        numpy.save(file, numpy.ones((2, 48, 8), numpy.float32))
        self.refused("--shape", "bert-base", "--n", "32", "--input", f"npy:{file},{file},{file}", say=("has a shape of its own",))


if __name__ == "__main__":
    unittest.main()
