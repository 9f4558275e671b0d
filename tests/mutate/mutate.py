#!/usr/bin/env python3
"""Tests the tests: puts one small fault at a time into a copy of the tree, builds what it touches and runs the tests of that.

    mutate.py [--count N] [--seed S] [--minutes M] [--only TEXT] [--least SCORE] [--programs] [--list]

A fault that no test notices is a survivor: it gets a test, or a reason in excused.tsv (file, the right line, the wrong one, why nobody
can tell them apart). What makes the same object file is no fault. Sources are kernels, pages, gate, meters and statistics, CSV
and journal, and the sweep's rounds and resuming. Tests are those of a kernel's room; of pages, and of the pages nearest to a kernel, their
own and conformance; of another file its floor's and scripts that ask the program. Prints survivors and a table by folder, and keeps both
in build/mutate/report.md. Exit 1 where fewer than SCORE (0.9) of the faults were noticed."""
import argparse
import collections
import hashlib
import re
import sys
import time
from pathlib import Path

import operators
from tree import BUILD, COPY, HERE, PYTHON, ROOT, build, cases, copy_tree, script

FOLDERS = {
    "kernels": "harness/attn/kernels/*/*.cpp",
    "pages": "variants/*/*.cpp",
    "gate": "harness/attn/prove/[gs]*.cpp",
    "meters": "harness/attn/measure/*.cpp",
    "record": "harness/attn/record/*.cpp",
    "sweep": "harness/attn/sweep/*.cpp",
}
# Test programs of a floor, and scripts that ask the program: of these the ones that hold no time against another.
FLOORS = {"prove": ["prove"], "measure": ["measure", "fidelity", "sweep"], "record": ["record", "sweep"], "sweep": ["sweep"]}
ASKING = ["cli/resume_test.py", "cli/foresee_test.py", "cli/sweep_test.py Statuses Pairs"]
SCRIPTS = {"measure": ["cli/noise_test.py", *ASKING], "record": ASKING, "sweep": ["cli/plan_test.py", *ASKING]}
PAGES_OF_A_KERNEL = 4
PATIENCE = 5  # times as long as without a fault


def object_hash(path):
    found = sorted(BUILD.glob(f"**/{Path(path).name}.o"))
    return hashlib.sha256(b"".join(p.read_bytes() for p in found)).hexdigest() if found else None


class Tests:
    """Which tests look at a file."""

    def __init__(self):
        self.includes = {}  # path: what it includes of the tree
        for pattern in ("harness/attn/**/*.?pp", "variants/*/*.cpp"):
            for path in ROOT.glob(pattern):
                names = re.findall(r'#include "(attn/[^"]+)"', path.read_text(errors="replace"))
                self.includes[str(path.relative_to(ROOT))] = {"harness/" + name for name in names}
        self.clean = {}  # test: seconds without a fault

    def pages_of(self, path):
        """Pages that use a kernel, those that include it themselves first."""
        reached, ring = set(), {re.sub(r"(-inl)?\.[ch]pp$", ".hpp", path)}
        while ring:
            reached |= ring
            users = {user for user, names in self.includes.items() if names & ring}
            if pages := sorted(user for user in users if user.startswith("variants/")):
                step = max(1, len(pages) // PAGES_OF_A_KERNEL)
                return [Path(page).stem for page in pages[::step][:PAGES_OF_A_KERNEL]]
            ring = {re.sub(r"\.cpp$", ".hpp", user) for user in users} - reached
        return []

    def of(self, path):
        """The quickest first."""
        def of_pages(names):
            own = ",".join(f"{name}:*,{name} *" for name in names)
            own += ",what pages declare*,learned tensors*"
            return [cases("test_variants", own), cases("test_variants_2", own),
                    cases("test_conformance", "every registered variant conforms", ATTN_VARIANTS=",".join(names))]

        if path.startswith("variants/"):
            return of_pages([Path(path).stem])
        floor, room = path.split("/")[2:4]
        if floor == "kernels":
            own = sorted((ROOT / "tests/harness/kernels" / room).glob("*_test.cpp"))
            tags = ",".join(f"[#{test.stem}]" for test in own)
            pages = self.pages_of(path)
            return [cases("test_kernels", "--filenames-as-tags", tags)] + (of_pages(pages) if pages else [])
        programs = [name for name in FLOORS[floor] if name != "fidelity" or name in path]
        return [cases(f"test_{name}") for name in programs] + [script(*words.split()) for words in SCRIPTS.get(floor, ())]

    def notice(self, path):
        """The name of the test that fails, None if none does, or "-" if the tree does not build."""
        for test in self.of(path):
            if build(*test.targets)[0] != 0:
                return "-"
            tries = 2 if test.command[0] == PYTHON else 1  # a script may fail by itself where others load the machine
            codes = [test.run(10 + PATIENCE * self.clean[test])[0] for _ in range(tries)]
            if 0 not in codes:
                return test.name + (" (too long)" if None in codes else "")
        return None

    def try_clean(self, path):
        for test in self.of(path):
            if test in self.clean:
                continue
            code, said = build(*test.targets)
            begin = time.monotonic()
            if code == 0:
                code, said = test.run()
            if code != 0:
                sys.exit(f"without any fault, {test.name}: exit {code}\n{said[-4000:]}")
            self.clean[test] = time.monotonic() - begin


def outcome_of(tests, path, number, new):
    tests.try_clean(path)
    file = COPY / path
    right = file.read_text()
    before = object_hash(path)
    lines = right.split("\n")
    lines[number] = new
    file.write_text("\n".join(lines))
    try:
        if build(*tests.of(path)[0].targets)[0] != 0:
            return "no code", ""
        if object_hash(path) == before:
            return "same code", ""
        by = tests.notice(path)
        return ("survived", "") if by is None else ("no code", "") if by == "-" else ("noticed", by)
    finally:
        file.write_text(right)


def excuses():
    rows = [line.split("\t") for line in (HERE / "excused.tsv").read_text().splitlines() if line and not line.startswith("#")]
    return {(path, right, wrong) for path, right, wrong, _ in rows}


def report(results):
    count = {folder: collections.Counter() for folder in FOLDERS}
    for folder, _, _, _, outcome, _ in results:
        count[folder][outcome] += 1
    lines = ["| folder | faults | noticed | survived | excused | share |", "|---|---:|---:|---:|---:|---:|"]
    for folder, c in [*count.items(), ("all", sum(count.values(), collections.Counter()))]:
        judged = c["noticed"] + c["survived"]
        share = f"{c['noticed'] / judged:.2f}" if judged else ""
        lines.append(f"| {folder} | {judged} | {c['noticed']} | {c['survived']} | {c['excused']} | {share} |")
    survivors = [f"{path}:{number + 1}: {new.strip()}" for _, path, number, new, outcome, _ in results if outcome == "survived"]
    return "\n".join(lines) + "\n\n" + "".join(f"- {s}\n" for s in survivors)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--count", type=int, default=200)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--minutes", type=float, default=1e9, help="stop then, and judge what was tried")
    arguments.add_argument("--only", default="", help="files whose path holds this, or one of these: TEXT,TEXT")
    arguments.add_argument("--least", type=float, default=0.9)
    arguments.add_argument("--programs", action="store_true", help="ask test programs alone, no scripts")
    arguments.add_argument("--list", action="store_true", help="print the faults and try none")
    given = arguments.parse_args()
    sources = {folder: [(str(p.relative_to(ROOT)), p.read_text()) for p in sorted(ROOT.glob(pattern))
                        if any(text in str(p) for text in given.only.split(","))]
               for folder, pattern in FOLDERS.items()}
    chosen = operators.drawn(sources, 2 * given.count, given.seed)  # some make no code
    if given.list:
        for folder, path, number, operator, new in chosen[:given.count]:
            print(f"{folder:8} {path}:{number + 1}: {operator}: {new.strip()}")
        return 0
    copy_tree()
    if given.programs:
        SCRIPTS.clear()
    tests, excused, results, end = Tests(), excuses(), [], time.monotonic() + 60 * given.minutes
    for folder, path, number, operator, new in chosen:
        if time.monotonic() > end or sum(r[4] in ("noticed", "survived") for r in results) >= given.count:
            break
        begin = time.monotonic()
        outcome, by = outcome_of(tests, path, number, new)
        right = (ROOT / path).read_text().split("\n")[number]
        if outcome == "survived" and (path, right.strip(), new.strip()) in excused:
            outcome = "excused"
        results.append((folder, path, number, new, outcome, by))
        print(f"{outcome:9} {time.monotonic() - begin:5.0f} s  {path}:{number + 1}: {operator}: {new.strip()[:100]}  {by}", flush=True)
    text = f"seed {given.seed}, {len(results)} drawn\n\n" + report(results)
    (COPY / "report.md").write_text(text)
    print(text)
    noticed = sum(r[4] == "noticed" for r in results)
    return 0 if noticed >= given.least * sum(r[4] in ("noticed", "survived") for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
