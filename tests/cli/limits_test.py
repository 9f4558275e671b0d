"""What limits a process (masks, quotas, OpenMP's variables, a missing /proc) is said, and measured around or refused with the reason."""
import csv
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import unittest

import numpy

os.environ.pop("ATTN_PEAKS", None)  # those of a machine with other limits
SWEEP, APPLY = os.environ["ATTN_SWEEP"], os.environ["ATTN_APPLY"]
QUICK = ["--variants", "copy_v", "--n", "64", "--samples", "2", "--rounds", "1", "--sample-time", "0.001", "--heads", "2", "--force"]
REFUSED_MASK = """
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
int sched_getaffinity(pid_t p, size_t n, cpu_set_t* set) { (void)p; (void)n; (void)set; errno = EPERM; return -1; }
"""


class LimitsSaid(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.out = self.folder / "a.csv"

    def sweep(self, *arguments, before=(), environment=None, **more):
        return subprocess.run([*before, SWEEP, *QUICK, "--out", str(self.out), *arguments], capture_output=True, text=True, timeout=300,
                              env={**os.environ, **(environment or {})}, **more)

    def rows(self):
        return list(csv.DictReader(self.out.read_text().splitlines()))

    def context(self):
        return json.loads(self.out.with_suffix(".context.json").read_text())

    def machine(self, **files):
        for path, text in {"proc/stat": "cpu  0 0 0 0 0 0 0 0 0 0\n", **files}.items():
            (self.folder / "machine" / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / "machine" / path).write_text(text)
        return str(self.folder / "machine")

    def test_openmp_s_binding_moves_no_thread(self):
        for variable, value in (("OMP_PLACES", "cores"), ("OMP_PROC_BIND", "true"), ("GOMP_CPU_AFFINITY", "0")):
            done = self.sweep("--threads", "1", environment={variable: value})
            self.assertEqual(done.returncode, 0, done.stderr)
            context = self.context()
            self.assertEqual(context["environment_dropped"], [f"{variable}={value}"])
            self.assertNotIn(variable, context["environment"])
            self.assertEqual(context["machine"]["processors_allowed"], len(os.sched_getaffinity(0)))
            said = subprocess.run([SWEEP, "--doctor"], capture_output=True, text=True, env={**os.environ, variable: value}).stdout
            self.assertIn(f"OpenMP binding: {variable}={value}, taken out of the environment", said)

    def test_more_threads_than_processors_are_said_and_stand_in_the_row(self):
        one = min(os.sched_getaffinity(0))
        done = self.sweep("--threads", "1,2", preexec_fn=lambda: os.sched_setaffinity(0, {one}))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("attn_sweep: 2 threads share 1 allowed processor", done.stderr)
        marks = {row["threads"]: row["disturbed"] for row in self.rows()}
        self.assertNotIn("share", marks["1"])
        self.assertIn("2 threads share 1 allowed processor", marks["2"])

    def test_more_threads_than_a_quota_are_said_and_stand_in_the_row(self):
        root = self.machine(**{"sys/fs/cgroup/cpu.max": "150000 100000\n"})
        done = self.sweep("--threads", "2", "--machine-root", root)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("2 threads under a quota of 1.5 processors", done.stderr)
        self.assertIn("2 threads under a quota of 1.5 processors", self.rows()[0]["disturbed"])

    def test_the_doctor_says_how_many_processors_are_allowed_and_what_binds(self):
        root = self.machine(**{"sys/devices/system/cpu/online": "0-63\n", "proc/self/status": "Cpus_allowed_list:\t0-1\n",
                               "proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/cpuset.cpus.effective": "0-1\n"})
        said = subprocess.run([SWEEP, "--doctor", "--machine-root", root], capture_output=True, text=True).stdout
        self.assertIn("processors: 2 of 64 allowed, by /sys/fs/cgroup/box/cpuset.cpus.effective", said)
        self.assertIn("measure with --threads up to 2", said)

    def test_a_refused_affinity_mask_costs_the_pinning_and_nothing_else(self):
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if os.environ.get("ATTN_SANITIZE") or compiler is None:
            self.skipTest("unsupported: a preloaded library needs a C compiler and no sanitizer")
        (self.folder / "refused.c").write_text(REFUSED_MASK)
        library = str(self.folder / "refused.so")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, str(self.folder / "refused.c")], check=True)
        done = self.sweep("--threads", "1", environment={"LD_PRELOAD": library})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.rows()[0]["status"], "ok")
        self.assertEqual(self.context()["machine"]["processors_allowed"], "unsupported: the affinity mask is refused")
        said = subprocess.run([SWEEP, "--doctor"], capture_output=True, text=True, env={**os.environ, "LD_PRELOAD": library}, timeout=60)
        self.assertIn("the system refuses to tell which of them are allowed", said.stdout)

    def without_proc(self, command):
        return ["unshare", "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh", *command]

    def test_without_proc_the_sweep_runs_and_the_doctor_says_what_is_missing(self):
        tried = subprocess.run(self.without_proc(["true"]), capture_output=True, text=True)
        if tried.returncode != 0 or os.environ.get("ATTN_SANITIZE"):
            self.skipTest(f"unsupported: no mount namespace can be made here ({tried.stderr.strip()})")
        said = subprocess.run(self.without_proc([SWEEP, "--doctor"]), capture_output=True, text=True)
        self.assertIn("/proc: there is no /proc/self/status", said.stdout)
        done = self.sweep("--threads", "1", before=self.without_proc([]))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.rows()[0]["status"], "ok")
        self.assertEqual(self.rows()[0]["peak_rss_bytes"], "")

    def test_a_worker_that_cannot_be_started_is_a_reason(self):
        tried = subprocess.run(self.without_proc(["true"]), capture_output=True, text=True)
        if tried.returncode != 0 or os.environ.get("ATTN_SANITIZE"):
            self.skipTest(f"unsupported: no mount namespace can be made here ({tried.stderr.strip()})")
        # Started by a descriptor the program's name is /dev/fd/N, which is nobody's without /proc.
        by_descriptor = "import os, sys; os.execve(os.open(sys.argv[1], os.O_RDONLY), sys.argv[1:], os.environ)"
        done = self.sweep("--threads", "1", before=self.without_proc([sys.executable, "-c", by_descriptor]))
        self.assertEqual(done.returncode, 2)
        self.assertIn("measuring the machine's peaks failed: a worker cannot be started: /proc/self/exe: No such file or directory",
                      done.stderr)

    def test_attn_apply_holds_its_memory_against_every_limit(self):
        if os.environ.get("ATTN_SANITIZE"):
            self.skipTest("unsupported: a sanitizer's shadow memory is beyond any limit")
        files = []
        for name in "qkv":
            path = self.folder / f"{name}.npy"
            numpy.save(path, numpy.zeros((2, 64, 16), numpy.float32))
            files += [f"--{name}", str(path)]
        done = subprocess.run([APPLY, *files, "--out", str(self.folder / "o.npy"), "--threads", "1",
                               "--variant", "synth_random:cached=no,max_len=16384"],  # 2 GiB
                              capture_output=True, text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)))
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("takes 2147483648 bytes of parameters", done.stderr)
        self.assertIn("bytes of memory are available, by RLIMIT_AS (ulimit -v)", done.stderr)


if __name__ == "__main__":
    unittest.main()
