#!/usr/bin/env python3
"""Builds with a sanitizer's preset and runs tests of that build: sanitized.py PRESET TARGET [CTEST ARGUMENTS...]"""
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main():
    preset, target, *selection = sys.argv[1:]
    cores = str(os.cpu_count())
    for command in (["cmake", "--preset", preset], ["cmake", "--build", "--preset", preset, "--parallel", cores, "--target", target]):
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-20000:]}")
    sys.exit(subprocess.run(["ctest", "--preset", preset, "--parallel", cores, *selection], cwd=ROOT, stdin=subprocess.DEVNULL).returncode)


if __name__ == "__main__":
    main()
