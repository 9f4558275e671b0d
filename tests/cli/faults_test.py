"""Whatever happens to a sweep: finished rows are never lost, never duplicated, never torn, and the exit code says what happened."""
import csv
import errno
import json
import os
import pathlib
import resource
import signal
import subprocess
import tempfile
import threading
import time
import unittest

from sanitizer import unsanitized

SWEEP = os.environ["ATTN_SWEEP"]
FAULTY = os.environ["ATTN_FAULTY"]
GRID = ["--variants", "copy_v,mean_v", "--n", "64,128,256"]
CELLS = {(variant, str(n)) for variant in ("copy_v", "mean_v") for n in (64, 128, 256)}
PACE = ["--samples", "2", "--rounds", "1", "--sample-time", "0.05", "--heads", "2", "--threads", "1", "--machine-root", "/none"]


def children(pid):
    try:
        return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.005)
    raise AssertionError("waited in vain")


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.out = self.folder / "a.csv"

    def start(self, *arguments, out=None, **options):
        process = subprocess.Popen([SWEEP, *PACE, *(arguments or GRID), "--out", str(out or self.out)], text=True,
                                   **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options})
        self.addCleanup(process.kill)
        return process

    def finish(self, process):
        stdout, stderr = process.communicate(timeout=300)
        return process.returncode, stdout, stderr

    def run_sweep(self, *arguments, **options):
        return self.finish(self.start(*arguments, **options))

    def rows(self, path=None):
        """Rows of a file that must be whole: no torn line, no duplicate."""
        text = pathlib.Path(path or self.out).read_text()
        self.assertTrue(text.endswith("\n"))
        rows = list(csv.DictReader(text.splitlines()))
        for row in rows:
            self.assertNotIn(None, row.values())
            self.assertNotIn(None, row)
        keys = [(row["variant"], row["options"], row["q_len"]) for row in rows]
        self.assertEqual(len(keys), len(set(keys)))
        return rows

    def has_rows(self, count):
        return lambda: self.out.exists() and self.out.read_text().count("\n") > count

    def check_resumes(self, *arguments):
        before = self.rows()
        code, _, stderr = self.run_sweep(*GRID, "--resume", *arguments)
        self.assertEqual(code, 0, stderr)
        after = self.rows()
        self.assertEqual(after[:len(before)], before)
        self.assertEqual({(row["variant"], row["q_len"]) for row in after if row["status"] == "ok"}, CELLS)


class Workers(Case):
    def killed_by(self, number):
        process = self.start("--plugin", FAULTY, "--variants", "faulty:how=hang,copy_v", "--n", "64")
        self.addCleanup(process.communicate)

        wait_for((self.folder / "a.context.json").exists)  # the machine's peaks are measured

        def hanging():  # the only one that lives for a second
            for child in children(process.pid):
                time.sleep(1)
                if child in children(process.pid) and b"--worker" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes():
                    return child
            return None

        os.kill(wait_for(hanging), number)
        process.wait(120)
        return process.returncode, {row["variant"]: row for row in self.rows()}

    def test_a_worker_killed_from_outside_ends_its_row_alone(self):
        code, rows = self.killed_by(signal.SIGTERM)
        self.assertEqual((code, rows["faulty"]["status"], rows["copy_v"]["status"]), (1, "crashed", "ok"))
        self.assertIn("signal 15", rows["faulty"]["reason"])

    def test_a_worker_that_the_kernel_kills_is_out_of_memory(self):
        code, rows = self.killed_by(signal.SIGKILL)
        self.assertEqual((code, rows["faulty"]["status"], rows["copy_v"]["status"]), (0, "out_of_memory", "ok"))

    def plugin(self, how, *arguments):
        code, _, stderr = self.run_sweep("--plugin", FAULTY, "--variants", f"faulty:how={how},copy_v", "--n", "64", *arguments)
        rows = {row["variant"]: row for row in self.rows()}
        self.assertEqual(rows["copy_v"]["status"], "ok", stderr)
        return code, rows["faulty"]

    def test_a_spinning_plugin_is_timed_out(self):
        self.assertEqual(self.plugin("spin", "--timeout", "2")[1]["status"], "timed_out")

    def test_a_plugin_that_closes_stderr_is_measured(self):
        code, row = self.plugin("deaf")
        self.assertEqual((code, row["status"]), (0, "ok"))

    def test_a_plugin_that_starts_a_process_is_measured_and_leaves_none_behind(self):
        code, row = self.plugin("fork")
        self.assertEqual((code, row["status"]), (0, "ok"))
        # Killed with their worker; hundreds take a moment to go.
        left = ["pgrep", "-f", f"^/proc/self/exe --worker cell {FAULTY}$"]
        wait_for(lambda: subprocess.run(left, capture_output=True, text=True).stdout == "", seconds=20)

    def test_a_plugin_that_exits_or_throws_ends_its_row(self):
        for how, words in (("leave", "no answer"), ("raise", "thrown on purpose")):
            self.out.unlink(missing_ok=True)
            code, row = self.plugin(how)
            self.assertEqual((code, row["status"]), (1, "crashed"))
            self.assertIn(words, row["reason"])


class Memory(Case):
    HOG = ["--plugin", FAULTY, "--variants", "faulty:how=hog,copy_v", "--n", "64"]

    def check(self, code, stderr):
        self.assertEqual(code, 0, stderr)
        self.assertEqual({row["variant"]: row["status"] for row in self.rows()}, {"faulty": "out_of_memory", "copy_v": "ok"})

    @unsanitized
    def test_a_limit_on_the_whole_sweep_ends_the_rows_that_meet_it(self):
        limit = 2 << 30
        code, _, stderr = self.run_sweep(*self.HOG, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)))
        self.check(code, stderr)

    def test_a_cgroup_s_limit_ends_the_rows_that_meet_it(self):
        places = (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"))  # version 2, version 1
        roots = [(pathlib.Path(root), limit) for root, limit in places if (pathlib.Path(root) / "cgroup.procs").exists()]
        why = "no cgroup file system"
        for root, limit in roots:
            group = root / f"attnbench_test_{os.getpid()}"
            try:
                group.mkdir()
                self.addCleanup(group.rmdir)
                (group / limit).write_text(str(768 << 20))
                break
            except OSError as error:
                why = error
        else:
            self.skipTest(f"unsupported: no memory cgroup can be made here ({why}); the RLIMIT test stands")
        code, _, stderr = self.run_sweep(*self.HOG, "--memory-limit", "64G",
                                         preexec_fn=lambda: (group / "cgroup.procs").write_text(str(os.getpid())))
        self.check(code, stderr)


class Outputs(Case):
    FULL = 6  # exit code: an output could not be written

    def test_a_full_disk_keeps_the_finished_rows_and_resumes(self):
        small = self.folder / "small"
        small.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(small)], capture_output=True, text=True)
        if mounted.returncode != 0:
            self.skipTest(f"unsupported: no tmpfs can be mounted here ({mounted.stderr.strip()}); the RLIMIT_FSIZE test stands")
        self.addCleanup(subprocess.run, ["umount", str(small)], check=True)
        self.out = small / "a.csv"
        process = self.start()
        wait_for(self.has_rows(2))
        with open(small / "ballast", "wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(b"x" * 512)
            except OSError as error:
                self.assertEqual(error.errno, errno.ENOSPC)
        code, _, stderr = self.finish(process)
        self.assertEqual(code, self.FULL, stderr)
        self.assertIn("No space left", stderr)
        self.assertGreaterEqual(len(self.rows()), 2)
        (small / "ballast").unlink()
        self.check_resumes()

    def test_a_file_that_may_grow_no_further_keeps_its_rows_and_resumes(self):
        process = self.start()
        wait_for(self.has_rows(2))
        size = self.out.stat().st_size + 100  # the next row is torn by the kernel
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        code, _, stderr = self.finish(process)
        self.assertEqual(code, self.FULL, stderr)
        self.assertIn("--resume", stderr)
        self.assertGreaterEqual(len(self.rows()), 2)
        self.check_resumes()

    def test_an_output_that_becomes_unwritable_keeps_its_rows_and_resumes(self):
        process = self.start()
        wait_for(self.has_rows(2))
        frozen = subprocess.run(["chattr", "+i", str(self.out)], capture_output=True, text=True)
        if frozen.returncode != 0:
            self.finish(process)
            self.skipTest(f"unsupported: no file can be made immutable here ({frozen.stderr.strip()}); the RLIMIT_FSIZE test stands")
        code, _, stderr = self.finish(process)
        subprocess.run(["chattr", "-i", str(self.out)], check=True)
        if code == 0:
            self.skipTest("unsupported: this file system lets open files grow that are immutable; the RLIMIT_FSIZE test stands")
        self.assertEqual(code, self.FULL, stderr)
        self.check_resumes()

    def test_rows_go_to_dev_full_nowhere_and_that_is_said(self):
        code, _, stderr = self.run_sweep(*GRID, "--force", out="/dev/full")
        self.assertEqual(code, 2, stderr)
        self.assertIn("/dev/full", stderr)

    def test_a_reader_of_stdout_that_leaves_does_not_end_the_sweep(self):
        process = self.start()
        process.stdout.close()
        process.stderr.read()
        process.wait(300)
        self.assertEqual(len(self.rows()), len(CELLS))
        self.assertEqual(process.returncode, self.FULL)

    def test_a_closed_stderr_does_not_end_the_sweep(self):
        command = f"exec {SWEEP} {' '.join(PACE + GRID)} --out {self.out} 2>&-"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0)
        self.assertEqual(len(self.rows()), len(CELLS))

    def test_stdout_on_a_full_disk_does_not_end_the_sweep_and_is_said(self):
        with open("/dev/full", "w") as full:
            code, _, stderr = self.run_sweep(*GRID, stdout=full)
        self.assertEqual(len(self.rows()), len(CELLS))
        self.assertEqual(code, self.FULL, stderr)
        self.assertIn("stdout", stderr)


class Signals(Case):
    def test_sigterm_keeps_the_finished_rows_exits_130_and_resumes(self):
        process = self.start()
        wait_for(self.has_rows(2))
        process.terminate()
        code, _, stderr = self.finish(process)
        self.assertEqual(code, 130)
        self.assertIn("--resume", stderr)
        self.assertEqual(children(process.pid), [])
        self.check_resumes()

    def test_many_kills_and_resumes_lose_and_repeat_nothing(self):
        arguments = GRID
        for rows in (1, 3):
            process = self.start(*arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_for(self.has_rows(rows))
            process.kill()
            process.wait()
            arguments = [*GRID, "--resume"]
        text = self.out.read_text()
        self.out.write_text(text[:text.rfind("\n") + 1] + "1,copy_v,")  # torn by the last kill
        code, _, stderr = self.run_sweep(*GRID, "--resume")
        self.assertEqual(code, 0, stderr)
        self.assertEqual({(row["variant"], row["q_len"]) for row in self.rows()}, CELLS)


class Jsonl(Case):
    def test_a_resumed_sweep_has_every_row_in_its_json_lines_once(self):
        jsonl = self.folder / "a.jsonl"
        process = self.start(*GRID, "--jsonl", str(jsonl))
        wait_for(self.has_rows(2))
        process.kill()
        process.communicate()
        with open(jsonl, "a") as file:
            file.write('{"torn": ')
        self.check_resumes("--jsonl", str(jsonl))
        lines = [json.loads(line) for line in jsonl.read_text().splitlines()]
        self.assertEqual([(line["variant"], line["q_len"], line["time_median_s"]) for line in lines],
                         [(row["variant"], int(row["q_len"]), float(row["time_median_s"])) for row in self.rows()])


class Sharing(Case):
    def test_a_second_sweep_on_one_output_is_refused_whatever_it_asks_for(self):
        process = self.start()
        wait_for(self.out.exists)
        context = wait_for(lambda: (self.folder / "a.context.json").exists() and (self.folder / "a.context.json").read_text())
        for mode in ("--resume", "--force"):
            code, _, stderr = self.run_sweep(*GRID, mode)
            self.assertEqual(code, 2)
            self.assertIn("another sweep", stderr)
        self.assertEqual((self.folder / "a.context.json").read_text(), context)
        self.assertEqual(self.finish(process)[0], 0)
        self.assertEqual({(row["variant"], row["q_len"]) for row in self.rows()}, CELLS)

    def test_sweeps_started_together_leave_one_whole_file(self):
        results = []
        threads = [threading.Thread(target=lambda: results.append(self.run_sweep(*GRID)[0])) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(results), [0, 2, 2])
        self.assertEqual({(row["variant"], row["q_len"]) for row in self.rows()}, CELLS)

    def test_sweeps_without_a_name_started_together_each_have_a_file(self):
        processes = [subprocess.Popen([SWEEP, *PACE, *GRID], cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                     for _ in range(3)]
        for process in processes:
            self.assertEqual(self.finish(process)[0], 0)
        files = sorted((self.folder / "results").glob("sweep-*.csv"))
        self.assertEqual(len(files), 3)
        for file in files:
            self.assertEqual({(row["variant"], row["q_len"]) for row in self.rows(file)}, CELLS)

    def test_a_folder_that_takes_no_results_is_named_and_ends_with_6(self):
        for program in (SWEEP, SWEEP.replace("attn_sweep", "attn_train")):
            end = subprocess.run([program, "--variants", "full"], cwd="/proc", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 timeout=60)
            self.assertEqual(end.returncode, 6, end.stderr)
            self.assertIn("making the folder 'results' failed", end.stderr)


if __name__ == "__main__":
    unittest.main()
