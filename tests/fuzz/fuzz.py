#!/usr/bin/env python3
"""Fuzzes the parsers: fuzz.py [--seconds S] [TARGET...]. Builds with the preset asan, then runs each target for S seconds (60),
as many at a time as there are cores. Exit 1 with the input that failed; put it into corpus/TARGET when the fault is mended."""
import argparse
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build/asan"
SLOWEST_INPUT_S, MEMORY_MB, LONGEST_INPUT = 20, 2048, 4096


def build():
    if shutil.which("clang++") is None:
        sys.exit("fuzz.py needs clang++ with libFuzzer: scripts/setup.sh --all installs it")
    for command in (["cmake", "--preset", "asan"], ["cmake", "--build", "--preset", "asan", "--target", "fuzz_targets"]):
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-8000:]}{done.stderr[-8000:]}")


def fuzz(target, seconds):
    """(executions, covered edges, failure or None)"""
    found = BUILD / "fuzz" / target
    found.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [BUILD / "bin" / f"fuzz_{target}", f"-max_total_time={seconds}", "-print_final_stats=1", f"-timeout={SLOWEST_INPUT_S}",
         f"-rss_limit_mb={MEMORY_MB}", f"-max_len={LONGEST_INPUT}", f"-artifact_prefix={found.parent}/{target}-", found,
         HERE / "corpus" / target],
        cwd=BUILD, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    executions = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    covered = re.findall(r" cov: (\d+)", done.stderr)
    return int(executions[1]) if executions else 0, int(covered[-1]) if covered else 0, done.stderr[-6000:] if done.returncode else None


def main():
    known = sorted(path.name for path in (HERE / "corpus").iterdir())
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=int, default=60)
    arguments.add_argument("target", nargs="*", default=known, help=", ".join(known))
    given = arguments.parse_args()
    if unknown := set(given.target) - set(known):
        arguments.error(f"unknown target {', '.join(sorted(unknown))}; accepted: {', '.join(known)}")
    build()
    total, failures = 0, []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for target, (executions, covered, failure) in zip(given.target, pool.map(lambda t: fuzz(t, given.seconds), given.target)):
            print(f"{target:12} {executions:>12,} executions {covered:>6} edges  {'FAILED' if failure else 'no finding'}", flush=True)
            total += executions
            if failure:
                failures.append(f"{target}:\n{failure}")
    print(f"{'total':12} {total:>12,} executions, {len(failures)} findings")
    sys.exit("\n".join(failures) if failures else 0)


if __name__ == "__main__":
    main()
