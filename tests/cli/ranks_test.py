"""Sequences over ranks: gated, clocked and counted like any variant; whatever a rank does wrong costs one row, with a reason in time."""
import pathlib
import subprocess
import time
import unittest

from sweep_case import FAULTY, Case, rows_of

# One thread a rank, on whatever cores there are: nothing here is about time.
RANKS = ["--threads", "1", "--heads", "4", "--head-dim", "16", "--no-pin", "--fidelity", "none", "--samples", "1"]


def left_behind():
    return subprocess.run(["pgrep", "-f", "attn_rank --worker"], capture_output=True, text=True).stdout


class RanksCase(Case):
    def rows(self, *arguments, code=0):
        done = self.sweep(*RANKS, *arguments)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return rows_of(self.out)


class Measured(RanksCase):
    def test_every_scheme_passes_the_gate_and_sends_what_its_formula_says(self):
        rows = self.rows("--variants", "full@ring,linear@scan,local@halo:left=16,right=16,full@ulysses", "--n", "301", "--ranks", "3",
                         "--causal", "both")
        self.assertEqual([row["status"] for row in rows], ["ok"] * 8, [row["reason"] for row in rows])
        for row in rows:
            self.assertEqual((row["err_scope"], row["ranks"]), ("whole", "3"))
            self.assertGreater(int(row["rank_sent_bytes"]), 0)
            self.assertEqual(row["rank_sent_bytes"], row["rank_sent_bytes_formula"])
            self.assertEqual(row["rank_messages"], row["rank_messages_formula"])
            self.assertGreater(float(row["time_median_s"]), 0)
            self.assertGreaterEqual(float(row["rank_imbalance"]), 1)
            self.assertIn("--ranks 3", row["command"])
        ring = [row for row in rows if row["implementation"] == "ring"]
        # K and V of the 201 or 200 tokens that a rank does not keep: 4 heads of 16 numbers each
        self.assertEqual({row["rank_sent_bytes"] for row in ring}, {str(201 * 2 * 4 * 16 * 4)})

    def test_empty_shards_and_bf16(self):
        rows = self.rows("--variants", "full@ring,linear@scan,local@halo", "--n", "3", "--ranks", "4", "--dtype", "f32,bf16")
        self.assertEqual([row["status"] for row in rows], ["ok"] * 6, [row["reason"] for row in rows])

    def test_one_rank_has_the_output_of_the_single_process(self):
        saved = self.folder / "saved"
        self.rows("--variants", "full,full@ring,linear,linear@scan,local,local@halo,full@ulysses", "--n", "200", "--save-output",
                  str(saved))
        rows = {row["name"]: pathlib.Path(row["output_file"]).read_bytes() for row in rows_of(self.out)}
        for name in ("full@ring", "linear@scan", "local@halo", "full@ulysses"):
            self.assertEqual(rows[name], rows[name.split("@")[0]], name)

    def test_memory_of_a_rank_falls_with_their_number(self):
        rows = self.rows("--variants", "full@ring", "--n", "2048", "--ranks", "2,4", "--samples", "1")
        self.assertEqual([row["status"] for row in rows], ["ok"] * 2, [row["reason"] for row in rows])
        held = {row["ranks"]: int(row["rank_held_bytes"]) for row in rows}
        shard = 2048 // 4 * 4 * 16 * 4  # of one of Q, K, V and the output, on four ranks; a ring holds K and V twice more
        self.assertAlmostEqual(held["2"] - held["4"], 8 * shard, delta=0.1 * 8 * shard)

    def test_a_step_of_a_decode(self):
        row, = self.rows("--variants", "full@tree", "--n", "301", "--ranks", "2", "--pass", "decode")
        self.assertEqual((row["status"], row["rank_messages"], row["rank_sent_bytes"]), ("ok", "1", str(4 * (16 + 1) * 4)), row["reason"])


class Refused(RanksCase):
    def test_more_ranks_than_heads_and_variants_that_compute_in_one_process(self):
        rows = {row["name"]: row for row in self.rows("--variants", "full@ulysses,full", "--n", "64", "--ranks", "5", code=5)}
        self.assertEqual({row["status"] for row in rows.values()}, {"unsupported"})
        self.assertIn("takes at most kv_heads=4 ranks, not 5", rows["full@ulysses"]["reason"])
        self.assertIn("full computes in one process: takes --ranks 1 (given: 5)", rows["full"]["reason"])

    def test_a_launcher_that_is_not_there(self):
        row, = self.rows("--variants", "full@ring", "--n", "64", "--ranks", "2", "--launcher", "no_such_mpirun", code=1)
        self.assertEqual(row["status"], "crashed")
        self.assertIn("no_such_mpirun cannot be started: No such file or directory", row["reason"])


class Faults(RanksCase):
    """Of the second of two ranks: one row each, with a reason, and the sweep goes on."""

    def test_a_rank_is_killed_hangs_throws_or_sees_another_problem(self):
        hows = ("rank_killed", "rank_hangs", "rank_raises", "rank_differs")
        begin = time.monotonic()
        rows = self.rows("--plugin", FAULTY, "--variants", ",".join(f"faulty@ulysses:how={how}" for how in (*hows, "none")), "--n", "64",
                         "--ranks", "2", "--timeout", "10", code=1)
        self.assertLess(time.monotonic() - begin, 120)
        self.assertEqual(left_behind(), "")
        self.assertEqual(len(rows), 5)
        rows = {row["options"].removeprefix("how="): row for row in rows}
        self.assertEqual({how: rows[how]["status"] for how in (*hows, "none")},
                         {"rank_killed": "crashed", "rank_hangs": "timed_out", "rank_raises": "crashed", "rank_differs": "crashed", "none": "ok"})
        self.assertIn("process rank 1", rows["rank_killed"]["reason"])
        self.assertIn("signal 9", rows["rank_killed"]["reason"])
        self.assertRegex(rows["rank_hangs"]["reason"], "^no answer within --timeout 10 s; by its cost a run takes about")
        self.assertIn("rank 1 exception: thrown on purpose", rows["rank_raises"]["reason"])
        self.assertIn("rank 1 sees another problem: ", rows["rank_differs"]["reason"])
        self.assertIn(", own 1", rows["rank_differs"]["reason"])


if __name__ == "__main__":
    unittest.main()
