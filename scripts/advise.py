#!/usr/bin/python3
"""Which measured variant to take: advise.py results/a.csv --n 16384 --head-dim 64 --causal --skill 0.9 --input local

Ranks by time the variants that satisfy what is asked. Figures at a length between two measured ones are interpolated in
log-log and say so; beyond the measured lengths there is no guess, only "unmeasured". With --pass decode --n is the context and the
time that of a step. With --model captured/ a variant is picked for each layer, and what all of them together gain and lose is said.

With --measure what is asked is measured first, each variant with the smallest budget that reaches --skill:
advise.py --measure --n 8000 --causal --head-dim 128 --input text:book.txt --skill 0.9

exit codes: 0 an answer, 2 bad input, 5 nothing measured satisfies it
"""
import argparse
import json
import re
from pathlib import Path

import numpy as np

from attncsv import (PAGE, Refusal, group_title, in_group, jsonable, labels, main_group, measured, parse_size, plain, read_all,
                     render, script, seconds, size)
from attnmeasure import measure
from crossover import find_sweep
from models import advise_model

ROOT = Path(__file__).resolve().parents[1]


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("csv", nargs="*", help="default: every CSV of results/ with a context")
    p.add_argument("--n", type=int, help="the length; with --model each layer's longest where it is not given")
    p.add_argument("--model", metavar="FOLDER", help="of captures (capture.py) that were swept by --input npz:FOLDER/: a variant for each layer")
    p.add_argument("--head-dim", type=int)
    p.add_argument("--threads", type=int)
    p.add_argument("--batch", type=int)
    p.add_argument("--heads", type=int)
    p.add_argument("--causal", nargs="?", const="yes", choices=["yes", "no"], default="no", help="no or yes; alone: yes")
    p.add_argument("--no-causal", dest="causal", action="store_const", const="no", help=argparse.SUPPRESS)
    p.add_argument("--shape", help="a model that attn_sweep --list shapes has")
    p.add_argument("--pass", dest="kind", choices=["forward", "forward_backward", "decode"], default="forward", help="default: forward")
    p.add_argument("--step", type=int, help="new tokens of a step, with --pass decode")
    p.add_argument("--input", help="as in the CSV, or its kind: local stands for local:...")
    p.add_argument("--skill", type=float, help="least fidelity to softmax attention on this input")
    p.add_argument("--memory", help="most memory beyond inputs and output, such as 512M")
    p.add_argument("--time", type=float, help="most seconds a run")
    p.add_argument("--any-machine", action="store_true")
    p.add_argument("--format", choices=["text", "md", "csv", "json"], default="text")
    p.add_argument("--measure", action="store_true", help="run attn_sweep for just this question, then answer")
    p.add_argument("--variants", help="with --measure: as attn_sweep takes them (default: full and all that aim at it untrained)")
    p.add_argument("--budget", type=float, help="with --measure: seconds after which no variant is begun")
    p.add_argument("--out", help="with --measure: its CSV (default: results/advise-*.csv)")
    p.add_argument("--attn-sweep", metavar="PROGRAM", help="with --measure: which (default: this tree's, or the PATH's)")
    args = p.parse_args()
    args.causal = args.causal == "yes"
    return args


def available(rows, axis):
    return ", ".join(plain(v) for v in sorted(set(rows[axis]), key=str))


def asked_rows(rows, args):
    """The rows of what is asked; refuses with what was measured instead."""
    part = rows[rows["pass"] == args.kind] if "pass" in rows else rows
    if part.empty:
        raise Refusal(f"unmeasured: no cell with pass {args.kind}; measured: {available(rows, 'pass')}", 5)
    causal = args.causal or args.kind == "decode"
    if not args.model:  # a layer's capture says whether it is causal
        part = part[part["causal"] == int(causal)]
    if part.empty:
        raise Refusal(f"unmeasured: no {'causal' if causal else 'non-causal'} cell in these files", 5)
    for axis in ("head_dim", "threads", "batch", "heads", "step", "shape"):
        wanted = getattr(args, axis)
        if wanted is None:
            continue
        if axis not in part or not (part[axis] == wanted).any():
            if axis not in part:
                raise Refusal(f"unmeasured: no cell with {axis} {wanted}: these files name none", 5)
            raise Refusal(f"unmeasured: no cell with {axis} {wanted}; measured: {available(part, axis)}", 5)
        part = part[part[axis] == wanted]
    if args.input is not None:
        match = (part["input"] == args.input) | part["input"].str.startswith(args.input + ":")
        if not match.any():
            raise Refusal(f"unmeasured: no cell with input {args.input}; measured: {available(part, 'input')}", 5)
        part = part[match]
    return part


def select(rows, args):
    part = asked_rows(rows, args)
    # What was not asked must not mix: the case with most cells is taken, and named, and so are the others.
    axes = main_group(part)
    others = {axis: [plain(v) for v in sorted(set(part[axis]) - {value}, key=str)] for axis, value in axes.items() if axis in part}
    return in_group(part, axes), axes, {axis: values for axis, values in others.items() if values}


def at_length(lengths, values, n, logarithmic):
    """(value, 'measured' | 'interpolated between A and B'), or (nan, why not)."""
    known = [(x, y) for x, y in zip(lengths, values) if np.isfinite(y)]
    if not known:
        return np.nan, "unmeasured"
    x, y = np.array([k[0] for k in known], dtype=float), np.array([k[1] for k in known], dtype=float)
    if n in x:
        return float(y[list(x).index(n)]), "measured"
    if n < x[0] or n > x[-1]:
        return np.nan, f"unmeasured: measured from N={x[0]:.0f} to {x[-1]:.0f}"
    i = int(np.searchsorted(x, n))
    y0, y1 = (np.log(np.maximum(y[i - 1:i + 1], PAGE * 1e-12)) if logarithmic else y[i - 1:i + 1])
    value = y0 + (y1 - y0) * np.log(n / x[i - 1]) / np.log(x[i] / x[i - 1])
    return float(np.exp(value) if logarithmic else value), f"interpolated between N={x[i - 1]:.0f} and {x[i]:.0f}"


def candidates(rows, args):
    """A record for each variant: figures at N, and why it is not among the answers where it is not."""
    memory = parse_size(args.memory) if args.memory else None
    records = []
    for name, part in rows.groupby("name"):
        part = part.sort_values("n")
        ok = part[part["ok"]]
        exactly = part[part["n"] == args.n]
        time_s, basis = at_length(ok["n"], ok["time_median_s"], args.n, True)
        used, memory_basis = at_length(ok["n"], ok["memory_bytes"].clip(lower=PAGE), args.n, True)
        skill, skill_basis = at_length(ok["n"], ok["fid_skill"], args.n, False)
        why = []
        if len(exactly) and not exactly["ok"].any():
            first = exactly.iloc[0]
            time_s, basis = np.nan, f"{first['status']} at N={args.n}: {first['reason']}"
        if not np.isfinite(time_s):
            why.append(basis)
        elif args.time is not None and time_s > args.time:
            why.append(f"takes {seconds(time_s)}")
        if memory is not None and not why:
            if not np.isfinite(used):
                why.append(f"memory {memory_basis}")
            elif used > memory:
                why.append(f"needs {size(used)}")
        if args.skill is not None and not (why and not np.isfinite(time_s)):
            if not np.isfinite(skill):
                reasons = [r for r in part.get("fid_reason", []) if r]
                why.append(f"skill unmeasured{': ' + reasons[0] if reasons else ''}")
            elif skill < args.skill:
                why.append(f"skill {skill:.3f}")
        used_n = {args.n} if basis == "measured" else {ok["n"][ok["n"] < args.n].max(), ok["n"][ok["n"] > args.n].min()}
        shaky = bool((ok[ok["n"].isin(used_n)]["unstable"] == 1).any())
        per_step = (part["batch"] * part["step"]).iloc[0] if args.kind == "decode" else np.nan
        records.append({"name": name, "time_s": time_s, "basis": basis, "memory_bytes": used, "skill": skill, "unstable": shaky,
                        "tokens_per_s": per_step / time_s,
                        "state_bytes": at_length(ok["n"], ok["state_bytes"], args.n, True)[0] if args.kind == "decode" else np.nan,
                        "exactness": part.iloc[0]["exactness"], "family": part.iloc[0]["family"], "why_not": "; ".join(why),
                        "command": (exactly if len(exactly) else part).iloc[-1]["command"]})
    return sorted(records, key=lambda r: (bool(r["why_not"]), r["time_s"] if np.isfinite(r["time_s"]) else np.inf))


def check_measurable(args):
    if args.csv:
        raise Refusal(f"--measure writes a CSV of its own, '{args.csv[0]}' is given; accepted: one of them")
    if args.model:
        raise Refusal("--measure is of one input: sweep a folder of captures with attn_sweep --input npz:FOLDER/")
    if args.n is None:
        raise Refusal("--measure needs --n, the length")


def main():
    args = arguments()
    if args.measure:
        check_measurable(args)
    if args.n is None and not args.model:
        raise Refusal("give --n, the length, or --model, a folder of captures")
    if args.n is not None and args.n < 1:
        raise Refusal("--n must be at least 1")
    if args.model and args.input:
        raise Refusal("--model names the inputs: --input is given besides")
    if args.step is not None and args.kind != "decode":
        raise Refusal("--step is of a decode: give --pass decode too")
    if args.skill is not None and not args.skill <= 1:
        raise Refusal("--skill is at most 1, which is softmax attention itself")
    for option in ("variants", "budget", "out", "attn_sweep"):
        if getattr(args, option) is not None and not args.measure:
            raise Refusal(f"--{option.replace('_', '-')} is of --measure: give that too")
    if args.measure:
        args.csv = [measure(args, find_sweep(args.attn_sweep))]
        args.input = None  # the file has no other, under its canonical name
        if args.shape is not None:
            args.causal = bool(read_all(args.csv)[0]["causal"].iloc[0])
    paths = args.csv or [str(p) for p in sorted((ROOT / "results").glob("*.csv")) if p.with_suffix(".context.json").exists()]
    if not paths:
        raise Refusal("no CSV given and none in results/: run scripts/run_sweep.sh first")
    rows, _, runs = read_all(paths, args.any_machine)
    measured(rows, ", ".join(paths))
    if args.model:
        return advise_model(rows, args, asked_rows, candidates, [note for run in runs for note in run.notes])
    part, axes, also = select(rows, args)
    records = [r for r in candidates(part, args) if r["family"] != "baseline"]
    answers, others = [r for r in records if not r["why_not"]], [r for r in records if r["why_not"]]
    short = labels(rows)
    full = next((r["time_s"] for r in records if r["name"] == "full"), np.nan)

    if args.format == "json":
        clean = lambda r: {k: jsonable(v) for k, v in r.items()}  # noqa: E731
        print(json.dumps({"n": args.n, "case": {k: jsonable(v) for k, v in axes.items()}, "also_measured": also, "answers": [clean(r) for r in answers],
                          "not": [clean(r) for r in others]}, indent=2))
        return 0 if answers else 5
    decode = lambda r: {"tokens/s": f"{r['tokens_per_s']:.3g}", "state": size(r["state_bytes"])} if args.kind == "decode" else {}  # noqa: E731
    table = [{"rank": i, "variant": short[r["name"]], "time": seconds(r["time_s"]) + (" (unstable)" if r["unstable"] else ""),
              "over full": f"{r['time_s'] / full:.2f}" if np.isfinite(full) else "", **decode(r), "memory": size(r["memory_bytes"]),
              "skill": f"{r['skill']:.3f}" if np.isfinite(r["skill"]) else "", "kind": r["exactness"], "basis": r["basis"]}
             for i, r in enumerate(answers, 1)]
    if args.format == "csv":
        print(render([{**r, "rank": i} for i, r in enumerate(answers, 1)], ["rank", "name", "time_s", "tokens_per_s", "state_bytes", "memory_bytes", "skill", "exactness",
                                                                            "basis", "unstable", "command"], "csv"), end="")
        return 0 if answers else 5
    print(f"N={args.n}, {group_title(axes, rows)}" + (
        "; also measured: " + "; ".join(f"{axis} {', '.join(values)}" for axis, values in also.items()) if also else "") + "\n")
    if table:
        print(render(table, list(table[0]), args.format))
        command = re.sub(r"--n \d+", f"--n {args.n}", answers[0]["command"])
        print(f"{'Repeat' if answers[0]['basis'] == 'measured' else 'Measure'} the first: {command}\n")
    else:
        print("No measured variant satisfies this.\n")
    if others:
        print(render([{"not": short[r["name"]], "because": r["why_not"]} for r in others], ["not", "because"], args.format), end="")
    for note in [note for run in runs for note in run.notes]:
        print(f"{note}.")
    return 0 if answers else 5


if __name__ == "__main__":
    script(main)
