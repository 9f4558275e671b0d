#!/usr/bin/python3
"""From which N does each variant beat full attention: crossover.py results/a.csv

N* is the length from which the variant stays ahead of the reference, interpolated in log-log between measured lengths.
The interval of a time crossover is a 95 % bootstrap over the samples; memory has no scatter, so its interval is the two
measured lengths around N*. Also fitted: the exponent of time in N over the longest lengths, held against the one that the
variant declares. Of a decode N is the context, and a step grows as one row of what is declared.

exit codes: 0 done, 2 bad input, 5 nothing measured or no reference
"""
import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from attncsv import (PAGE, Refusal, group_title, groups, id_of, in_group, jsonable, labels, measured, read, read_all, render, rounds, samples,
                     script)
import attnstats as stats

REFERENCES = ["full", "full@unfused"]
TAIL = 4  # lengths an exponent is fitted to: the longest, since overheads bend the curve at short ones
ROOT = Path(__file__).resolve().parents[1]


class Curves:
    """Of one combination of axes: each variant's log median times with their bootstrap draws, and its memory, by N."""

    def __init__(self, rows, draws, factor, seed=1):
        rng = np.random.default_rng(seed)
        self.time, self.drawn, self.memory = {}, {}, {}
        for row in rows.to_dict("records"):
            values = samples(row)
            self.time.setdefault(row["name"], {})[row["n"]] = float(np.median(np.log(values)))
            if draws:
                self.drawn[row["name"], row["n"]] = stats.bootstrap_log_medians(values, draws, factor, rng)
            if np.isfinite(row["memory_bytes"]):
                self.memory.setdefault(row["name"], {})[row["n"]] = max(row["memory_bytes"], PAGE)

    def against(self, name, reference, metric):
        """(N*, low, high, lengths), or None where fewer than two lengths are common."""
        table = self.time if metric == "time" else self.memory
        common = sorted(set(table.get(name, {})) & set(table.get(reference, {})))
        if len(common) < 2:
            return None
        if metric == "memory":
            ratio = np.array([np.log(table[name][n] / table[reference][n]) for n in common])
            star = stats.last_crossing(common, ratio)[0]
            if star == 0 or np.isinf(star):
                return star, star, star, common
            slack = 1e-9  # of the interpolation, where the curves meet at a measured length
            return (star, float(max(n for n in common if n <= star * (1 + slack))),
                    float(min(n for n in common if n >= star * (1 - slack))), common)
        ratio = np.array([table[name][n] - table[reference][n] for n in common])
        drawn = np.column_stack([self.drawn[name, n] - self.drawn[reference, n] for n in common])
        return (*stats.crossover(common, ratio, drawn), common)

    def exponent(self, name, metric="time"):
        table = self.time if metric == "time" else self.memory
        lengths = sorted(table.get(name, {}))[-TAIL:]
        values = [np.exp(table[name][n]) if metric == "time" else table[name][n] for n in lengths]
        return stats.exponent(lengths, values)


def factor_of(rows):
    return stats.round_factor([(samples(row), rounds(row)) for row in rows[["samples_s", "time_median_s", "command"]].to_dict("records")])


def crossovers(rows, references=REFERENCES, metrics=("time", "memory"), draws=1000):
    """One record for each combination of axes, variant, reference and metric."""
    ok = measured(rows)
    factor = factor_of(ok)
    records = []
    for axes, part in groups(ok):
        curves = Curves(part, draws, factor)
        for name in sorted(curves.time):
            for reference in references:
                if name == reference or reference not in curves.time:
                    continue
                for metric in metrics:
                    found = curves.against(name, reference, metric)
                    if found is None:
                        continue
                    star, low, high, common = found
                    records.append({"axes": axes, "where": group_title(axes, ok), "name": name, "reference": reference,
                                    "metric": metric, "n_star": star, "low": low, "high": high,
                                    "shortest": common[0], "longest": common[-1]})
    return records


def length(value, record):
    if value == 0:
        return f"<{record['shortest']}"
    return f">{record['longest']}" if np.isinf(value) else f"{value:.0f}"


def undecided(record):
    return record["low"] == 0 and np.isinf(record["high"])


def describe(record):
    """Where the variant is ahead: 'from N=812 (790..840)' and its limits."""
    low, star, high = (record[k] for k in ("low", "n_star", "high"))
    if low == high == 0:
        return f"every length from {record['shortest']}"
    if low == high == np.inf:
        return f"not up to N={record['longest']}"
    if undecided(record):
        return f"undecided: the noise hides it from N={record['shortest']} to {record['longest']}"
    return f"from N{'=' if 0 < star < np.inf else ''}{length(star, record)} ({length(low, record)}..{length(high, record)})"


def listing(binary):
    """{id: declared exponent of time} from attn_sweep --list=json, or ({}, why not)."""
    if not binary:
        return {}, "declared exponents are unknown: no attn_sweep found (--attn-sweep names it)"
    try:
        told = subprocess.run([binary, "--list=json"], capture_output=True, text=True, timeout=60)
        listed = {entry["id"]: entry.get("time_exponent") for entry in json.loads(told.stdout)}
        return {variant: power for variant, power in listed.items() if power is not None}, ""
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
        return {}, f"declared exponents are unknown: '{binary} --list=json' did not answer ({type(error).__name__})"


def find_sweep(given, runs=()):
    """The attn_sweep to ask: the one named, the one that wrote the CSV, the tree's, the PATH's."""
    if given:
        if not shutil.which(given):
            raise Refusal(f"--attn-sweep: '{given}' is not a program")
        return given
    wrote = [shlex.split(run.context.get("command_line", "") or "x")[0] for run in runs]
    here = [str(ROOT / "build/release/bin/attn_sweep"), str(ROOT.parent.parent / "bin/attn_sweep")]  # the tree's, or PREFIX/bin's
    for candidate in [*wrote, *here, shutil.which("attn_sweep")]:
        if candidate and "/" in candidate and os.access(candidate, os.X_OK):
            return candidate
    return None


def contracts(rows, declared, tolerance):
    """Measured exponents beside the declared ones. O(N^a) is an upper bound: growing more slowly keeps the contract. What is declared is
    of the whole sequence, of whose N rows a step of a decode answers one."""
    ok = measured(rows)
    records = []
    for axes, part in groups(ok):
        curves = Curves(part, 0, 1.0)
        for name in sorted(curves.time):
            slope, low, high = curves.exponent(name)
            power = declared.get(id_of(name))
            if power is not None and axes.get("pass") == "decode":
                power -= 1
            if not np.isfinite(slope):
                verdict = "too few lengths"
            elif power is None:
                verdict = ""
            else:
                verdict = "BROKEN" if low > power + tolerance else "OK" if high <= power + tolerance else "undecided"
            lengths = sorted(curves.time[name])[-TAIL:]
            records.append({"axes": axes, "where": group_title(axes, ok), "name": name, "exponent": slope, "low": low, "high": high,
                            "declared": power, "contract": verdict, "from_n": lengths[0], "to_n": lengths[-1],
                            "memory_exponent": curves.exponent(name, "memory")[0]})
    return records


def refine(rows, binary, width, steps, extra):
    """Measures variant and reference again at bisected N until each time interval is narrow; returns all rows."""
    import pandas as pd
    measured_at = {}
    for step in range(steps):
        wide = [r for r in crossovers(rows, ["full"], ["time"]) if 0 < r["low"] and np.isfinite(r["high"])
                and r["high"] / r["low"] > width]
        commands = {}
        for record in wide:
            n = next_length(rows, record)
            if n and n not in measured_at.setdefault(key_of(record), set()):
                measured_at[key_of(record)].add(n)
                commands.setdefault((key_of(record)[:-1], n), []).append(record)
        if not commands:
            return rows
        for (_, n), records in commands.items():
            print(f"refine {step + 1}/{steps}: N={n}, {', '.join(r['name'] for r in records)} and full ({records[0]['where']})",
                  file=sys.stderr)
            rows = pd.concat([rows, measure(rows, binary, records, n, extra)], ignore_index=True)
            rows = rows.drop_duplicates(["name", "n", *records[0]["axes"]], keep="last").reset_index(drop=True)
    return rows


def key_of(record):
    return (*(str(v) for v in record["axes"].values()), record["name"])


def next_length(rows, record):
    """The geometric middle of the measured lengths around N*, on the 16-grid that kernels like; None when none is left."""
    here = in_group(rows[rows["ok"]], record["axes"])
    common = set(here[here["name"] == record["name"]]["n"]) & set(here[here["name"] == record["reference"]]["n"])
    below = max((n for n in common if n <= record["n_star"]), default=None)
    above = min((n for n in common if n > record["n_star"]), default=None)
    if below is None or above is None:
        return None
    middle = int(round(np.sqrt(below * above) / 16) * 16)
    return middle if below < middle < above else None


def measure(rows, binary, records, n, extra):
    """The rows of one attn_sweep over these variants and the reference at N."""
    here = in_group(rows[rows["ok"]], records[0]["axes"])
    command = shlex.split(here[here["name"] == "full"].iloc[-1]["command"])
    command[0] = binary
    command[command.index("--variants") + 1] = ",".join([*(r["name"] for r in records), "full"])
    command[command.index("--n") + 1] = str(n)
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "refine.csv")
        done = subprocess.run([*command, "--out", out, "--quiet", *extra], capture_output=True, text=True)
        if done.returncode not in (0, 1) or not os.path.exists(out):
            raise Refusal(f"--refine: '{shlex.join(command)}' ended with code {done.returncode}: {done.stderr.strip()[-200:]}")
        return read(out).rows


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("csv", nargs="+")
    p.add_argument("--reference", action="append", help="variant to beat (default: full and full@unfused)")
    p.add_argument("--metric", choices=["time", "memory", "both"], default="both")
    p.add_argument("--draws", type=int, default=1000, help="bootstrap draws")
    p.add_argument("--tolerance", type=float, default=0.25,
                   help="how much the measured exponent may exceed the declared one: caches end within a sweep")
    p.add_argument("--refine", action="store_true", help="run attn_sweep at bisected N until intervals against full are narrow")
    p.add_argument("--width", type=float, default=1.1, help="--refine: narrow is high/low below this")
    p.add_argument("--steps", type=int, default=5, help="--refine: bisections at most")
    p.add_argument("--attn-sweep", metavar="PROGRAM")
    p.add_argument("--plugin", action="append", default=[], help="--refine: passed on to attn_sweep")
    p.add_argument("--any-machine", action="store_true")
    p.add_argument("--format", choices=["text", "md", "csv", "json"], default="text")
    return p.parse_args()


def told(table, style):
    """The table; what all its rows share stands above it."""
    places = {record["where"] for record in table}
    columns = [column for column in table[0] if column != "where" or len(places) > 1]
    return ("" if len(places) > 1 else f"{places.pop()}\n\n") + render(table, columns, style)


def main():
    args = arguments()
    if args.draws < 100:
        raise Refusal("--draws must be at least 100")
    rows, _, runs = read_all(args.csv, args.any_machine)
    ok = measured(rows, ", ".join(args.csv))
    references = args.reference or REFERENCES
    if not set(references) & set(ok["name"]):
        raise Refusal(f"no reference was measured: {' and '.join(references)} are not among {', '.join(sorted(set(ok['name']))[:8])}", 5)
    binary = find_sweep(args.attn_sweep, runs)
    if args.refine:
        if not binary:
            raise Refusal("--refine runs attn_sweep, which was not found: --attn-sweep names it")
        rows = refine(rows, binary, args.width, args.steps, [w for plugin in args.plugin for w in ("--plugin", plugin)])
    found = crossovers(rows, references, ("time", "memory") if args.metric == "both" else (args.metric,), args.draws)
    declared, why_not = listing(binary)
    kept = contracts(rows, declared, args.tolerance)
    notes = [why_not] if why_not else []
    notes += [note for run in runs for note in run.notes]

    if args.format == "json":
        flat = [{**{k: (jsonable(v) if not isinstance(v, dict) else {a: jsonable(x) for a, x in v.items()})
                    for k, v in r.items()}, "says": describe(r)} for r in found]
        fitted = [{k: (jsonable(v) if not isinstance(v, dict) else {a: jsonable(x) for a, x in v.items()})
                   for k, v in r.items()} for r in kept]
        print(json.dumps({"crossovers": flat, "exponents": fitted, "notes": notes}, indent=2))
        return 0
    short = labels(rows)
    if args.format == "csv":
        print(render([{**r["axes"], **r} for r in found], [*found[0]["axes"], "name", "reference", "metric", "n_star", "low", "high",
                                                           "shortest", "longest"], "csv") if found else "", end="")
        return 0
    table = [{"where": r["where"], "variant": short[r["name"]], "against": r["reference"], "in": r["metric"], "ahead": describe(r)}
             for r in found]
    print(told(table, args.format) if found else "No crossing: no variant was measured beside a reference at two or more lengths.\n")
    table = [{"where": r["where"], "variant": short[r["name"]], "N": f"{r['from_n']}..{r['to_n']}",
              "time grows as N^": f"{r['exponent']:.2f} ({r['low']:.2f}..{r['high']:.2f})" if np.isfinite(r["exponent"]) else "",
              "declared": "" if r["declared"] is None else f"{r['declared']:g}", "contract": r["contract"],
              "memory as N^": f"{r['memory_exponent']:.2f}" if np.isfinite(r["memory_exponent"]) else ""} for r in kept]
    print(told(table, args.format))
    print("\n".join(f"{note}." for note in notes), end="\n" if notes else "")
    return 0


if __name__ == "__main__":
    script(main)
