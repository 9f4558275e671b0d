#!/usr/bin/python3
"""A static site from the sweeps of many machines: atlas.py results/reference -o site/

From CSVs and folders of them, each with its context. index.html lists machines and cases (pass, causality, shape, dtype, input, threads);
a page for each case has the map of crossovers, ratios to full attention, fractions of the roof and, for decodes, rates, of all variants
on all machines; a page for each machine its times. Pages need no network and no server; what is chosen stands in their address; tables
and CSVs can be downloaded.

Times are compared within one file of one machine only. Across machines stand ratios to full attention of the same file, crossovers and
fractions of the machine's own roof; a file that does not say its machine is refused.

exit codes: 0 written, 2 bad input, 5 nothing measured
"""
import argparse
import html
import json
import re
import shutil
from pathlib import Path

import numpy as np

from attncsv import Refusal, complete, groups, jsonable, labels, plain, read, script, size
from crossover import crossovers, describe
from families import colours

PAGE = Path(__file__).resolve().parent / "page"
REFERENCE = "full"
DRAWS = 100  # of the bootstrap: an interval to a digit
MOST_BYTES = 1_000_000  # of a page


class Machine:
    """Runs whose contexts agree on processor, cores and caches."""

    def __init__(self, facts, slug):
        self.facts, self.slug, self.runs = facts, slug, []

    @property
    def title(self):
        return f"{self.facts.get('cpu', 'unknown processor')}, {self.facts.get('usable_cores', '?')} cores"

    def told(self):
        contexts = [run.context for run in self.runs]
        machine = contexts[-1].get("machine", {})
        peaks = [p for c in contexts for p in c.get("peaks", []) if isinstance(p, dict)]
        best = lambda name: max((p[name] for p in peaks if isinstance(p.get(name), (int, float))), default=None)  # noqa: E731
        caches = machine.get("caches") if isinstance(machine.get("caches"), list) else []
        return {"slug": self.slug, "title": self.title, "cpu": str(machine.get("cpu", "")), "cores": jsonable(machine.get("usable_cores")),
                "caches": ", ".join(f"L{c.get('level')} {size(c.get('bytes', 0))}" for c in caches if isinstance(c, dict)),
                "isas": ", ".join(map(str, machine.get("isas", []) if isinstance(machine.get("isas"), list) else [])),
                "fma_gflops": best("fma_gflops"), "read_gbs": best("read_gbs"), "exp_gexps": best("exp_gexps"),
                "cells": int(sum(len(run.rows) for run in self.runs)), "dates": sorted({str(c.get("date", ""))[:10] for c in contexts}),
                "commits": sorted({str(c.get("attnbench", {}).get("commit", "")) for c in contexts}),
                "files": [Path(run.path).name for run in self.runs], "notes": [note for run in self.runs for note in run.notes]}


def slug_of(text, taken):
    stem = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "x"
    slug, number = stem, 2
    while slug in taken:
        slug, number = f"{stem}-{number}", number + 1
    taken.add(slug)
    return slug


def expanded(paths, out):
    """[(file, whether it was named itself)], but a site's own copies."""
    files = []
    for path in paths:
        if Path(path).is_dir():
            found = sorted(file for file in Path(path).rglob("*.csv") if out.resolve() not in file.resolve().parents)
            if not found:
                raise Refusal(f"the folder '{path}' has no CSV", 5)
            files += [(file, False) for file in found]
        else:
            files.append((Path(path), True))
    return files


def read_runs(paths, out):
    """([Run], [note]): sweeps; other CSVs of a folder are passed over and said."""
    runs, passed = [], []
    for file, named in expanded(paths, out):
        try:
            run = read(file)
        except Refusal as why:
            if named:
                raise
            passed.append(f"passed over: {why}")
            continue
        if run.trains:
            passed.append(f"passed over: '{file}' is of a training")
        elif not run.machine:
            raise Refusal(f"'{file}' does not say its machine: times of machines that nobody can tell apart are not put beside each other")
        elif not run.rows["ok"].any():
            passed.append(f"passed over: no cell of '{file}' was measured")
        else:
            runs.append(run)
    if not runs:
        raise Refusal("no file is a sweep with a measured cell" + (f"; {passed[0]}" if passed else ""), 5)
    return complete(runs), passed


def by_machine(runs):
    found, taken = {}, set()
    for run in sorted(runs, key=lambda run: str(run.context.get("date", ""))):
        key = json.dumps(run.machine, sort_keys=True)
        if key not in found:
            found[key] = Machine(run.machine, slug_of(f"{run.machine.get('cpu', '')} {run.machine.get('usable_cores', '')}", taken))
        found[key].runs.append(run)
    return list(found.values())


def case_of(axes, run):
    """What a cell of one machine and one of another have in common: its axes but the seed, with threads and instruction set told by what
    they are of the machine's."""
    case = {axis: plain(value) for axis, value in axes.items() if axis != "seed"}
    cores, threads = run.machine.get("usable_cores"), axes.get("threads")
    case["threads"] = "one" if threads == 1 else "all" if threads == cores else plain(threads)
    if axes.get("isa") == run.context.get("machine", {}).get("isa_used"):
        case["isa"] = "best"
    return case


# What goes without saying in a case's title, besides what the file's columns call usual.
QUIET = {"kv": "N", "batch": "1", "isa": "best", "dtype": "f32"}
AS = {"kv_heads": "heads", "value_dim": "head_dim", "kv_dtype": "dtype"}  # where it is the same


def title_of(case, usual):
    words = [case.get("pass", "forward"), "causal" if case["causal"] == "1" else "not causal",
             f"{case['threads']} thread{'s' * (case['threads'] != 'one')}", f"input {case['input']}"]
    for axis, value in case.items():
        said = axis in ("pass", "causal", "threads", "input") or value in ("", "nan", QUIET.get(axis), usual.get(axis)) or value == case.get(AS.get(axis))
        if not said and not (axis == "step" and case.get("pass") != "decode"):
            words.append(f"{axis} {value}")
    return ", ".join(words)


def digits(value, count=3):
    value = float(value)
    return float(f"{value:.{count}g}") if np.isfinite(value) else None


def figures_of(part):
    """{variant: {n: [time_s, ratio to full, roof fraction, tokens/s, skill, unstable]}} of one file's cells of one case."""
    full = part[part["name"] == REFERENCE].set_index("n")["time_median_s"].to_dict()
    found = {}
    for row in part.to_dict("records"):
        ratio = row["time_median_s"] / full[row["n"]] if row["n"] in full else np.nan
        tokens = row.get("tokens_per_s", np.nan)
        figures = [digits(row["time_median_s"], 4), digits(ratio), digits(row["roof_fraction"]),
                   digits(tokens if isinstance(tokens, (int, float)) else np.nan), digits(row["fid_skill"]), int(row["unstable"] == 1)]
        found.setdefault(row["name"], {})[int(row["n"])] = figures
    return found


class Atlas:
    def __init__(self, machines):
        self.machines = machines
        self.cases, self.figures, self.crossings, taken = {}, {}, {}, set()
        rows = [run.rows for machine in machines for run in machine.runs]
        self.short = labels(*rows)
        self.about = {name: (family or "other", exactness) for table in rows
                      for name, family, exactness in zip(table["name"], table["family"], table["exactness"])}
        for machine in machines:
            for run in machine.runs:
                self.take(machine, run, taken)

    def case(self, axes, run, taken):
        case = case_of(axes, run)
        key = json.dumps(case, sort_keys=True)
        if key not in self.cases:
            title = title_of(case, run.columns.usual())
            self.cases[key] = {"title": title, "slug": slug_of("case " + title, taken), "pass": case.get("pass", "forward")}
        return key

    def take(self, machine, run, taken):
        """All lengths of a variant are of one file: that with most of them, of equals the latest. Of several seeds the first stands."""
        ok = run.rows[run.rows["ok"]]
        found = {}
        for axes, part in reversed(list(groups(ok))):
            found.setdefault(self.case(axes, run, taken), {}).update(figures_of(part))
        crossed = {}
        if (ok["name"] == REFERENCE).any():
            for one in reversed(crossovers(run.rows, references=[REFERENCE], metrics=("time",), draws=DRAWS)):
                star = digits(one["n_star"], 4) if np.isfinite(one["n_star"]) else 1e18  # JSON has no infinity to sort by
                crossed[self.case(one["axes"], run, taken), one["name"]] = [star, describe(one), one["shortest"], one["longest"]]
        for key, variants in found.items():
            figures, crossings = self.figures.setdefault((key, machine.slug), {}), self.crossings.setdefault((key, machine.slug), {})
            for name, lengths in variants.items():
                if len(lengths) >= len(figures.get(name, {})):
                    figures[name], crossings[name] = lengths, crossed.get((key, name), 0)

    def machines_of(self, case):
        return [machine for machine in self.machines if (case, machine.slug) in self.figures]

    def variants(self, names):
        hues = colours({self.about[name][0] for name in names})
        told = []
        for name in sorted(names, key=lambda name: (list(hues).index(self.about[name][0]), name)):
            family, exactness = self.about[name]
            told.append({"name": name, "label": self.short[name], "family": family, "exactness": exactness})
        return told, hues

    def case_data(self, key):
        here = self.machines_of(key)
        names = {name for machine in here for name in self.figures[key, machine.slug]}
        variants, hues = self.variants(names)
        lengths = sorted({n for machine in here for of in self.figures[key, machine.slug].values() for n in of})

        def across(machine, name, n):
            """Ratio, roof and rate: times stay on the machine's own page."""
            found = self.figures[key, machine.slug].get(name, {}).get(n)
            return found[1:4] if found else 0

        figures = [[[across(m, v["name"], n) for n in lengths] for v in variants] for m in here]
        crossings = [[self.crossings.get((key, m.slug), {}).get(v["name"], 0) for v in variants] for m in here]
        return {"kind": "case", "title": self.cases[key]["title"], "pass": self.cases[key]["pass"], "reference": REFERENCE, "lengths": lengths,
                "machines": [{"slug": m.slug, "title": m.title} for m in here], "variants": variants, "families": hues, "figures": figures,
                "crossings": crossings, "skill": self.skills(key, here, variants)}

    def skills(self, key, here, variants):
        """At the longest length that says one: it is the input's and the variant's, not the machine's."""
        found = []
        for v in variants:
            told = [(n, f[4]) for m in here for n, f in self.figures[key, m.slug].get(v["name"], {}).items() if f[4] is not None]
            found.append(max(told)[1] if told else None)
        return found

    def machine_data(self, machine):
        cases = [key for key in self.cases if (key, machine.slug) in self.figures]
        cases.sort(key=lambda key: (-sum(len(of) for of in self.figures[key, machine.slug].values()), self.cases[key]["title"]))
        variants, hues = self.variants({name for key in cases for name in self.figures[key, machine.slug]})
        told = []
        for key in cases:
            here = self.figures[key, machine.slug]
            lengths = sorted({n for of in here.values() for n in of})
            told.append({**self.cases[key], "lengths": lengths,
                         "figures": [[here.get(v["name"], {}).get(n, 0) for n in lengths] for v in variants],
                         "crossings": [self.crossings.get((key, machine.slug), {}).get(v["name"], 0) for v in variants]})
        return {"kind": "machine", **machine.told(), "reference": REFERENCE, "variants": variants, "families": hues, "cases": told}

    def index_data(self, passed):
        cases = [{"title": told["title"], "slug": told["slug"], "pass": told["pass"], "machines": len(here := self.machines_of(key)),
                  "variants": len({name for m in here for name in self.figures[key, m.slug]}),
                  "lengths": len({n for m in here for of in self.figures[key, m.slug].values() for n in of})} for key, told in self.cases.items()]
        cases.sort(key=lambda c: (-c["machines"], -c["variants"] * c["lengths"], c["title"]))
        return {"kind": "index", "machines": [m.told() for m in self.machines], "cases": cases, "passed": passed}


def page(title, data):
    # "<" never appears inside the JSON, so no name can close the script element that carries it.
    parts = {"TITLE": html.escape(title), "STYLE": (PAGE / "style.css").read_text() + (PAGE / "atlas.css").read_text(),
             "SCRIPT": (PAGE / "atlas.js").read_text(),
             "DATA": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")}
    head, *tail = (PAGE / "atlas.html").read_text().split("@")
    return head + "".join(parts.get(piece, "@" + piece if i % 2 == 0 else piece) for i, piece in enumerate(tail))


def write_site(atlas, passed, out):
    """Pages and the CSVs that they are made of; [(file, bytes)]."""
    pages = {"index.html": page("attnbench atlas", atlas.index_data(passed))}
    for key, told in atlas.cases.items():
        pages[told["slug"] + ".html"] = page(told["title"], atlas.case_data(key))
    for machine in atlas.machines:
        pages[f"machine-{machine.slug}.html"] = page(machine.title, atlas.machine_data(machine))
        folder = out / "data" / machine.slug
        folder.mkdir(parents=True, exist_ok=True)
        for run in machine.runs:
            shutil.copyfile(run.path, folder / Path(run.path).name)
    sizes = []
    for name, text in pages.items():
        (out / name).write_text(text, encoding="utf-8")
        sizes.append((name, len(text.encode())))
    return sizes


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("csv", nargs="+", help="CSVs and folders of them")
    p.add_argument("-o", "--out", default="site", metavar="FOLDER", help="default: site/")
    args = p.parse_args()
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise Refusal(f"'{out}' is no folder")
    runs, passed = read_runs(args.csv, out)
    machines = by_machine(runs)
    for machine in machines:
        names = [Path(run.path).name for run in machine.runs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise Refusal(f"two files of one machine are called '{twice}': give each a name of its own")
    out.mkdir(parents=True, exist_ok=True)
    sizes = write_site(Atlas(machines), passed, out)
    for note in passed:
        print(note)
    large = [f"{name} is {count / 1e6:.1f} MB" for name, count in sizes if count > MOST_BYTES]
    for note in large:
        print(f"{note}: a browser will take its time")
    print(f"{out / 'index.html'}: {len(machines)} machine{'s' * (len(machines) != 1)}, {len(runs)} files, {len(sizes)} pages")
    return 0


if __name__ == "__main__":
    script(main)
