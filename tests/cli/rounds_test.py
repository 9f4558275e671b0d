"""What a row keeps of its rounds, and what its memory is a figure of."""
import unittest

from sanitizer import unsanitized
from sweep_case import FAULTY, Case, rows_of, run

MIB = 1 << 20


class Rounds(Case):
    def test_a_cell_that_the_budget_ends_amid_its_rounds_keeps_those_behind_it(self):
        for seconds in ("3", "10", "30"):  # a loaded machine may take more than some to measure its peaks, before the first cell
            done = run("--variants", "copy_v", "--n", "64", "--heads", "2", "--machine-root", "/none", "--samples", "3", "--rounds", "3",
                       "--sample-time", seconds, "--budget", seconds, "--out", self.out, "--force")
            row, = rows_of(self.out)
            if row["status"] != "skipped_budget":
                break
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((row["status"], row["samples"]), ("ok", "1"))
        self.assertEqual(float(row["samples_s"]), float(row["time_median_s"]))

    def test_a_cell_that_is_not_steady_gets_more_samples_up_to_a_cap(self):
        """Single runs of a microsecond differ by more than a hundredth of a per cent."""
        done = run("--variants", "copy_v", "--n", "64", "--heads", "2", "--machine-root", "/none", "--samples", "6", "--rounds", "2",
                   "--sample-time", "0", "--steady", "0.01", "--out", self.out, "--force")
        row, = rows_of(self.out)
        self.assertEqual((done.returncode, row["samples"]), (0, "9"), done.stderr)
        self.assertIn("[3/3]", done.stderr)
        self.sweep("--variants", "copy_v", "--n", "64", "--samples", "6", "--rounds", "2", "--force")
        row, = rows_of(self.out)
        self.assertEqual(row["samples"], "6")

    @unsanitized
    def test_memory_is_the_peak_of_a_run_and_not_of_what_came_before_or_is_left(self):
        """192 MiB are taken and given back when it is planned, 96 MiB in a run."""
        done = self.sweep("--plugin", FAULTY, "--variants", "faulty:how=churn", "--n", "64")
        self.assertEqual(done.returncode, 0, done.stderr)
        row, = rows_of(self.out)
        self.assertEqual(row["status"], "ok", row["reason"])
        self.assertGreater(int(row["peak_rss_bytes"]), 90 * MIB)
        self.assertLess(int(row["peak_rss_bytes"]), 150 * MIB)


if __name__ == "__main__":
    unittest.main()
