#!/usr/bin/python3
"""Stands in for attn_sweep: times are planted, FAKE_NOISE is their scatter. full ~ N^2, linear ~ N, meeting at N = 700."""
import argparse
import os
import sys
import time

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import synthetic  # noqa: E402

p = argparse.ArgumentParser()
p.add_argument("--variants", default="full,linear")
p.add_argument("--n", default="128,256,512,1024,2048,4096")
p.add_argument("--out")
p.add_argument("--list", nargs="?", const="text")
p.add_argument("--quiet", action="store_true")
args, _ = p.parse_known_args()
if args.list:
    print('[{"id": "full", "time_exponent": 2.0}, {"id": "linear", "time_exponent": 1.0}]')
    sys.exit(0)
lengths = [256, 512, 1024, 2048] if ".." in args.n else [int(n) for n in args.n.split(",")]
rng = np.random.default_rng(time.time_ns() % 2**32)
times = {"full": lambda n: 1e-8 * n * n, "linear": lambda n: 7e-6 * n}
noise = float(os.environ.get("FAKE_NOISE", "0.01"))
rows = [synthetic.row(v, n, synthetic.noisy(times[v](n), rng, noise)) for v in args.variants.split(",") if v in times
        for n in lengths]
synthetic.write(args.out, rows)
