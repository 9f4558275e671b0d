#!/usr/bin/env python3
"""clang-format and clang-tidy over sources, as many at a time as there are cores: tidy.py [FILE...]. Without one, clang-format looks
at all, clang-tidy at those of harness/ and variants/. Exit 1 with the findings."""
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/tidy"


def output(*command):
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def must(*command):
    code, said = output(*command)
    if code != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {code}\n{said[-8000:]}")
    return said


def main():
    if missing := [tool for tool in ("clang-tidy", "clang++", "clang-format") if shutil.which(tool) is None]:
        sys.exit(f"tidy.py needs {', '.join(missing)}: scripts/setup.sh --all installs them")
    must("clang-format", "--dry-run", "-Werror", *(sys.argv[1:] or must("git", "ls-files", "*.cpp", "*.hpp").split()))
    # Clang's own commands, which it reads without warnings; a header compiled by another clang is of no use to it.
    must("cmake", "--preset", "dev", "-B", BUILD, "-DCMAKE_CXX_COMPILER=clang++", "-DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON")
    must("cmake", "--build", BUILD, "--target", "attn_commit")
    files = sys.argv[1:] or must("git", "ls-files", "harness/*.cpp", "variants/*.cpp").split()
    # The largest first, so that none is left alone at the end.
    files.sort(key=lambda name: -(ROOT / name).stat().st_size)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda name: output("clang-tidy", "-p", BUILD, "--quiet", name), files))
    findings = [said for code, said in results if code != 0 or ": warning:" in said or ": error:" in said]
    print(f"{len(files)} files, {len(findings)} with findings")
    sys.exit("\n".join(findings) if findings else 0)


if __name__ == "__main__":
    main()
