#!/usr/bin/python3
"""What more ranks would do, predicted from measured rows of implementations over ranks: predict_ranks.py results/ranks.csv

    attn_sweep --variants full@ring,linear@scan,local@halo --n 1024..16384*2 --ranks 1,2 --threads 1 --out results/ranks.csv

The model: a rank's arithmetic is fitted to the rows of one rank, as a power of N with a floor for the start; its traffic is the formula of the
scheme (harness/attn/ranks/README.md); messages take alpha seconds where they wait for each other and beta a byte, fitted to rank_messages_s of the
rows of more ranks, or those of --network; replay_ranks.py holds the formulas against a simulated network. A ring hides what its steps' arithmetic is longer than, and pays the expected maximum over all ranks at every step; all other schemes
pay their messages in full, once. Everything printed is predicted, but for the lines that hold the model against rows that it was not fitted to.

exit codes: 0 done, 2 bad input, 5 no rows of one rank
"""
import argparse
import math
from pathlib import Path

import numpy as np

from attncsv import Refusal, read_all, render, samples, script

RANKS = (8, 64, 1024)
BYTES = {"f32": 4, "bf16": 2, "f16": 2}
FACTOR = 1.4826  # of a median absolute deviation, for a standard deviation


def shape_of(row):
    return {key: int(row[key]) for key in ("batch", "heads", "kv_heads", "head_dim", "value_dim")} | {
        "e": BYTES[row["dtype"]], "options": dict(o.split("=") for o in row["options"].split(",") if "=" in o)
        if isinstance(row["options"], str) else {}, "id": row["variant"], "scheme": row["implementation"]}


SCHEMES = ("ring", "halo", "ulysses", "scan", "reduce")


def hops(p):
    """Of a sum over p ranks that all come to: the messages of the rank with the most."""
    whole = int(math.log2(p))
    return whole + (1 if 2**whole != p else 0)


def in_a_row(s, p):
    """How many messages of a run wait for each other. A window's neighbours are asked at once, as are all ranks in each of the two exchanges of
    Ulysses. In a sum over p ranks, where p is no power of two, some ranks speak for two, and tell the other in the end."""
    if s["scheme"] in ("scan", "reduce"):
        return hops(p) + (1 if hops(p) != math.log2(p) else 0)
    return {"ring": p - 1, "halo": 1, "ulysses": 2}[s["scheme"]]


def reach_of(s):
    """Tokens that a query of a pattern sees before and behind it, as harness/attn/ranks/halo.cpp has it."""
    numbers = {name: math.inf if value == "unlimited" else int(value) for name, value in s["options"].items() if value.isdigit() or value == "unlimited"}
    if s["id"] == "local":
        return numbers["left"], numbers["right"]
    if s["id"] == "dilated":
        return (numbers["window"] * numbers["step"],) * 2
    return numbers["block"] * numbers["before"], numbers["block"] * numbers["after"]


def traffic(s, n, p):
    """(messages, bytes) of the rank that sends most, of N = n tokens over p ranks."""
    if p == 1:
        return 0, 0
    kv_row = s["e"] * s["batch"] * s["kv_heads"] * (s["head_dim"] + s["value_dim"])
    if s["scheme"] == "ring":
        return p - 1, kv_row * n * (p - 1) / p
    if s["scheme"] == "halo":
        others = n - n / p  # tokens
        sides = [min(reach, others) for reach in reach_of(s)] if p > 2 else [min(max(reach_of(s)), others)]
        return min(p - 1, sum(math.ceil(side * p / n) for side in sides)), kv_row * min(sum(sides), others)
    if s["scheme"] == "ulysses":
        row = s["batch"] * (s["e"] * (s["heads"] * s["head_dim"] + s["kv_heads"] * (s["head_dim"] + s["value_dim"])) +
                            4 * s["heads"] * s["value_dim"])
        return 4 * (p - 1), row * n / p * (p - 1) / p
    heads = s["batch"] * s["heads"]
    if s["id"] == "linformer":
        numbers = s["batch"] * s["kv_heads"] * int(s["options"]["k"]) * (s["head_dim"] + s["value_dim"])
    elif s["id"] == "inducing":
        numbers = heads * int(s["options"]["m"]) * (s["value_dim"] + 1)
    else:
        d = s["head_dim"]
        features = {"linear": d, "hedgehog": 2 * d, "taylor": 1 + d + d * (d + 1) // 2}.get(s["id"]) or int(s["options"]["m"])
        numbers = s["batch"] * s["kv_heads"] * features * (s["value_dim"] + 1)
    return hops(p), 4 * numbers * hops(p)


class Arithmetic:
    """Seconds of one rank over N tokens: c N^x between and beyond the measured lengths, no less than the shortest one took in proportion."""

    def __init__(self, rows):
        rows = rows.sort_values("n")
        self.n, self.s = rows["n"].to_numpy(float), rows["time_median_s"].to_numpy(float)
        self.spread = float(np.median([FACTOR * np.median(np.abs(samples(r) - np.median(samples(r)))) / np.median(samples(r))
                                       for r in rows.to_dict("records")]))

    def __call__(self, n, exponent):
        if n <= self.n[0]:
            return self.s[0] * (n / self.n[0]) ** exponent
        if n >= self.n[-1]:
            return self.s[-1] * (n / self.n[-1]) ** exponent
        return float(np.exp(np.interp(math.log(n), np.log(self.n), np.log(self.s))))


class Model:
    def __init__(self, row, arithmetic, network):
        self.shape, self.arithmetic, self.network = shape_of(row), arithmetic, network

    def own(self, n, p):
        """Arithmetic of one of p ranks, but of a ring."""
        if self.shape["id"] == "full":
            return self.arithmetic(n, 2) / p
        return self.arithmetic(n, 1) / p if self.shape["scheme"] == "ulysses" else self.arithmetic(n / p, 1)

    def seconds(self, n, p):
        """Of the slowest rank."""
        alpha, beta = self.network
        messages, sent = traffic(self.shape, n, p)
        if self.shape["scheme"] == "ring":
            if p == 1:
                return self.arithmetic(n, 2)
            step = self.arithmetic(n / p, 2) * (1 + self.arithmetic.spread * math.sqrt(2 * math.log(p)))
            return step + (p - 1) * max(step, alpha + beta * sent / (p - 1))
        if p == 1:
            return self.own(n, p)
        waits = in_a_row(self.shape, p)
        if self.shape["scheme"] in ("scan", "reduce"):  # the last of them is told by a rank that sent fewer
            sent *= waits / messages
        return self.own(n, p) * (1 + self.arithmetic.spread * math.sqrt(2 * math.log(p))) + alpha * waits + beta * sent

    def from_n(self, ahead, longest=2**40):
        """The least power of sqrt(2) from which `ahead(n)` holds up to the longest."""
        n = longest
        while n >= 64 and ahead(n):
            n /= math.sqrt(2)
        return n * math.sqrt(2) if n < longest else None


def fitted_network(rows):
    """alpha and beta of the measured messages, by relative least squares."""
    some = rows[(rows["ranks"] > 1) & (rows["rank_messages"] > 0) & (rows["rank_messages_s"] > 0)]
    if len(some) < 2:
        return None
    weight = 1 / some["rank_messages_s"].to_numpy(float)
    waits = [in_a_row(shape_of(row), int(row["ranks"])) for row in some.to_dict("records")]
    a = np.column_stack([waits, some["rank_sent_bytes"]]) * weight[:, None]
    alpha, beta = np.linalg.lstsq(a, np.ones(len(some)), rcond=None)[0]
    return max(float(alpha), 0.0), max(float(beta), 0.0)


def tokens(n):
    if n is None:
        return "never"
    return f"{n / 1024:.0f} k" if n >= 4096 else f"{n:.0f}"


def checks(rows, models):
    """Rows of more ranks, which arithmetic was not fitted to, beside what the model says of them."""
    records = []
    for row in rows[rows["ranks"] > 1].sort_values(["name", "ranks", "n"]).to_dict("records"):
        model = models.get(row["name"])
        if model is None:
            continue
        predicted = model.seconds(row["n"], int(row["ranks"]))
        records.append({"variant": row["name"], "N": row["n"], "ranks": int(row["ranks"]), "measured s": f"{row['time_median_s']:.4g}",
                        "predicted s": f"{predicted:.4g}", "error": f"{100 * (predicted / row['time_median_s'] - 1):+.0f} %"})
    return records


def predictions(models, p):
    full = next((m for m in models.values() if m.shape["id"] == "full" and m.shape["scheme"] == "ring"), None)
    records = []
    for name, model in models.items():
        one = model.from_n(lambda n: model.seconds(n, p) < model.seconds(n, 1))
        near = model.from_n(lambda n: model.seconds(n, p) < model.seconds(n, 1) / p / 0.8)
        beats = None if full is None or model is full else model.from_n(lambda n: model.seconds(n, p) < full.seconds(n, p))
        records.append({"variant": name, "ranks": p, "ahead of one rank from N": tokens(one), "80 % of ideal from N": tokens(near),
                        "ahead of full@ring from N": "" if full is None or model is full else tokens(beats),
                        "s at N=1 M": f"{model.seconds(2**20, p):.3g}"})
    return records


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", nargs="+", type=Path)
    parser.add_argument("--network", action="append", default=[], metavar="NAME:ALPHA,BANDWIDTH",
                        help="seconds a message and bytes a second, such as A:2e-6,12e9; several times (default: fitted to the rows)")
    parser.add_argument("--ranks", default=",".join(map(str, RANKS)), help="numbers of ranks, such as 8,64,1024")
    parser.add_argument("--format", choices=("text", "md"), default="text")
    return parser.parse_args()


def networks_of(texts, rows):
    networks = {}
    for text in texts:
        name, _, figures = text.partition(":")
        try:
            alpha, bandwidth = map(float, figures.split(","))
        except ValueError:
            raise Refusal(f"--network {text} is not NAME:ALPHA,BANDWIDTH, such as A:2e-6,12e9") from None
        networks[name] = (alpha, 1 / bandwidth)
    measured = fitted_network(rows)
    if measured is not None:
        networks["as measured"] = measured
    if not networks:
        raise Refusal("no row of more than one rank tells of messages: give --network", 5)
    return networks, measured


def usable(csvs):
    """The rows that a model can be made of, and those of one rank among them."""
    rows, _, _ = read_all([str(path) for path in csvs], False)
    if "ranks" not in rows:
        raise Refusal("these rows are not of implementations over ranks: there is no column 'ranks'", 5)
    rows = rows[rows["ok"] & (rows["implementation"] != "native") & (rows["causal"] == 0) & (rows["pass"] == "forward")]
    for scheme in sorted(set(rows["implementation"]) - set(SCHEMES)):
        raise Refusal(f"there is no model of @{scheme}; there are those of {', '.join('@' + known for known in SCHEMES)}")
    for dtype in sorted(set(rows["dtype"]) - set(BYTES)):
        raise Refusal(f"--dtype {dtype} is not modelled; {', '.join(BYTES)} are")
    single = rows[rows["ranks"] == 1]
    if single.empty:
        raise Refusal("no row of one rank, not causal, to fit a rank's arithmetic to", 5)
    return rows, single


def models_of(single, network):
    """{name: Model} of the rows of one rank."""
    return {name: Model(part.iloc[0].to_dict(), Arithmetic(part), network) for name, part in single.groupby("name")}


def counts_of(text):
    try:
        return [int(p) for p in text.split(",")]
    except ValueError:
        raise Refusal(f"--ranks {text} is not a list of numbers such as 8,64,1024") from None


def main():
    args = arguments()
    counts = counts_of(args.ranks)
    rows, single = usable(args.csv)
    networks, measured = networks_of(args.network, rows)
    longest = int(single["n"].max())

    if measured is not None:
        alpha, beta = measured
        print(f"Fitted to {len(rows[rows['ranks'] > 1])} rows of more than one rank: alpha {alpha:.3g} s a message, "
              f"{(1 / beta if beta > 0 else math.inf) / 1e9:.3g} GB/s.\n")
        held_out = checks(rows, models_of(single, measured))
        if held_out:
            print(render(held_out, list(held_out[0]), args.format))
    for name, network in networks.items():
        print(f"predicted: network {name}, alpha {network[0]:.3g} s, {1 / network[1] / 1e9 if network[1] > 0 else math.inf:.3g} GB/s; arithmetic fitted up to "
              f"N={longest}, so N=1 M extrapolates {2**20 / longest:.0f}-fold in N and {max(counts)}-fold in ranks\n")
        records = [record for p in counts for record in predictions(models_of(single, network), p)]
        print(render(records, list(records[0]), args.format))
    return 0


if __name__ == "__main__":
    script(main)
