#!/usr/bin/python3
"""One self-contained page from sweep CSVs, and training CSVs beside them: report.py results/a.csv [b.train.csv ...]

The page opens without a network. --figures writes the same curves for papers, --summary prints ten lines.

exit codes: 0 written, 2 bad input, 5 nothing measured
"""
import argparse
import json
import sys
from pathlib import Path

import numpy as np

from attncsv import Refusal, axes_of, group_title, groups, in_group, jsonable, labels, main_group, measured, plain, read_all, script, size
from crossover import REFERENCES, contracts, crossovers, describe, find_sweep, listing, undecided
from families import colours
import models

PAGE = Path(__file__).resolve().parent / "page"
CHARTJS = ["/usr/share/javascript/chart.js/chart.min.js", "/usr/share/nodejs/chart.js/dist/chart.min.js"]
ALWAYS = ["threads", "causal", "head_dim", "dtype", "input"]  # filters that are shown even with one value
# Raw columns that the page shows or sorts by; the samples themselves stay in the CSV.
SHOWN = ["n", "name", "family", "exactness", "status", "reason", "time_median_s", "time_mad_s", "time_ci_low_s", "time_ci_high_s",
         "unstable", "roof_fraction", "roof_binds", "gflops_per_s", "memory_bytes", "peak_rss_bytes", "token_s", "tokens_per_s", "state_bytes", "err_relative", "fid_skill", "fid_reason", "compute", "storage_error",
         "command"]
REFERENCE = "full"
SKILLED = 0.5  # least skill of a winner that goes unremarked
DRAWS = 400  # of the bootstrap: enough for the two or three digits that are shown


def encoded(column):
    """Numbers with six digits; words as a dictionary and codes, which keeps a page of a thousand rows small."""
    if column.dtype == object:
        words = {}
        codes = [words.setdefault(str(value), len(words)) for value in column]
        return {"words": list(words), "codes": codes}
    return [None if not np.isfinite(v) else int(v) if float(v).is_integer() else float(f"{v:.6g}") for v in column.astype(float)]


def page_columns(rows):
    """The columns of the page, and the stem that most commands share, written once."""
    table = rows[[c for c in dict.fromkeys([*SHOWN, *axes_of(rows)]) if c in rows]].copy()
    # A cell that ended badly in a late round still has samples: its time is not to be trusted, so it is not drawn.
    table.loc[~rows["ok"] & (rows["status"] == "ok"), "status"] = "no time"
    for column in ("time_median_s", "roof_fraction", "memory_bytes", "token_s", "tokens_per_s", "state_bytes"):
        if column in table:
            table.loc[~rows["ok"], column] = np.nan
    stem = "attn_sweep --variants "
    table["command"] = table["command"].map(lambda c: "\1" + c[len(stem):] if c.startswith(stem) else c)
    return {column: encoded(table[column]) for column in table}, stem


def interval_width(row):
    return (row["time_ci_high_s"] - row["time_ci_low_s"]) / row["time_median_s"]


def spans(pairs):
    """[(128, a), (256, a), (512, b)] as [("128..256", a), ("512", b)]."""
    runs = []
    for n, who in pairs:
        if runs and runs[-1][2] == who:
            runs[-1][1] = n
        else:
            runs.append([n, n, who])
    return [(f"{a}" if a == b else f"{a}..{b}", who) for a, b, who in runs]


def hollow(part, name):
    """What to say of a winner's skill where it has little: ', but skill 0.05'."""
    skill = part.loc[part["name"] == name, "fid_skill"]
    if skill.isna().all():
        why = part.loc[part["name"] == name, "fid_reason"] if "fid_reason" in part else []
        return ", whose distance to softmax attention says nothing" if any(why) else ", whose skill was not measured"
    return f", but skill {skill.max():.2g}" if skill.max() < SKILLED else ""


def missing(rows):
    """{chart: why it would show nothing, and what adds that}, of the whole file."""
    ok, lacks = rows[rows["ok"]], {}
    lengths = sorted(set(ok["n"]))
    if len(lengths) == 1:
        words = (f"One length was measured, N={lengths[0]}: a curve needs two, such as --n {max(1, lengths[0] // 4)}..{lengths[0]}*2. "
                 "The table of cells has its figures.")
        lacks.update(dict.fromkeys(["time", "memory", "roof", "skill", "token-time", "state-bytes"], words))
    if REFERENCE not in set(ok["name"]):
        lacks["bubble"] = (f"'{REFERENCE}' was not measured: no speed is relative to it. attn_sweep --variants {REFERENCE} at the same "
                           "lengths and inputs adds it, in this file or in another one named beside it.")
    if ok["input"].nunique() == 1:
        lacks["inputs"] = f"One input was measured, {ok['input'].iloc[0]}: --input adds others."
    return lacks


def summary(rows, found):
    """At most ten lines: who wins at each N, crossovers, what was unstable, what was refused."""
    ok, short = rows[rows["ok"]], labels(rows)
    axes = main_group(rows[rows["ok"]])
    here = in_group(ok, axes)
    lines = [f"{len(ok)} of {len(rows)} cells measured: {ok['name'].nunique()} variants, N={ok['n'].min()}..{ok['n'].max()}"
             + (f"; below: {group_title(axes, ok)}" if len(list(groups(ok))) > 1 else f", {group_title(axes, ok)}")]
    real = here[here["family"] != "baseline"]
    real = real[real.groupby("n")["name"].transform("nunique") > 1]  # alone, nobody wins
    for title, part, by in (("fastest", real, "time_median_s"),
                            ("fastest with skill 0.9", real[real["fid_skill"] >= 0.9], "time_median_s"),
                            ("least memory", real.dropna(subset=["memory_bytes"]), "memory_bytes")):
        if part.empty:
            continue
        wins = part.loc[part.groupby("n")[by].idxmin()].sort_values("n")
        winners = spans(list(zip(wins["n"], wins["name"])))[:6]
        lines.append(f"{title}: " + "; ".join(f"{short[who]} at N={span}{hollow(wins, who) if title == 'fastest' else ''}"
                                              for span, who in winners))
    families = dict(zip(rows["name"], rows["family"]))
    for metric in ("time", "memory"):
        mine = [r for r in found if r["axes"] == axes and r["reference"] == REFERENCE and r["metric"] == metric
                and families[r["name"]] != "baseline"]
        if mine:
            mine.sort(key=lambda r: r["n_star"])
            beaten = [f"{short[r['name']]} {describe(r)}" for r in mine
                      if np.isfinite(r["n_star"]) and not undecided(r)]
            open_ones = sum(undecided(r) for r in mine)
            lines.append(f"ahead of {REFERENCE} in {metric}: " + ("; ".join(beaten[:8]) or f"none up to N={max(r['longest'] for r in mine)}")
                         + (f"; {len(beaten) - 8} more" if len(beaten) > 8 else "")
                         + (f"; {open_ones} undecided" if open_ones else ""))
    lines += models.summaries(rows)
    lacks = missing(rows)
    if "bubble" in lacks:
        lines.append(f"{REFERENCE} was not measured: no crossovers, nothing relative to it; attn_sweep --variants {REFERENCE} adds it")
    if "time" in lacks:
        lines.append(f"one length, N={ok['n'].iloc[0]}: no curves and no crossovers; --n with several adds them")
    shaky = ok[ok["unstable"] == 1]
    lines.append("unstable: " + (f"{len(shaky)} of {len(ok)} cells, most in " + ", ".join(
        f"{short[name]} ({count})" for name, count in shaky["name"].value_counts().head(4).items()) if len(shaky) else "none"))
    failed = rows[~rows["ok"]]
    if len(failed):
        first = failed.iloc[0]
        lines.append("not measured: " + ", ".join(f"{count} {status}" for status, count in failed["status"].value_counts().items())
                     + f"; the first: {short[first['name']]} at N={first['n']}, {first['reason'][:120]}")
    return lines


def refused_records(rows):
    """Failed cells gathered by variant, status and reason."""
    failed = rows[~rows["ok"]]
    return [{"name": name, "status": status, "reason": reason, "cells": len(part),
             "n": ", ".join(str(n) for n in sorted(set(part["n"])))}
            for (name, status, reason), part in failed.groupby(["name", "status", "reason"], sort=False)]


def unstable_records(rows):
    shaky = rows[rows["ok"] & (rows["unstable"] == 1)].copy()
    if shaky.empty or "time_ci_low_s" not in shaky:
        return []
    shaky["width"] = interval_width(shaky)
    varying = [axis for axis in axes_of(rows) if rows[axis].nunique() > 1]
    return [{"name": r["name"], "n": r["n"], "where": ", ".join(f"{a} {plain(r[a])}" for a in varying), "width": jsonable(r["width"]),
             "command": r["command"], "status": "ok", "reason": "", "time_median_s": r["time_median_s"], "unstable": 1,
             "time_ci_low_s": jsonable(r["time_ci_low_s"]), "time_ci_high_s": jsonable(r["time_ci_high_s"])}
            for r in shaky.sort_values("width", ascending=False).to_dict("records")]


def caveats(rows, runs, train):
    ok = rows[rows["ok"]]
    lines = [note + "." for run in runs for note in run.notes]
    shaky = int((ok["unstable"] == 1).sum())
    if shaky:
        lines.append(f"{shaky} of {len(ok)} measured cells are unstable: the 95 % interval of their median is wider than 10 %. Their "
                     "place among the others may be chance.")
    if "meters_agree" in rows and (ok["meters_agree"] == 0).any():
        lines.append(f"In {int((ok['meters_agree'] == 0).sum())} cells booked memory and resident set differ by more than 10 % + 4 MiB: "
                     "these show the resident set.")
    above = int((ok["roof_fraction"] > 1.05).sum())
    if above:
        lines.append(f"{above} cells are faster than the roof: the machine's peaks were measured while it was slower, so the fractions of "
                     "the roof are too large.")
    for run in runs:
        load = str(run.context.get("machine", {}).get("load_average", "")).split(" ")[0]
        cores = run.context.get("machine", {}).get("usable_cores")
        try:
            if float(load) > 0.5 * float(cores):
                lines.append(f"When {Path(run.path).name} began, the load average was {load} on {cores} cores: other programs ran beside it.")
        except (TypeError, ValueError):
            pass
    if "commit" in rows and rows["commit"].nunique() > 1:
        lines.append(f"The rows come from {rows['commit'].nunique()} commits: {', '.join(sorted(map(str, set(rows['commit']))))}.")
    if REFERENCE not in set(ok["name"]):
        lines.append(f"'{REFERENCE}' was not measured: there are no times relative to it and no crossovers.")
    lines.append("Fidelity is the distance to softmax attention on these Q, K, V; it says nothing about operators that are trained as "
                 "something else, which therefore have none.")
    if train is not None and (train["verdict"] == "inconclusive").any():
        lines.append("Task points whose full-attention control missed its bar are inconclusive.")
    if train is not None and train["accuracy"].isna().any():
        lost = train[train["accuracy"].isna()]["verdict"].value_counts()
        lines.append("Task points without an accuracy: " + ", ".join(f"{count} {verdict or 'of unknown end'}" for verdict, count in lost.items()) + ".")
    if train is not None:
        lines.append("A task point is the mean over its seeds at the learning rate that did best on the training samples.")
    return lines


def context_sections(runs):
    def flat(value, prefix=""):
        for key, item in value.items():
            if isinstance(item, dict):
                yield from flat(item, f"{prefix}{key}.")
            elif key == "caches":
                yield prefix + key, ", ".join(f"L{c.get('level')} {size(c.get('bytes', 0))} for {c.get('shared_by')}" for c in item)
            elif key == "peaks":
                for peak in item:
                    yield (f"peaks, {peak.get('isa')}, {peak.get('threads')} threads", ", ".join(
                        f"{k} {v:.4g}" for k, v in peak.items() if isinstance(v, (int, float)) and k != "threads"))
            else:
                yield prefix + key, ", ".join(map(str, item)) if isinstance(item, list) else str(item)
    return [{"title": Path(run.path).name, "facts": list(flat(run.context)) or [("context", "no context file")]} for run in runs]


def task_records(train):
    if train is None:
        return []
    return [{"name": r["name"], "family": r["family"], "task": r["task"], "n": int(r["n"]), "accuracy": jsonable(r["accuracy"]),
             "floor": jsonable(r["floor"]), "verdict": str(r["verdict"]), "hollow": int(str(r["verdict"]) == "inconclusive"),
             "command": str(r.get("command", ""))} for r in train.dropna(subset=["n"]).to_dict("records")]


def about(runs, column):
    """What a file says of a column that the page shows."""
    return next((told for run in runs if not run.trains and (told := run.columns.about("q_len" if column == "n" else column))), "")


def group_values(axes):
    return [jsonable(value) for value in axes.values()]


def page_data(rows, train, runs, found, kept, bubble="fid_skill"):
    ok = rows[rows["ok"]]
    columns, stem = page_columns(rows)
    task = task_records(train)
    families = {r["name"]: (r["family"] or "other", r.get("exactness", "")) for r in task}
    families.update({name: (family or "other", exact) for name, family, exact in zip(rows["name"], rows["family"], rows["exactness"])})
    short = labels(rows) if train is None else labels(rows, train)
    hues = colours({family for family, _ in families.values()})

    def place(name):
        return list(hues).index(families[name][0]), name

    axes = main_group(rows[rows["ok"]])
    host = runs[0].context.get("machine", {})
    return {
        "columns": columns, "command_stem": stem, "axes": list(axes), "always": ALWAYS, "reference": REFERENCE,
        "families": hues, "references": [r for r in REFERENCES if r in set(ok["name"])],
        "about": {column: told for column in columns if (told := about(runs, column))},
        "start": {axis: jsonable(value) for axis, value in axes.items()},
        "variants": {name: {"label": short[name], "family": families[name][0], "exactness": families[name][1]}
                     for name in sorted(families, key=place)},
        "crossovers": [{"name": r["name"], "reference": r["reference"], "metric": r["metric"], "says": describe(r),
                        "order": r["n_star"] if np.isfinite(r["n_star"]) else 1e18,  # JSON has no infinity to sort by
                        "group": group_values(r["axes"])} for r in found],
        "exponents": [{"name": r["name"], "group": group_values(r["axes"]), "contract": r["contract"], "declared": r["declared"],
                       **{k: round(r[k], 3) for k in ("exponent", "low", "high")}} for r in kept if np.isfinite(r["exponent"])],
        "train": task, "tasks": sorted({r["task"] for r in task}), "bubble": bubble,
        "refused": refused_records(rows), "unstable": unstable_records(rows), "caveats": caveats(rows, runs, train),
        "missing": missing(rows), "summary": summary(rows, found), "context": context_sections(runs),
        "subtitle": " · ".join(filter(None, [
            host.get("cpu", "machine unknown"), f"{host['usable_cores']} cores" if "usable_cores" in host else "",
            str(runs[0].context.get("date", "")), f"{len(ok)} of {len(rows)} cells measured"])),
    }


def chartjs(given):
    for path in [given] if given else CHARTJS:
        if Path(path).exists():
            return Path(path).read_text()
    raise Refusal(f"Chart.js was not found at {given or ' or '.join(CHARTJS)}: install libjs-chart.js or name it with --chartjs")


def page(data, title, library):
    # "<" never appears inside the JSON, so no row can close the script element that carries it.
    parts = {"TITLE": title.replace("<", "&lt;"), "STYLE": (PAGE / "style.css").read_text(),
             "CHARTJS": library.replace("</script", "<\\/script"), "SCRIPT": (PAGE / "views.js").read_text() + (PAGE / "page.js").read_text(),
             "DATA": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")}
    text = (PAGE / "page.html").read_text()
    head, *tail = text.split("@")
    # Split once: what is inserted may itself contain the markers' sign.
    return head + "".join(parts.get(piece, "@" + piece if i % 2 == 0 else piece) for i, piece in enumerate(tail))


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("csv", nargs="+")
    p.add_argument("-o", "--out", help="the page (default: the first CSV's name with .html)")
    p.add_argument("--figures", metavar="DIR", help="write the curves as SVG and PNG")
    p.add_argument("--bubble", metavar="WHAT", default="fid_skill", help="what the bubble chart has upwards at first: fid_skill, a task, or 'all tasks'")
    p.add_argument("--summary", action="store_true", help="print the path and a ten-line summary")
    p.add_argument("--any-machine", action="store_true", help="take runs of several machines together")
    p.add_argument("--attn-sweep", metavar="PROGRAM", help="whose --list=json has the declared exponents")
    p.add_argument("--chartjs", metavar="FILE", help="chart.min.js of Chart.js 3")
    return p.parse_args()


def main():
    args = arguments()
    rows, train, runs = read_all(args.csv, args.any_machine)
    measured(rows, ", ".join(args.csv))
    library = chartjs(args.chartjs)
    found = crossovers(rows, draws=DRAWS)
    declared, _ = listing(find_sweep(args.attn_sweep, runs))
    data = page_data(rows, train, runs, found, contracts(rows, declared, 0.25), args.bubble)
    choices = ["fid_skill", *data["tasks"], *(["all tasks"] if len(data["tasks"]) > 1 else [])]
    if args.bubble not in choices:
        raise Refusal(f"--bubble: '{args.bubble}' is not among {', '.join(choices)}")
    first = Path(args.csv[0])
    out = Path(args.out) if args.out else first.with_suffix(".html")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(data, first.name, library), encoding="utf-8")
    if args.figures:
        from figures import write_figures
        write_figures(Path(args.figures), rows, train)
    if args.summary:
        print("\n".join([f"report: {out}", *data["summary"]][:10]))
    else:
        print(out)
    return 0


if __name__ == "__main__":
    script(main)
