"""Sequences over ranks: gated, clocked and counted like any variant; whatever a rank does wrong costs one row, with a reason in time."""
import subprocess
import time
import unittest

from sweep_case import FAULTY, Case, rows_of

# One thread a rank, on whatever cores there are: nothing here is about time.
RANKS = ["--threads", "1", "--heads", "4", "--head-dim", "16", "--no-pin", "--fidelity", "none"]


def left_behind():
    return subprocess.run(["pgrep", "-f", "attn_rank --worker"], capture_output=True, text=True).stdout


class RanksCase(Case):
    def rows(self, *arguments, code=0):
        done = self.sweep(*RANKS, *arguments)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return rows_of(self.out)

    def row(self, *arguments, code=1):
        row, = self.rows(*arguments, code=code)
        return row


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
        rows = {row["name"]: open(row["output_file"], "rb").read() for row in rows_of(self.out)}
        for name in ("full@ring", "linear@scan", "local@halo", "full@ulysses"):
            self.assertEqual(rows[name], rows[name.split("@")[0]], name)

    def test_memory_of_a_rank_falls_with_their_number(self):
        held = {row["ranks"]: int(row["rank_held_bytes"])
                for row in self.rows("--variants", "full@ring", "--n", "8192", "--ranks", "2,4", "--samples", "1")}
        shard = 8192 // 4 * 4 * 16 * 4  # of one of Q, K, V and the output, on four ranks; a ring holds K and V twice more
        self.assertAlmostEqual(held["2"] - held["4"], 8 * shard, delta=0.1 * 8 * shard)


class Refused(RanksCase):
    def test_more_ranks_than_heads(self):
        row = self.row("--variants", "full@ulysses", "--n", "64", "--ranks", "5", code=5)
        self.assertEqual(row["status"], "unsupported")
        self.assertIn("takes at most kv_heads=4 ranks, not 5", row["reason"])

    def test_variants_that_compute_in_one_process(self):
        row = self.row("--variants", "full", "--n", "64", "--ranks", "2", code=5)
        self.assertEqual(row["status"], "unsupported")
        self.assertIn("full computes in one process: takes --ranks 1 (given: 2)", row["reason"])

    def test_a_launcher_that_is_not_there(self):
        row = self.row("--variants", "full@ring", "--n", "64", "--ranks", "2", "--launcher", "no_such_mpirun")
        self.assertEqual(row["status"], "crashed")
        self.assertIn("no_such_mpirun cannot be started: No such file or directory", row["reason"])


class Faults(RanksCase):
    def fault(self, how, *arguments):
        begin = time.monotonic()
        rows = self.rows("--plugin", FAULTY, "--variants", f"faulty@ulysses:how={how},copy_v", "--n", "64", "--ranks", "2",
                         "--timeout", "10", *arguments, code=1 if how != "rank_hangs" else 5)
        self.assertLess(time.monotonic() - begin, 60)
        self.assertEqual(left_behind(), "")
        self.assertEqual(len(rows), 2)
        return rows[0]

    def test_a_rank_that_is_killed(self):
        row = self.fault("rank_killed")
        self.assertEqual(row["status"], "crashed")
        self.assertIn("process rank 1", row["reason"])
        self.assertIn("signal 9", row["reason"])

    def test_a_rank_that_hangs(self):
        row = self.fault("rank_hangs", "--timeout", "4")
        self.assertEqual((row["status"], row["reason"]), ("timed_out", "no answer within --timeout 4 s"))

    def test_a_rank_that_throws(self):
        row = self.fault("rank_raises")
        self.assertEqual(row["status"], "crashed")
        self.assertIn("rank 1 exception: thrown on purpose", row["reason"])

    def test_ranks_that_see_different_problems(self):
        row = self.fault("rank_differs")
        self.assertEqual(row["status"], "crashed")
        self.assertIn("rank 1 sees another problem: ", row["reason"])
        self.assertIn(", own 1", row["reason"])


if __name__ == "__main__":
    unittest.main()
