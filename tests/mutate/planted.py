#!/usr/bin/env python3
"""Faults that the suite once let through, put back into a copy of the tree one by one: planted.py [--only TEXT] [--list].
Each line of planted.tsv has a file, what is right, what is wrong, a test program or script, and the case of it that must notice. A case
passes first without any fault, else its failing shows nothing. Exit 1 with those that went unnoticed."""
import argparse
import sys
import time
from typing import NamedTuple

from tree import COPY, HERE, build, cases, copy_tree, named, script

LONGEST_CASE_S = 300


class Fault(NamedTuple):
    path: str
    right: str
    wrong: str
    test: str
    case: str

    def must_notice(self):
        return script(self.test, self.case) if self.test.endswith(".py") else cases(self.test, "--warn", "NoTests", named(self.case))

    def passes(self):
        """Whether its case passes, and was not skipped."""
        code, said = self.must_notice().run(LONGEST_CASE_S)
        return code == 0 and "skipped=" not in said

    def outcome(self):
        file = COPY / self.path
        text = file.read_text()
        if text.count(self.right) != 1:
            return "no such place"
        file.write_text(text.replace(self.right, self.wrong))
        try:
            return "no code" if build(*self.must_notice().targets)[0] != 0 else "not noticed" if self.passes() else "noticed"
        finally:
            file.write_text(text)


def planted():
    lines = (HERE / "planted.tsv").read_text().splitlines()
    return [Fault(*line.split("\t")) for line in lines if line and not line.startswith("#")]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", default="", help="files whose path holds this")
    arguments.add_argument("--list", action="store_true", help="print the faults and plant none")
    given = arguments.parse_args()
    faults = [fault for fault in planted() if given.only in fault.path]
    if given.list:
        for fault in faults:
            print(f"{fault.path}: {fault.wrong}  ({fault.test}: {fault.case})")
        return 0
    copy_tree()
    code, said = build(*sorted({target for fault in faults for target in fault.must_notice().targets}))
    if code != 0:
        sys.exit(said[-4000:])
    for fault in {(fault.test, fault.case): fault for fault in faults}.values():
        if not fault.passes():
            sys.exit(f"{fault.test}: '{fault.case}' does not pass without any fault")
    unnoticed = 0
    for fault in faults:
        begin, said = time.monotonic(), fault.outcome()
        unnoticed += said != "noticed"
        print(f"{said:13} {time.monotonic() - begin:4.0f} s  {fault.path}: {fault.wrong[:70]}  ({fault.test}: {fault.case})", flush=True)
    print(f"{len(faults) - unnoticed} of {len(faults)} noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
