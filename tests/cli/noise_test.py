"""A machine that is not alone: cells measured meanwhile are marked and measured again, and --doctor says what to do."""
import csv
import os
import pathlib
import subprocess
import tempfile
import threading
import time
import unittest

SWEEP = os.environ["ATTN_SWEEP"]
QUIET = "cpu  0 0 0 0 0 0 0 {} 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n"


class Noise(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "proc").mkdir()
        self.tell(0)
        (self.folder / "proc" / "loadavg").write_text("0.00 0.00 0.00 1/1 1\n")

    def tell(self, stolen):
        part = self.folder / "part"
        part.write_text(QUIET.format(stolen))
        part.rename(self.folder / "proc" / "stat")

    def sweep(self, *arguments):
        out = self.folder / "a.csv"
        done = subprocess.run([SWEEP, "--variants", "copy_v,mean_v", "--n", "64", "--samples", "2", "--rounds", "2", "--threads", "1",
                               "--sample-time", "0.05", "--machine-root", str(self.folder), "--out", str(out), "--force", *arguments],
                              capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done, list(csv.DictReader(out.read_text().splitlines()))

    def test_a_cell_that_lost_time_is_marked_and_measured_again_once(self):
        stop = threading.Event()

        def steal():  # half a processor
            begin = time.monotonic()
            while not stop.wait(0.002):
                self.tell(int((time.monotonic() - begin) * 50))

        thief = threading.Thread(target=steal)
        thief.start()
        try:
            _, rows = self.sweep()
        finally:
            stop.set()
            thief.join()
        for row in rows:
            self.assertEqual((row["status"], row["remeasured"]), ("ok", "2"))  # each of its two rounds
            self.assertIn("the hypervisor took 0.", row["disturbed"])
            self.assertEqual(row["samples"], "2")

    def test_what_others_did_before_the_sweep_is_said_and_marks_nothing(self):
        (self.folder / "proc" / "loadavg").write_text("9.00 0.00 0.00 1/1 1\n")
        self.tell(500)
        done, rows = self.sweep()
        self.assertIn("the load is 9.00", done.stderr)
        for row in rows:
            self.assertNotIn("hypervisor", row["disturbed"])

    def test_the_doctor_has_a_line_a_topic_with_why_and_what_to_do(self):
        (self.folder / "proc" / "loadavg").write_text("9.00 0.00 0.00 1/1 1\n")
        done = subprocess.run([SWEEP, "--doctor", "--machine-root", str(self.folder)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0)
        lines = done.stdout.splitlines()
        self.assertRegex(lines[0], r"^improve +load: 9\.00 .* Why: .* Do: ")
        self.assertIn("unknown  governor: unsupported: cannot read /sys/devices/system/cpu", done.stdout)
        self.assertRegex(lines[-1], r"^\d+ of 19 could be better$")

    def test_the_doctor_works_on_this_machine(self):
        done = subprocess.run([SWEEP, "--doctor"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("load: ", done.stdout)


if __name__ == "__main__":
    unittest.main()
