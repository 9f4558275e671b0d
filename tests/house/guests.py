#!/usr/bin/env python3
"""The frameworks' guests pass the gate, in f32 and in bf16, and have what every variant must: guests.py ATTN_SWEEP FOLDER. They are those of a
Debian 13 root in FOLDER, which scripts/guests/debian13.sh makes. Exit 77, for skipped, where none can be made."""
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/guests/debian13.sh"
SHAPES = (["--n", "256", "--causal", "no"], ["--n", "256", "--causal", "yes"], ["--n", "256", "--causal", "yes", "--kv-heads", "1"],
          ["--n", "1000", "--pass", "decode"], ["--n", "1000", "--pass", "decode", "--kv-heads", "1", "--step", "3"], ["--n", "256", "--dtype", "bf16"],
          ["--n", "256", "--dtype", "f16", "--causal", "yes"], ["--n", "1000", "--pass", "decode", "--dtype", "f16,bf16"])
VERIFIED = ("full@torch", "local@torch", "linear@torch", "full@onnxruntime", "full@onednn_graph")


def environment_of(folder):
    return {**os.environ, "ATTN_PYTHON": os.path.join(folder, "python"), "ATTN_ONEDNN_GRAPH": os.path.join(folder, "onednn_graph")}


def rows_of(sweep, environment, arguments):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "a.csv")
        done = subprocess.run([sweep, "--variants", "*@torch,*@flex,*@onnxruntime,*@onednn_graph", "--heads", "2", "--samples", "2", "--rounds", "1", "--sample-time",
                               "0.001", "--quiet", "--out", out, *arguments], env=environment, capture_output=True, text=True)
        if not os.path.exists(out):
            sys.exit(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
        with open(out, newline="") as file:
            return [row for row in csv.DictReader(file) if row["implementation"] != "native"]


def main():
    sweep, folder = sys.argv[1:]
    made = subprocess.run([SCRIPT, folder], stdout=subprocess.PIPE, text=True)
    if made.returncode != 0:
        print("skipped: no Debian 13 root can be made here; it takes root, debootstrap and a mirror")
        sys.exit(77)
    try:
        bad, measured = [], set()
        for arguments in SHAPES:
            for row in rows_of(sweep, environment_of(folder), arguments):
                said = f"{row['name']} {' '.join(arguments)}: {row['status']} {row['reason']}"
                print(said)
                if row["status"] == "ok":
                    measured.add(f"{row['variant']}@{row['implementation']}")
                elif row["status"] != "unsupported":
                    bad.append(said)
        print(f"{len(measured)} measured: {', '.join(sorted(measured))}")
        verified = subprocess.run([sweep, "--verify", "--quiet", "--variants", ",".join(VERIFIED), "--property", "agreement,output,causality,heads,values"],
                                  env=environment_of(folder))
        sys.exit(1 if bad or len(measured) < 12 or verified.returncode != 0 else 0)
    finally:
        subprocess.run([SCRIPT, "--unmount", folder], check=True)


if __name__ == "__main__":
    main()
