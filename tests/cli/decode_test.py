"""attn_sweep --pass decode and --cache: steps, cold runs, roofs, and what a user may get wrong."""
import subprocess

from cases import alone, main
from sanitizer import unsanitized
from sweep_case import Case, SWEEP, rows_of, run


class Decodes(Case):
    def test_a_step_is_gated_and_timed_on_a_state_of_its_context(self):
        done = self.sweep("--variants", "full,linear", "--n", "64,2000", "--pass", "decode", "--step", "1,3")
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = {(row["variant"], row["q_len"], row["step"]): row for row in rows_of(self.out)}
        self.assertEqual(len(rows), 8)
        for (variant, context, step), row in rows.items():
            self.assertEqual((row["status"], row["kv_len"], row["causal"], row["err_scope"]), ("ok", context, "1", "whole"))
            time, append = float(row["time_median_s"]), float(row["append_s"])
            self.assertGreater(append, 0)
            if (variant, context) == ("full", "2000"):  # whose answers take a hundred times as long
                self.assertLess(append, time)
            self.assertAlmostEqual(float(row["tokens_per_s"]) * time / int(step), 1, places=4)
            self.assertIn(f"--n {context} ", row["command"])
            self.assertEqual("--step 3" in row["command"], step == "3")
            self.assertNotIn("--kv-len", row["command"])
            self.assertEqual(row["meters_agree"], "1")
        # Two heads of keys and values; sums of 64 features by 64 and their total.
        self.assertEqual(int(rows["full", "2000", "1"]["state_bytes"]), 2000 * 2 * (64 + 64) * 4)
        self.assertEqual(int(rows["linear", "2000", "1"]["state_bytes"]), 2 * (64 * 64 + 64) * 4)
        self.assertEqual(rows["linear", "2000", "1"]["flops"], rows["linear", "64", "1"]["flops"])
        self.assertEqual(rows["linear", "2000", "1"]["bytes"], rows["linear", "64", "1"]["bytes"])
        self.assertGreater(int(rows["linear", "64", "1"]["bytes"]), 2 * int(rows["linear", "64", "1"]["state_bytes"]))
        self.assertGreater(float(rows["full", "2000", "1"]["bytes"]), float(rows["full", "64", "1"]["bytes"]) * 20)

    def test_its_command_repeats_it(self):
        self.sweep("--variants", "full", "--n", "100", "--pass", "decode", "--step", "2")
        (row,) = rows_of(self.out)
        again = str(self.folder / "again.csv")
        done = subprocess.run(row["command"].replace("attn_sweep", SWEEP, 1) + f" --out {again}", shell=True, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        (repeated,) = rows_of(again)
        for column in ("q_len", "kv_len", "step", "pass", "causal", "err_max_abs", "state_bytes"):
            self.assertEqual(row[column], repeated[column], column)

    def test_what_does_not_decode_is_a_row_with_the_reason(self):
        done = self.sweep("--variants", "full,linformer", "--n", "64", "--pass", "decode")
        rows = {row["variant"]: row for row in rows_of(self.out)}
        self.assertEqual((done.returncode, rows["full"]["status"], rows["linformer"]["status"]), (0, "ok", "unsupported"))
        self.assertIn("no causal form", rows["linformer"]["reason"])

    def test_other_passes_have_none_of_its_columns(self):
        self.sweep("--variants", "full", "--n", "64", "--step", "1,5")
        (row,) = rows_of(self.out)
        self.assertEqual([row[column] for column in ("step", "append_s", "tokens_per_s", "state_bytes")], [""] * 4)
        self.assertNotIn("--step", row["command"])

    def test_steps_are_timed_beside_each_other_and_compared_with_softmax_attention(self):
        done = self.sweep("--variants", "performer:m=16", "--n", "300", "--pass", "decode", "--against", "full", "--fidelity", "full")
        rows = {row["variant"]: row for row in rows_of(self.out)}
        self.assertEqual(rows["full"]["status"], "ok", done.stderr)
        self.assertAlmostEqual(float(rows["full"]["fid_skill"]), 1, places=5)
        self.assertLess(float(rows["full"]["fid_matrix_relative"]), 1e-4)
        self.assertGreater(float(rows["full"]["ratio_median"]), 0)

    def test_a_layer_is_not_decoded(self):
        self.sweep("--variants", "full", "--n", "64", "--pass", "decode", "--scope", "layer")
        (row,) = rows_of(self.out)
        self.assertEqual((row["status"], row["reason"]),
                         ("unsupported", "a layer is timed whole, not in steps: --pass decode takes --scope mixer"))

    def test_keys_beside_its_context_are_refused(self):
        self.refused("--pass", "decode", "--n", "64", "--kv-len", "64", say=("--kv-len", "--n", "--step"))


class Caches(Case):
    def test_cold_runs_are_rows_of_their_own(self):
        done = self.sweep("--variants", "copy_v,full", "--n", "300", "--pass", "forward,decode", "--cache", "hot,cold", "--fidelity", "none")
        rows = {(row["variant"], row["pass"], row["cache"]): row for row in rows_of(self.out)}
        self.assertEqual(len(rows), 8, done.stderr)
        for (variant, kind, cache), row in rows.items():
            if (variant, kind) == ("copy_v", "decode") and row["status"] == "unsupported":
                continue
            self.assertEqual((row["status"], row["meters_agree"]), ("ok", "1"), row)
            self.assertEqual("--cache cold" in row["command"], cache == "cold")
            self.assertEqual(row["err_max_abs"], rows[variant, kind, "hot"]["err_max_abs"])
        for kind in ("forward", "decode"):
            hot, cold = (float(rows["full", kind, cache]["ideal_time_s"]) for cache in ("hot", "cold"))
            self.assertLessEqual(hot, cold)  # memory is no faster than a cache
        self.assertIn("cache=cold", done.stdout)

    @alone
    @unsanitized
    def test_a_cold_run_of_little_work_and_many_bytes_takes_longer(self):
        for _ in range(3):  # another program may disturb one of them
            self.sweep("--variants", "copy_v", "--n", "256", "--threads", "1", "--cache", "hot,cold", "--samples", "9", "--force")
            hot, cold = (min(float(row["time_min_s"]) for row in rows_of(self.out) if row["cache"] == cache) for cache in ("hot", "cold"))
            if cold > 1.3 * hot:
                return
        self.fail(f"hot {hot}, cold {cold}")

    @unsanitized
    def test_copies_that_do_not_fit_memory_are_refused(self):
        done = self.sweep("--variants", "full", "--n", "64", "--cache", "cold", "--memory-limit", "64M")
        (row,) = rows_of(self.out)
        self.assertEqual((done.returncode, row["status"]), (5, "unsupported"), row)
        self.assertRegex(row["reason"], r"^--cache cold: \d+ copies of \d+ bytes, more than four times a last-level cache of \d+, do not fit")

    def test_an_unknown_cache_is_refused(self):
        self.refused("--cache", "warm", say=("--cache", "warm", "hot, cold"))


class Batches(Case):
    def rows(self, *arguments, code=0):
        done = self.sweep(*arguments, "--batch", "3", "--fidelity", "none", "--force")
        self.assertEqual(done.returncode, code, done.stderr)
        return rows_of(self.out)

    def test_sequences_of_different_lengths_are_gated_and_cost_what_they_see(self):
        for kind in ("forward", "decode"):
            for lengths in ("equal", "zipf", "uniform:20..300"):
                for row in self.rows("--variants", "full,local:left=16", "--n", "300", "--pass", kind, "--causal", "yes", "--lengths", lengths):
                    self.assertEqual((row["status"], row["lengths"], row["kv_len"]), ("ok", lengths, "300"), row)
                    self.assertEqual("--lengths" in row["command"], lengths != "equal")
                    if (kind, row["variant"]) == ("decode", "full"):
                        tokens = {"equal": 900, "zipf": 300 + 150 + 100}.get(lengths)
                        heads, width = int(row["heads"]), int(row["head_dim"])
                        if tokens:
                            self.assertEqual(float(row["flops"]), 4 * heads * width * tokens)
                            self.assertEqual(float(row["bytes"]), 4 * (2 * 3 * heads * width + 2 * int(row["kv_heads"]) * width * tokens))
        self.assertEqual(row["fid_skill"], "")

    def test_keys_in_pages_are_rows_of_their_own(self):
        rows = self.rows("--variants", "full", "--n", "300", "--pass", "forward,decode", "--causal", "yes", "--kv-layout", "contiguous,paged:16",
                         "--lengths", "zipf", "--cache", "hot,cold")
        self.assertEqual(len(rows), 8)
        errors = {}
        for row in rows:
            self.assertEqual((row["status"], row["meters_agree"]), ("ok", "1"), row)
            self.assertEqual("--kv-layout paged:16" in row["command"], row["kv_layout"] == "paged:16")
            errors.setdefault((row["pass"], row["cache"]), set()).add(row["err_max_abs"])
        self.assertTrue(all(len(found) == 1 for found in errors.values()), errors)  # the same bits

    def test_a_file_gives_each_sequence_its_length(self):
        path = self.folder / "lengths.txt"
        path.write_text("7\n300\n41\n")
        (row,) = self.rows("--variants", "full", "--n", "300", "--pass", "decode", "--lengths", f"file:{path}")
        self.assertEqual((row["status"], float(row["flops"])), ("ok", 4 * int(row["heads"]) * int(row["head_dim"]) * 348), row)
        for text, say in (("7 300", "2 lengths are given for 3 sequences"), ("7 301 41", "a length of 301 is outside of 1..300"),
                          ("0 300 41", "a length of 0 is outside of 1..300"), ("-1 300 41", "a length of -1 is outside of 1..300"),
                          ("a 300 41", "'a' is not a whole number")):
            path.write_text(text)
            (row,) = self.rows("--variants", "full", "--n", "300", "--pass", "decode", "--lengths", f"file:{path}", code=5)
            self.assertEqual(row["status"], "unsupported")
            self.assertIn(say, row["reason"])

    def test_what_takes_one_length_or_keys_in_a_row_is_a_row_with_the_reason(self):
        reasons = {(row["variant"], row["lengths"]): row["reason"]
                   for row in self.rows("--variants", "linear,linformer", "--n", "64", "--lengths", "zipf", code=5)}
        self.assertIn("linear takes sequences of one length", reasons["linear", "zipf"])
        (row,) = self.rows("--variants", "linear", "--n", "64", "--kv-layout", "paged:16", code=5)
        self.assertIn("linear reads no keys from pages", row["reason"])

    def test_lengths_and_layouts_that_are_none_are_refused(self):
        self.refused("--lengths", "uniform:0..9", say=("--lengths", "LOW is 1 at least"))
        self.refused("--lengths", "uniform:9..-1", say=("--lengths", "no less than LOW"))
        self.refused("--lengths", "all", say=("--lengths", "equal, uniform:LOW..HIGH, zipf, file:PATH"))
        self.refused("--kv-layout", "paged", say=("--kv-layout", "contiguous, paged:TOKENS"))
        self.refused("--kv-layout", "paged:0", say=("--kv-layout", "paged:TOKENS with 1.."))


class BadInput(Case):
    def test_a_window_longer_than_the_context_is_the_context(self):
        done = self.sweep("--variants", "full,local:left=100000", "--n", "40", "--pass", "decode", "--step", "1,40")
        rows = {(row["variant"], row["step"]): row for row in rows_of(self.out)}
        self.assertEqual(done.returncode, 0, done.stderr)
        for step in ("1", "40"):
            for column in ("status", "state_bytes", "err_max_abs", "fid_skill", "flops"):
                self.assertEqual(rows["full", step][column], rows["local", step][column], column)

    def test_every_refusal_of_a_decode_names_its_mathematics(self):
        done = self.sweep("--variants", "all", "--n", "64", "--heads", "4", "--kv-heads", "2", "--head-dim", "16", "--pass", "decode", "--fidelity", "none")
        self.assertEqual(done.returncode, 0, done.stderr)
        reasons = {row["variant"]: row["reason"].partition(" (given")[0] for row in rows_of(self.out) if row["status"] != "ok"}
        for variant, reason in reasons.items():
            self.assertRegex(reason, r"has no causal form: |chooses by all tokens|the length of the whole sequence|changes whom the others see", variant)

    def test_a_context_of_nothing_and_a_step_of_nothing_are_refused(self):
        self.refused("--pass", "decode", "--n", "0", say=("--n: 0 is outside 1..",))
        self.refused("--pass", "decode", "--n", "4", "--step", "0", say=("--step: 0 is outside 1..",))

    def test_the_first_token_of_all_is_a_context_of_one(self):
        done = self.sweep("--variants", "full,linear", "--n", "1", "--pass", "decode")
        self.assertEqual([row["status"] for row in rows_of(self.out)], ["ok", "ok"], done.stderr)
        # The mean of V is the answer: nobody has skill.
        self.assertEqual({row["fid_skill"] for row in rows_of(self.out) if row["variant"] == "full"}, {"0"})

    def test_a_step_longer_than_the_context_is_a_row_with_the_reason(self):
        done = self.sweep("--variants", "full", "--n", "4,8", "--step", "6", "--pass", "decode")
        rows = {row["q_len"]: row for row in rows_of(self.out)}
        self.assertEqual((done.returncode, rows["8"]["status"], rows["4"]["status"]), (0, "ok", "unsupported"))
        self.assertIn("full takes steps of at most as many tokens as the context has", rows["4"]["reason"])
        self.assertEqual((rows["4"]["step"], rows["4"]["kv_len"]), ("6", "4"))

    def test_more_causal_queries_than_keys_are_defined_or_refused(self):
        done = self.sweep("--variants", "all", "--n", "40", "--kv-len", "24", "--causal", "yes", "--fidelity", "none")
        statuses = {row["variant"]: row for row in rows_of(self.out)}
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual({row["status"] for row in statuses.values()}, {"ok", "unsupported"})
        self.assertEqual(statuses["full"]["status"], "ok")  # rows before the first key are zero


@alone
class Roofs(Case):
    @unsanitized
    def test_no_run_is_faster_than_the_machine_allows(self):
        """Peaks that were measured while something else ran are too low: what exceeds them does so three times."""
        some = "full,local,linformer,performer,gated_delta,gru,mean_v"
        grids = [("forward", "hot", "1024", "all"), ("decode", "hot", "4096", "all"), ("forward", "hot", "64", some),
                 ("decode", "hot", "64", some), ("decode", "cold", "4096", some)]
        for kind, cache, length, names in grids:
            above = {}
            for attempt in range(3):
                done = self.sweep("--variants", names, "--n", length, "--pass", kind, "--cache", cache, "--threads", "1", "--fidelity", "none",
                                  "--samples", "3", "--force")
                self.assertIn(done.returncode, (0, 1), done.stderr)
                timed = [row for row in rows_of(self.out) if row["status"] == "ok"]
                self.assertTrue(timed)
                above = {row["variant"]: row for row in timed if float(row["roof_fraction"]) > 1.05}
                if not above:
                    break
                names = ",".join(sorted(above))
            told = [f"{row['variant']} n={row['q_len']}: {row['roof_fraction']} {row['roof_binds']}" for row in above.values()]
            self.assertEqual(told, [], (kind, cache, length))


if __name__ == "__main__":
    main()
