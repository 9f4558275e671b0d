#!/usr/bin/env python3
"""Checks what scripts/train_facts.sh trained: one line a fact, exit 1 if one does not hold. Facts without rows are "not run",
those whose control was not trained to its bar "inconclusive".

train_facts.py TRAIN.csv [SWEEP.csv ...]; of the sweeps, the times at 4096 tokens, each relative to full attention in its own file.
"""
import csv
import sys


def native(row):
    """Computed by the variant's own page."""
    return row.get("implementation", "") in ("", "native") and row["variant"] != "full_unfused"


def models(path):
    """{(task, n, width, variant): [of each options' text, the mean over seeds, each at its rate of the best training accuracy]}."""
    groups = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            if row["accuracy"] and native(row):
                few = row.get("samples", "0")
                task = row["task"] + (f" samples={few}" if few not in ("", "0") else "")
                key = (task, int(row["n"]), int(row["width"]), row["variant"], row["options"])
                groups.setdefault(key, {}).setdefault(row["seed"], []).append(row)
    found = {}
    for (*key, options), seeds in groups.items():
        rows = [max(rates, key=lambda row: float(row["train_accuracy"])) for rates in seeds.values()]
        levels = dict(part.split("=") for part in rows[0]["levels"].split(";"))
        found.setdefault(tuple(key), []).append(
            {"variant": key[-1], "options": options, "accuracy": sum(float(row["accuracy"]) for row in rows) / len(rows),
             "seeds": len(rows), "verdicts": {row["verdict"] for row in rows},
             "floor": float(rows[0]["floor"]), "levels": {name: float(x) for name, x in levels.items()}})
    return found


def speedups(paths):
    """{variant: how many times as fast as full attention at 4096 tokens}; of several options the fastest."""
    found = {}
    for path in paths:
        times = {}
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                whole = row["q_len"] == "4096" and row["causal"] == "0" and row.get("pass", "") in ("", "forward") and native(row)
                if whole and row["time_median_s"]:
                    times.setdefault(row["threads"], {}).setdefault(row["variant"], []).append(float(row["time_median_s"]))
        for of in times.values():
            for variant in of if "full" in of else ():
                found[variant] = max(found.get(variant, 0), min(of["full"]) / min(of[variant]))
    return found


class Facts:
    def __init__(self, path):
        self.found, self.failed = models(path), 0

    def at(self, task, n, width):
        """The rows of one model and task: at(...)("local", "left=16,")."""
        def row(variant, options=""):
            return next((r for r in self.found.get((task, n, width, variant), []) if options in r["options"]), None)
        return row

    def all(self, task, n, width):
        return [r for (t, length, w, _), rows in self.found.items() if (t, length, w) == (task, n, width) for r in rows]

    def check(self, sentence, rows, holds):
        if not rows or any(row is None for row in rows):
            print(f"{'not run':<12} {sentence}")
            return
        figures = ", ".join(f"{row['variant']} {row['accuracy']:.3f} (seeds: {row['seeds']})" for row in rows)
        if any("inconclusive" in row["verdicts"] for row in rows):
            print(f"inconclusive {sentence}: {figures}")
            return
        self.tell(holds(*rows), sentence, figures)

    def check_speed(self, sentence, ratios, needed, holds):
        if any(name not in ratios for name in needed):
            print(f"{'not run':<12} {sentence}")
            return
        self.tell(holds(*(ratios[name] for name in needed)), sentence, ", ".join(f"{name} {ratios[name]:.1f}" for name in needed))

    def tell(self, good, sentence, figures):
        self.failed += not good
        print(f"{'holds' if good else 'FAILS':<12} {sentence}: {figures}")


def above(bar):
    return lambda *rows: all(row["accuracy"] >= bar for row in rows)


def below(bar):
    return lambda *rows: all(row["accuracy"] <= bar for row in rows)


def blind(row):
    return row["accuracy"] <= row["floor"] + 0.03


def in_window(*rows):
    def ceiling(row):
        return row["levels"]["window_" + row["options"].split("left=")[1].split(",")[0]]
    return all(-0.08 <= row["accuracy"] - ceiling(row) <= 0.03 for row in rows)


def on_a_rung(*rows):
    return all(min(abs(row["accuracy"] - level) for level in row["levels"].values()) <= 0.03 for row in rows)


def main():
    if len(sys.argv) < 2:
        sys.exit("usage: train_facts.py TRAIN.csv [SWEEP.csv ...]")
    f = Facts(sys.argv[1])

    of = f.at("mqar:kv=8", 64, 64)
    f.check("recall, N=64, 8 pairs: full and linear solve it", [of("full"), of("linear")], above(0.97))
    f.check("recall, N=64, 8 pairs: a random Synthesizer stays at the floor", [of("synth_random")], blind)
    for window in (8, 16, 32):
        f.check(f"recall, N=64, 8 pairs: a window of {window} reaches its ceiling", [of("local", f"left={window},")], in_window)

    taught = f.at("mqar:kv=8,curriculum=yes", 64, 64)
    f.check("recall, N=64, 8 pairs: Linformer with k=16 solves it, with a curriculum",
            [taught("full"), taught("linformer", "k=16,")], above(0.97))
    f.check("recall, N=64, 8 pairs: Linformer with k=4 does not", [of("linformer", "k=4,")], below(0.5))

    of = f.at("mqar:kv=32", 128, 32)
    full, linear = of("full"), of("linear")
    f.check("recall, N=128, 32 pairs, width 32: full solves it", [full], above(0.98))
    f.check("recall, N=128, 32 pairs, width 32: linear is short of capacity", [linear], lambda row: 0.80 <= row["accuracy"] <= 0.95)
    f.check("recall, N=128, 32 pairs, width 32: full beats linear by 0.05", [full, linear],
            lambda a, b: a["accuracy"] - b["accuracy"] >= 0.05)
    f.check("recall, N=128, 32 pairs, width 32: a random Synthesizer stays at the floor", [of("synth_random")], blind)
    f.check("recall, N=128, 32 pairs, width 64: linear solves it", [f.at("mqar:kv=32", 128, 64)("linear")], above(0.97))

    of = f.at("marker", 128, 32)
    f.check("marker, N=128: full solves it", [of("full")], above(0.99))
    f.check("marker, N=128: a window of 16 stays at chance", [of("local")], below(0.1 + 0.03))
    f.check("marker, N=128: one global token lifts the window", [of("longformer")], above(0.95))

    for task, n in (("induction", 30), ("associative_recall", 40)):
        of = f.at(task, n, 32)
        f.check(f"{task}, N={n}: full solves it", [of("full")], above(0.97))
        f.check(f"{task}, N={n}: a Synthesizer, FNet and a window of 4 are far below",
                [of(v) for v in ("synth_random", "fnet", "local")], below(0.6))

    of = f.at("reverse", 30, 64)
    f.check("reverse, N=30: additive and dot-product attention do it", [of("full"), of("additive")], above(0.9))
    f.check("reverse, N=30: a recurrent encoder and decoder without attention do not", [of("gru")], below(0.6))
    f.check("reverse, N=5: without attention it is done", [f.at("reverse", 5, 64)("gru")], above(0.9))

    of = f.at("listops", 128, 32)
    f.check("ListOps, N=128: full reaches the root operator's rung", [of("full")],
            lambda row: row["accuracy"] >= row["levels"]["root_operator"] - 0.03)
    f.check("ListOps, N=128: every learner stands on a rung", f.all("listops", 128, 32), on_a_rung)

    for n in (64, 128, 256):
        control = f.at("mqar:curriculum=yes", n, 32)("full") or f.at("mqar", n, 32)("full")
        f.check(f"recall against length, N={n}: the control solves it", [control], above(0.97))

    ratios, fast = speedups(sys.argv[2:]), ("linear", "performer", "linformer", "local")
    f.check_speed("4096 tokens: at least three times as fast as full", ratios, fast, lambda *of: min(of) >= 3)
    f.check_speed("4096 tokens: Reformer is not among the three fastest", ratios, (*fast, "reformer"),
                  lambda *of: sorted(of).index(of[-1]) < len(of) - 3)
    sys.exit(1 if f.failed else 0)


if __name__ == "__main__":
    main()
