"""Sweeps over a folder of captures, --input npz:captured/: each file is a layer of one model."""
import copy
import json
import os
from pathlib import Path

import numpy as np

from attncsv import Refusal, group_title, in_group, jsonable, labels, main_group, render, seconds

SERVES = 0.9  # least skill of a variant that a summary calls serving a layer


def place_of(source):
    """(folder, file) of an input npz:FOLDER/FILE.npz[,...], or of model:NAME,layer=i as of a folder model:NAME; None of any other."""
    if source.startswith("model:"):
        folder, _, layer = source.partition(",layer=")
        return folder, f"layer{layer}"
    if not source.startswith("npz:"):
        return None
    folder, file = os.path.split(source[len("npz:"):].partition(",")[0])
    return os.path.normpath(folder), file


def folders(rows):
    """{folder: [input]} of the folders that several inputs lie in, layers in the order of their names."""
    found = {}
    for source in sorted(set(rows["input"])):
        place = place_of(source)
        if place:
            found.setdefault(place[0], []).append(source)
    return {folder: sources for folder, sources in found.items() if len(sources) > 1}


def layers(rows, model):
    """[(input, file)] of the layers of the model in this folder; refuses where none was measured."""
    wanted = os.path.normpath(model)
    held = {}
    for source in sorted(set(rows["input"])):
        place = place_of(source)
        if place:
            held.setdefault(place[0], []).append((source, place[1]))
    close = [folder for folder in held if folder == wanted or os.path.basename(folder) == os.path.basename(wanted)]
    exact = [wanted] if wanted in held else close
    if len(exact) != 1:
        raise Refusal(f"unmeasured: no cell with an input of the folder '{model}'; measured: "
                      + (", ".join(sorted(held)) or "no captures at all") + f"; attn_sweep --input npz:{model.rstrip('/')}/ does", 5)
    return held[exact[0]]


def told_names(model):
    """{file: layer} as capture.json beside the captures says."""
    try:
        told = json.loads((Path(model) / "capture.json").read_text())
        return {layer["file"]: layer["layer"] for layer in told["layers"] if layer.get("file")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def advise_layer(part, args, candidates):
    """(records at this layer's length, its case): the longest length where none is asked for."""
    axes = main_group(part)
    part = in_group(part, axes)
    asked = copy.copy(args)
    asked.n = args.n or int(part["n"].max())
    return candidates(part, asked), asked.n, axes


def advise_model(rows, args, select, candidates, notes):
    """Prints a variant for each layer; an exit code. `select` keeps what is asked of one input, `candidates` its figures."""
    names, short = told_names(args.model), labels(rows)
    picks, shared = [], None
    for source, file in layers(rows, args.model):
        part = select(rows[rows["input"] == source], args)
        records, n, axes = advise_layer(part, args, candidates)
        full = next((r for r in records if r["name"] == "full" and np.isfinite(r["time_s"])), None)
        if full is None:
            raise Refusal(f"full was not measured on {file} at N={n}: there is nothing to gain against", 5)
        fit = {r["name"]: r for r in records if not r["why_not"] and r["family"] != "baseline"}
        best = min(fit.values(), key=lambda r: r["time_s"], default=full)
        if best["time_s"] > full["time_s"]:
            best = full
        shared = set(fit) if shared is None else shared & set(fit)
        where = group_title({axis: value for axis, value in axes.items() if axis != "input"}, rows)
        picks.append({"file": file, "layer": names.get(file, file), "n": n, "where": where, "take": best["name"],
                      "time_s": best["time_s"], "full_s": full["time_s"], "skill": 1.0 if best["name"] == "full" else best["skill"],
                      "unstable": best["unstable"] or full["unstable"], "basis": best["basis"], "fit": {name: r["time_s"] for name, r in fit.items()},
                      "command": best["command"]})
    full_s, time_s = (sum(p[key] for p in picks) for key in ("full_s", "time_s"))
    for p in picks:
        p["share"] = p["full_s"] / full_s
    alone = {name: sum(p["fit"][name] for p in picks) for name in shared}
    single = min(alone, key=alone.get, default=None)
    tell = {"model": args.model, "skill_asked": args.skill, "full_s": full_s, "time_s": time_s, "gain": full_s / time_s,
            "least_skill": min(p["skill"] for p in picks), "one_for_all": single, "one_for_all_s": alone.get(single),
            "layers": [{key: jsonable(value) for key, value in p.items() if key != "fit"} for p in picks], "notes": notes}
    return say(tell, picks, args, short)


def say(tell, picks, args, short):
    if args.format == "json":
        print(json.dumps({key: jsonable(value) for key, value in tell.items()}, indent=2))
        return 0
    if args.format == "csv":
        print(render(picks, ["file", "layer", "n", "take", "time_s", "full_s", "share", "skill", "unstable", "basis", "command"], "csv"), end="")
        return 0
    rows = [{"layer": p["file"] if p["layer"] == p["file"] else f"{p['file']}, {p['layer']}", "N": str(p["n"]),
             "share of full": f"{100 * p['share']:.0f} %", "take": short[p["take"]],
             "time": seconds(p["time_s"]) + (" (unstable)" if p["unstable"] else ""), "full": seconds(p["full_s"]),
             "gain": f"{p['full_s'] / p['time_s']:.2f}x", "skill": f"{p['skill']:.3f}" if np.isfinite(p["skill"]) else "unmeasured"} for p in picks]
    cases = sorted({p["where"] for p in picks})
    print(f"{args.model}, {len(picks)} layers" + (f", skill of at least {args.skill:g}" if args.skill is not None else "") + f"; {cases[0]}\n")
    print(render(rows, list(rows[0]), args.format))
    print(f"All attentions: {seconds(tell['full_s'])} with full, {seconds(tell['time_s'])} with these: {tell['gain']:.2f} times as fast; "
          f"least skill {tell['least_skill']:.3f}." if np.isfinite(tell["least_skill"]) else
          f"All attentions: {seconds(tell['full_s'])} with full, {seconds(tell['time_s'])} with these: {tell['gain']:.2f} times as fast; "
          "skill unmeasured.")
    if tell["one_for_all"] is not None:
        print(f"One variant for all layers: {short[tell['one_for_all']]}, {seconds(tell['one_for_all_s'])}.")
    if len({(p["n"]) for p in picks}) > 1:
        print(f"The layers have {len({p['n'] for p in picks})} lengths: each is judged at its own.")
    print("A layer's skill is its own: what the errors of all of them do to the model's answers is not measured here.")
    for note in tell["notes"]:
        print(f"{note}.")
    return 0


def summaries(rows):
    """A sentence a model: which of its layers each variant serves, at the longest length of each."""
    lines, short = [], labels(rows)
    for folder, sources in folders(rows).items():
        serves, layers_measured = {}, 0
        for source in sources:
            part = rows[(rows["input"] == source) & rows["ok"]]
            if part.empty:
                continue
            part = in_group(part, main_group(part))
            part = part[(part["n"] == part["n"].max()) & (part["family"] != "baseline")]
            full = part.loc[part["name"] == "full", "time_median_s"]
            layers_measured += 1
            faster = part["time_median_s"] < (full.iloc[0] if len(full) else np.inf)
            for name in part.loc[faster & (part["fid_skill"] >= SERVES) & (part["name"] != "full"), "name"]:
                serves.setdefault(name, []).append(place_of(source)[1].removesuffix(".npz"))
        ranked = sorted(serves.items(), key=lambda item: -len(item[1]))[:4]
        lines.append(f"model {folder}, {layers_measured} layers: faster than full with skill {SERVES:g}: "
                     + ("; ".join(f"{short[name]} in {len(where)}" + (f" ({', '.join(where)})" if len(where) <= 4 else "")
                                  for name, where in ranked) or "nothing in any"))
    return lines
