#!/usr/bin/env python3
"""clang-format and clang-tidy over sources, as many at a time as there are cores: tidy.py [--quarter | FILE...]. Without a file,
clang-format looks at all, clang-tidy at those of harness/ and variants/; with --quarter, at what differs from the main branch and a
quarter of the others, the next one every day. Exit 1 with the findings."""
import os
import shutil
import subprocess
import sys
import time
import zlib
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


def changed():
    """Sources that differ from where this branch left main, or from the commit before where this is main."""
    for base in ("main", "origin/main"):
        code, said = output("git", "merge-base", "HEAD", base)
        if code == 0 and said.strip() != must("git", "rev-parse", "HEAD").strip():
            return set(must("git", "diff", "--name-only", said.strip()).split())
    code, said = output("git", "diff", "--name-only", "HEAD~1")
    return set(said.split()) if code == 0 else set()


def of_today(files):
    day, touched = int(time.time() // 86400), changed()
    return [name for name in files if name in touched or zlib.crc32(name.encode()) % 4 == day % 4]


def main():
    given = [name for name in sys.argv[1:] if name != "--quarter"]
    if missing := [tool for tool in ("clang-tidy", "clang++", "clang-format") if shutil.which(tool) is None]:
        sys.exit(f"tidy.py needs {', '.join(missing)}: scripts/setup.sh --all installs them")
    must("clang-format", "--dry-run", "-Werror", *(given or must("git", "ls-files", "*.cpp", "*.hpp").split()))
    # Clang's own commands, which it reads without warnings; a header compiled by another clang is of no use to it.
    must("cmake", "--preset", "dev", "-B", BUILD, "-DCMAKE_CXX_COMPILER=clang++", "-DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON")
    must("cmake", "--build", BUILD, "--target", "attn_commit")
    files = given or must("git", "ls-files", "harness/*.cpp", "variants/*.cpp").split()
    if "--quarter" in sys.argv:
        files = of_today(files)
    # The largest first, so that none is left alone at the end.
    files.sort(key=lambda name: -(ROOT / name).stat().st_size)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda name: output("clang-tidy", "-p", BUILD, "--quiet", name), files))
    findings = [said for code, said in results if code != 0 or ": warning:" in said or ": error:" in said]
    print(f"{len(files)} files, {len(findings)} with findings")
    sys.exit("\n".join(findings) if findings else 0)


if __name__ == "__main__":
    main()
