#!/usr/bin/env python3
"""Faults that the suite once let through, put back into a copy of the tree one by one: planted.py [--only TEXT | --third].
Each line of planted.tsv has a file, what is right, what is wrong, and the test that must notice; --third takes every third line, others
the next day. Exit 1 with those that nothing noticed, or that the tree has no place for any more."""
import argparse
import os
import sys
import time

from mutate import BUILD, COPY, HERE, build, copy_tree, run

PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable  # whose NumPy and pandas setup.sh installs
PROGRAMS = ["attn_sweep_app", "attn_apply_app", "faulty"]
ENVIRONMENT = {"ATTN_SWEEP": f"{BUILD}/bin/attn_sweep", "ATTN_APPLY": f"{BUILD}/bin/attn_apply", "ATTN_TRAIN": f"{BUILD}/bin/attn_train",
               "ATTN_FAULTY": f"{BUILD}/lib/faulty.so", "ATTN_SANITIZE": "", "PYTHONDONTWRITEBYTECODE": "1"}


def planted():
    rows = [line.split("\t") for line in (HERE / "planted.tsv").read_text().splitlines() if line and not line.startswith("#")]
    assert all(len(row) == 4 for row in rows), rows
    return rows


def notices(test):
    """Whether a test fails."""
    if test.endswith(".py"):
        if test.startswith("cli/") and build(*PROGRAMS)[0] != 0:
            return None
        path = COPY / "tests" / test
        return run([PYTHON, path.name], 600, at=path.parent, **ENVIRONMENT)[0] != 0
    halves = [test, f"{test}_2"] if test == "test_variants" else [test]
    if build(*halves)[0] != 0:
        return None
    names = ["~*conform*"] if test == "test_variants" else []  # has no hidden tests, which such a pattern takes in
    return any(run([str(BUILD / "bin" / half), *names], 600)[0] != 0 for half in halves)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--only", default="", help="files whose path holds this")
    arguments.add_argument("--third", action="store_true")
    given = arguments.parse_args()
    copy_tree()
    failed, today = 0, int(time.time() // 86400) % 3
    for number, (path, right, wrong, test) in enumerate(planted()):
        if given.only not in path or (given.third and number % 3 != today):
            continue
        begin, file = time.monotonic(), COPY / path
        text = file.read_text()
        if text.count(right) < 1:
            said = "no such place"
        else:
            file.write_text(text.replace(right, wrong, 1))
            try:
                said = {True: "noticed", False: "not noticed", None: "no code"}[notices(test)]
            finally:
                file.write_text(text)
        failed += said != "noticed"
        print(f"{said:12} {time.monotonic() - begin:4.0f} s  {path}: {wrong[:70]}  {test}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
