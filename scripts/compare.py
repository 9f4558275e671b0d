#!/usr/bin/python3
"""Compares two sweeps cell by cell: compare.py base.csv new.csv; or two variants or implementations within one:
compare.py a.csv --pair full,full@torch

A cell is slower or faster when a rank-sum test on its samples says so after Holm's correction for the number of cells
and the Hodges-Lehmann ratio is at least the minimum effect away from 1; same when the ratio's interval lies within the
minimum effect; ambiguous otherwise. Samples of one round resemble each other: where they do, intervals are widened and p is
raised accordingly.

exit codes: 0 compared, 2 bad input, 3 --fail-on found, 4 --fail-on cannot be ruled out, 5 nothing comparable
"""
import argparse
import json
import sys
from pathlib import Path

from attncsv import (Refusal, Run, axes_of, complete, jsonable, labels, parse_percent, plain, read, render, rounds, samples, script,
                     machine_difference, seconds)
import attnstats as stats
import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit  # Student's t; scipy.stats asks ten times as long for it

ALPHA = 0.05
BROKEN = ("inaccurate", "crashed", "timed_out", "out_of_memory", "unsupported")


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("base")
    p.add_argument("new", nargs="?")
    p.add_argument("--pair", metavar="BASE,NEW", action="append", default=[],
                   help="two variants of one CSV, such as full,full@torch, in the place of a second CSV; may be given several times")
    p.add_argument("--min-effect", default="5%", help="smaller differences are never called faster or slower (default 5%%)")
    p.add_argument("--noise", metavar="FILE", help="noise floor written by noise_floor.sh: raises the minimum effect to it")
    p.add_argument("--fail-on", metavar="VERDICT:SHARE", help="such as slower:5%%: exit 3 when found, 4 when not ruled out")
    p.add_argument("--any-machine", action="store_true", help="compare runs of different machines")
    p.add_argument("--format", choices=["text", "md", "csv", "json"], default="text")
    p.add_argument("--all", action="store_true", help="list the cells that are the same, too")
    p.add_argument("--write-noise", metavar="FILE", help="both runs are of the same program: write the noise floor to FILE")
    return p.parse_args()


def parse_fail_on(text):
    if not text:
        return None
    verdict, _, share = text.partition(":")
    if verdict not in ("slower", "faster"):
        raise Refusal(f"--fail-on takes slower:SHARE or faster:SHARE, such as slower:5%, not '{text}'")
    return verdict, parse_percent(share) if share else 0.0


def noise_floor(path, run):
    if not path:
        return 0.0
    try:
        noise = json.loads(Path(path).read_text())
        floor = float(noise["noise_floor"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refusal(f"--noise: '{path}' is not a noise floor written by noise_floor.sh ({error})") from None
    if noise.get("machine") != run.machine:
        raise Refusal(f"--noise: '{path}' was measured on another machine than '{run.path}'")
    return floor


def judge(cells, min_effect):
    """A verdict for each (base samples, new samples, rounds), and the factor by which rounds widen the intervals."""
    factor = stats.round_factor([(values, number) for *sides, number in cells for values in sides])
    limit = np.log1p(min_effect)
    records = []
    for base, new, _ in cells:
        middle, low, high = stats.hodges_lehmann(base, new)
        p = stats.mann_whitney(base, new)
        # Samples that resemble each other are worth fewer independent ones: a larger error, known with less certainty.
        freedom = len(base) + len(new) - 2
        fewer = max(1, (freedom + 2) / factor**2 - 2)
        t, wider_t = stdtrit([max(1, freedom), fewer], 0.975)
        error = factor * (high - low) / (2 * t)
        low, high = (middle + factor * wider_t / t * (end - middle) for end in (low, high))
        if factor > 1 and 0 < error < np.inf:
            p = max(p, 2 * stdtr(fewer, -abs(middle) / error))
        records.append({"effect": middle, "low": low, "high": high, "p": p,
                        "claimable": max(min_effect, stats.smallest_effect(error, len(cells)))})
    for r, p in zip(records, stats.holm([r["p"] for r in records])):
        r["p"] = p
        if p < ALPHA and abs(r["effect"]) >= limit:
            r["verdict"] = "slower" if r["effect"] > 0 else "faster"
        else:
            r["verdict"] = "same" if -limit <= r["low"] and r["high"] <= limit else "ambiguous"
        r.update(ratio=np.exp(r.pop("effect")), low=np.exp(r["low"]), high=np.exp(r["high"]))
    return records, factor


def names_of_pair(text):
    """'local:left=3,right=3' and 'local@torch:left=3,right=3' of the two joined by a comma: what follows a comma is an option where it
    has a '='."""
    names = []
    for item in text.split(","):
        if "=" in item and ":" not in item and names:
            names[-1] += "," + item
        else:
            names.append(item.strip())
    if len(names) != 2 or not all(names):
        raise Refusal(f"--pair takes two variants, such as full,full@torch, not '{text}'")
    return names


def side_of_pair(run, wanted):
    """The rows of a variant: by its name, short or with every option, or of all its options."""
    rows = run.rows
    chosen = rows[(rows["name"] == wanted) | (rows["short"] == wanted)]
    if chosen.empty:
        chosen = rows[rows["name"].str.partition(":")[0] == wanted]
    if chosen.empty:
        raise Refusal(f"--pair: '{run.path}' has no row of '{wanted}'; it has {', '.join(sorted(set(rows['name'])))}", 5)
    return chosen.copy()


def paired(run, pairs):
    """The run as two: of each pair's first and of its second, whose cells go by the same name in both."""
    sides = [[], []]
    for text in pairs:
        names = names_of_pair(text)
        chosen = [side_of_pair(run, name) for name in names]
        options = [rows["name"].str.partition(":")[2] for rows in chosen]
        if set(options[0]) == set(options[1]):
            endings = [part.map(lambda o: ":" + o if o else "") for part in options] if options[0].nunique() > 1 else ["", ""]
        elif all(part.nunique() == 1 for part in options):
            endings = ["", ""]
        else:
            raise Refusal(f"--pair: '{run.path}' has {names[0]} and {names[1]} with several options each, not the same; name the options")
        for rows, ending, side in zip(chosen, endings, sides):
            rows["name"] = rows["short"] = f"{names[1]} / {names[0]}" + ending
            side.append(rows)
    return [Run(run.path, pd.concat(side, ignore_index=True), run.context, run.columns, notes)
            for side, notes in zip(sides, ([], run.notes))]


def cell_keys(base, new):
    return ["name", "n"] + [axis for axis in axes_of(base) if axis in new]


def compare_cells(base, new, min_effect):
    """One record for each cell that both runs measured."""
    keys = cell_keys(base, new)
    pairs = base[base["ok"]].merge(new[new["ok"]], on=keys, suffixes=("_base", "_new")).to_dict("records")
    fields = ("samples_s", "time_median_s", "command")
    cells = []
    for pair in pairs:
        sides = [{field: pair[f"{field}_{side}"] for field in fields} for side in ("base", "new")]
        cells.append((samples(sides[0]), samples(sides[1]), max(rounds(side) for side in sides)))
    records, factor = judge(cells, min_effect)
    for record, pair, (a, b, _) in zip(records, pairs, cells):
        record.update({key: pair[key] for key in keys}, base_s=np.median(a), new_s=np.median(b),
                      base_memory_bytes=pair["memory_bytes_base"], new_memory_bytes=pair["memory_bytes_new"])
    return records, factor


def lost_cells(base, new):
    """Cells that the base measured and that the new run tried and failed."""
    keys = cell_keys(base, new)
    both = base[base["ok"]].merge(new[~new["ok"]], on=keys, suffixes=("_base", "_new"))
    return [{**{k: row[k] for k in keys}, "status": row["status_new"], "reason": row["reason_new"]}
            for row in both.to_dict("records") if row["status_new"] in BROKEN]


def titles(records, keys):
    """The words that tell these cells apart: the axes that vary."""
    varying = [k for k in keys if k not in ("name", "n") and len({str(r[k]) for r in records}) > 1]
    return lambda r: ", ".join(f"{k} {plain(r[k])}" for k in varying)


def exit_code(records, lost, fail_on):
    if not fail_on:
        return 0
    verdict, share = fail_on
    sign = 1 if verdict == "slower" else -1
    limit = np.log1p(share)
    if lost and verdict == "slower":
        return 3
    if any(r["verdict"] == verdict and sign * np.log(r["ratio"]) >= limit for r in records):
        return 3
    edge = "high" if verdict == "slower" else "low"
    open_cells = [r for r in records if r["verdict"] in ("ambiguous", verdict) and sign * np.log(r[edge]) > limit]
    return 4 if open_cells else 0


def notes(base, new, records, factor, min_effect, floor):
    lines = []
    claimable = sorted(r["claimable"] for r in records if np.isfinite(r["claimable"]))
    if claimable:
        lines.append(f"Smallest effect that can be claimed: {claimable[len(claimable) // 2]:.1%} in the median cell, "
                     f"{claimable[-1]:.1%} in the noisiest (power 0.8, {len(records)} comparisons corrected)"
                     + (f"; noise floor of this machine {floor:.1%}." if floor else "; noise_floor.sh measures this machine's noise floor."))
    counts = [min(len(samples_of.split(";")) for samples_of in run.rows.loc[run.rows["ok"], "samples_s"]) for run in (base, new)]
    least = stats.mann_whitney(np.arange(counts[0]), np.arange(counts[1]) + counts[0]) * len(records)
    if least >= ALPHA:
        lines.append(f"With {counts[0]} and {counts[1]} samples a cell no test can tell one of {len(records)} cells apart: "
                     "measure with more --samples, or fewer cells.")
    if factor > 1.05:
        lines.append(f"Samples of one round resemble each other: intervals are {factor:.2f} times as wide as for independent "
                     "samples.")
    for key, facts in (("build", ["compiler", "flags", "build_type"]), ("attnbench", ["commit"]), ("machine", ["host", "governor"]),
                       ("libraries", ["onednn", "onednn_runtime", "tbb"])):
        for fact in facts:
            was, is_now = base.context.get(key, {}).get(fact), new.context.get(key, {}).get(fact)
            if was != is_now:
                lines.append(f"{fact} differs: '{was}' and '{is_now}'.")
    if base.context.get("environment") != new.context.get("environment"):
        lines.append(f"environment differs: {base.context.get('environment')} and {new.context.get('environment')}.")
    for run in (base, new):
        lines += [note + "." for note in run.notes]
    lines.append(f"Minimum effect {min_effect:.1%}, alpha {ALPHA} after Holm's correction.")
    return lines


def print_report(args, base, new, records, lost, keys, facts):
    tally = {v: sum(r["verdict"] == v for r in records) for v in ("slower", "faster", "same", "ambiguous")}
    if args.format == "json":
        clean = [{k: jsonable(v) for k, v in r.items()} for r in records]
        print(json.dumps({"cells": clean, "no_longer_measured": [{k: jsonable(v) for k, v in r.items()} for r in lost],
                          "verdicts": tally, "notes": facts}, indent=2))
        return
    if args.format == "csv":
        print(render(records, keys + ["verdict", "ratio", "low", "high", "p", "base_s", "new_s", "base_memory_bytes",
                                      "new_memory_bytes", "claimable"], "csv"), end="")
        return
    title, short = titles(records, keys), labels(base.rows, new.rows)
    order = {"slower": 0, "ambiguous": 1, "faster": 2, "same": 3}
    shown = [r for r in records if args.all or r["verdict"] != "same"]
    table = []
    for r in sorted(shown, key=lambda r: (order[r["verdict"]], -abs(np.log(r["ratio"])))):
        grown = r["new_memory_bytes"] - r["base_memory_bytes"]
        memory = f"{r['new_memory_bytes'] / max(1, r['base_memory_bytes']):.2f}x" if (
            abs(grown) > 0.1 * r["base_memory_bytes"] + 2**22) else ""
        table.append({"verdict": r["verdict"], "variant": short[r["name"]], "N": r["n"], "new/base": f"{r['ratio']:.3f}",
                      "95 % interval": f"{r['low']:.3f} .. {r['high']:.3f}", "p": f"{r['p']:.2g}", "base": seconds(r["base_s"]),
                      "new": seconds(r["new_s"]), "memory": memory, "where": title(r)})
    if table:
        columns = [c for c in table[0] if any(row[c] for row in table)]
        print(render(table, columns, args.format))
    for r in lost:
        print(f"{'- ' if args.format == 'md' else ''}no longer measured: {r['name']} N={r['n']}: {r['status']} ({r['reason']})")
    print(f"{len(records)} cells: " + ", ".join(f"{count} {verdict}" for verdict, count in tally.items())
          + (f"; {len(lost)} no longer measured" if lost else "") + ("" if args.format == "text" else "\n"))
    print("\n".join(("- " if args.format == "md" else "") + fact for fact in facts))


def write_floor(path, records, run):
    """The noise floor: 95 of 100 cells compared with themselves differ by less."""
    distance = np.abs([np.log(r["ratio"]) for r in records])
    floor = float(np.expm1(np.quantile(distance, 0.95)))
    false = sum(r["verdict"] in ("slower", "faster") for r in records)
    Path(path).write_text(json.dumps({"noise_floor": floor, "cells": len(records), "false_verdicts": false,
                                      "machine": run.machine, "date": run.context.get("date")}, indent=2) + "\n")
    print(f"Noise floor {floor:.1%}: 95 of 100 cells differ from themselves by less; {false} of {len(records)} false verdicts.\n"
          f"Written to {path}: compare.py --noise {path} claims nothing below it.")


def main():
    args = arguments()
    min_effect, fail_on = parse_percent(args.min_effect), parse_fail_on(args.fail_on)
    if bool(args.pair) == (args.new is not None):
        raise Refusal("give two CSVs, or one and --pair" if args.new is None else "--pair compares within one CSV: give no second one")
    base, new = paired(read(args.base), args.pair) if args.pair else complete([read(args.base), read(args.new)])
    args.new = new.path
    for run in (base, new):
        if run.trains:
            raise Refusal(f"'{run.path}' is a training CSV; compare.py compares sweeps")
    if not args.any_machine and (not base.machine or base.machine != new.machine):
        raise Refusal(f"'{args.base}' and '{args.new}' {machine_difference(base, new)}; --any-machine compares them nevertheless")
    floor = noise_floor(args.noise, new)
    records, factor = compare_cells(base.rows, new.rows, max(min_effect, floor))
    lost = lost_cells(base.rows, new.rows)
    keys = cell_keys(base.rows, new.rows)
    if not records and not lost:
        raise Refusal(f"no cell was measured in both '{args.base}' ({int(base.rows['ok'].sum())} measured) and "
                      f"'{args.new}' ({int(new.rows['ok'].sum())} measured)", 5)
    facts = notes(base, new, records, factor, max(min_effect, floor), floor) if records else []
    print_report(args, base, new, records, lost, keys, facts)
    if args.write_noise and records:
        write_floor(args.write_noise, records, new)
    return exit_code(records, lost, fail_on)


if __name__ == "__main__":
    script(main)
