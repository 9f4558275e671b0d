#!/usr/bin/env python3
"""Checks what scripts/train_facts.sh trained: one line a fact, exit 1 if one does not hold. Facts without rows are "not run"."""
import csv
import sys
from pathlib import Path


def models(path):
    """{(variant, options' text, n, width): row of the rate that learned best, accuracy averaged over seeds}."""
    groups = {}
    if path.exists():
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                if row["accuracy"]:
                    key = (row["variant"], row["options"], int(row["n"]), int(row["width"]))
                    groups.setdefault(key, {}).setdefault(float(row["rate"]), []).append(row)
    found = {}
    for key, rates in groups.items():
        def learned(rows):
            return sum(float(row["train_accuracy"]) for row in rows) / len(rows)
        rows = max(rates.values(), key=learned)
        levels = dict(part.split("=") for part in rows[0]["levels"].split(";"))
        found[key] = {"accuracy": sum(float(row["accuracy"]) for row in rows) / len(rows), "seeds": len(rows),
                      "floor": float(rows[0]["floor"]), "levels": {name: float(value) for name, value in levels.items()}}
    return found


class Facts:
    def __init__(self, folder):
        self.folder, self.failed = Path(folder), 0

    def of(self, fact):
        self.rows = models(self.folder / f"{fact}.train.csv")

    def row(self, variant, options="", n=None, width=None):
        for (v, o, length, w), row in self.rows.items():
            if v == variant and options in o and n in (None, length) and width in (None, w):
                return row
        return None

    def check(self, sentence, rows, holds):
        if any(row is None for row in rows):
            print(f"not run   {sentence}")
            return
        figures = ", ".join(f"{row['accuracy']:.3f} ({row['seeds']} seeds)" for row in rows)
        good = holds(*rows)
        self.failed += not good
        print(f"{'holds' if good else 'FAILS':<9} {sentence}: {figures}")


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: train_facts.py FOLDER")
    f = Facts(sys.argv[1])

    f.of("toys")
    f.check("N=64, 8 pairs: full is solved, linear to 0.97", [f.row("full"), f.row("linear")],
            lambda full, linear: full["accuracy"] >= 0.98 and linear["accuracy"] >= 0.97)
    f.check("N=64, 8 pairs: a window of 16 reaches its ceiling", [f.row("local")],
            lambda local: -0.08 <= local["accuracy"] - local["levels"]["window_16"] <= 0.03)
    f.check("N=64, 8 pairs: a random Synthesizer stays at the floor", [f.row("synth_random")],
            lambda blind: blind["accuracy"] <= blind["floor"] + 0.03)

    f.of("capacity")
    full, linear, blind = (f.row(v, n=128, width=32) for v in ("full", "linear", "synth_random"))
    f.check("N=128, 32 pairs, width 32: full is solved", [full], lambda row: row["accuracy"] >= 0.98)
    f.check("N=128, 32 pairs, width 32: linear is short of capacity", [linear], lambda row: 0.80 <= row["accuracy"] <= 0.95)
    f.check("N=128, 32 pairs, width 32: full beats linear by 0.05", [full, linear],
            lambda a, b: a["accuracy"] - b["accuracy"] >= 0.05)
    f.check("N=128, 32 pairs, width 32: a random Synthesizer stays at the floor", [blind],
            lambda row: row["accuracy"] <= row["floor"] + 0.03)
    f.check("N=128, 32 pairs, width 64: linear is solved", [f.row("linear", n=128, width=64)], lambda row: row["accuracy"] >= 0.97)

    f.of("lowrank")
    f.check("N=64, 8 pairs: Linformer recalls with k=16, not with k=4", [f.row("linformer", "k=16"), f.row("linformer", "k=4,")],
            lambda wide, narrow: wide["accuracy"] >= 0.97 and narrow["accuracy"] <= 0.5)
    windows = [f.row("local", f"left={w},") for w in (8, 16, 32)]
    f.check("N=64, 8 pairs: windows of 8, 16, 32 reach their ceilings", windows,
            lambda *rows: all(-0.08 <= row["accuracy"] - row["levels"][f"window_{w}"] <= 0.03 for row, w in zip(rows, (8, 16, 32))))

    f.of("marker")
    f.check("marker, N=128: a window of 16 is at chance, full is solved", [f.row("local"), f.row("full")],
            lambda local, whole: local["accuracy"] <= 0.1 + 0.03 and whole["accuracy"] >= 0.99)
    f.check("marker, N=128: one global token lifts the window", [f.row("longformer")], lambda row: row["accuracy"] >= 0.95)

    f.of("listops")
    full = f.row("full")
    f.check("ListOps, N=128: full reaches the root operator's rung", [full],
            lambda row: row["accuracy"] >= row["levels"]["root_operator"] - 0.03)
    sys.exit(1 if f.failed else 0)


if __name__ == "__main__":
    main()
