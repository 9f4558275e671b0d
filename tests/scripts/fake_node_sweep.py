#!/usr/bin/python3
"""Stands in for attn_sweep on a node: one row a variant, one after the other, kept through --resume. FAKE_SLEEP: seconds a row; FAKE_CODE: how
it ends instead of measuring; FAKE_BUILD: what --version says; FAKE_GATE: a file that holds it back before the second row while it exists."""
import argparse
import csv
import os
import sys
import time

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import synthetic  # noqa: E402

BUILD = os.environ.get("FAKE_BUILD", "attnbench-0.1.0-gcc-12 commit abc123")
if "--version" in sys.argv:
    print(BUILD)
    sys.exit(0)
p = argparse.ArgumentParser()
p.add_argument("--variants")
p.add_argument("--n", type=int)
p.add_argument("--out")
p.add_argument("--resume", action="store_true")
args, _ = p.parse_known_args()
if "FAKE_CODE" in os.environ and "anchor" not in args.out:
    print("attn_sweep: as told", file=sys.stderr)
    sys.exit(int(os.environ["FAKE_CODE"]))
node = os.environ.get("SLURMD_NODENAME") or os.environ.get("ATTN_NODE", "here")
rows = []
if args.resume and os.path.exists(args.out):
    with open(args.out, newline="") as file:
        text = file.read()
    rows = list(csv.DictReader(text[:text.rfind("\n") + 1].splitlines(keepends=True)))  # a torn line is none
done = {row["variant"] for row in rows}
for i, variant in enumerate(v for v in args.variants.split(",") if v not in done):
    if i == 1 and "anchor" not in args.out:
        while os.path.exists(os.environ.get("FAKE_GATE", "")):
            time.sleep(0.02)
    time.sleep(float(os.environ.get("FAKE_SLEEP", "0")))
    rows.append(synthetic.row(variant, args.n, np.full(9, 1e-6 * args.n), note=node))
    synthetic.write(args.out, rows, machine={**synthetic.MACHINE, "host": node})
