#!/usr/bin/env python3
"""`pip install .` without a network: the module computes and finds its programs and scripts. wheel.py FOLDER, which keeps the build.
Exit 77, for skipped, where venv or pip is missing."""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
USE = """
import attnbench, numpy
q, k, v = (numpy.random.default_rng(1).standard_normal((2, 64, 16)).astype("float32") for _ in range(3))
assert attnbench.fidelity(q, k, v, attnbench.apply("full", q, k, v))["skill"] > 0.999999
rows = attnbench.sweep(variants="full,full@numpy", n=64, heads=1, samples=2, rounds=1, sample_time=0.001, quiet=True, out="a.csv")
assert set(rows["status"]) == {"ok"}, rows[["status", "reason"]]
assert attnbench.advise("a.csv", n=64, any_machine=True)["answers"]
print(attnbench.__file__)
"""


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "ATTN_WHEEL_BUILD": str(folder / "build"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment.pop("PYTHONPATH", None)
    if subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", "--clear", folder / "venv"]).returncode != 0:
        print("skipped: no virtual environment can be made: python3-venv is missing")
        sys.exit(77)
    python = folder / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--no-index", ROOT], check=True, env=environment)
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run([python, "-c", USE], env=environment, cwd=empty, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    assert done.stdout.startswith(str(folder / "venv")), done.stdout
    subprocess.run([python, "-m", "pip", "uninstall", "--yes", "attnbench"], check=True, env=environment)
    left = list((folder / "venv").rglob("attnbench*"))
    assert not left, left


if __name__ == "__main__":
    main()
