#!/usr/bin/env python3
"""PyTorch's and ONNX Runtime's guests pass the gate: guests.py ATTN_SWEEP FOLDER. The frameworks are those of a Debian 13 root in FOLDER,
which scripts/guests/debian13.sh makes. Exit 77, for skipped, where none can be made."""
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/guests/debian13.sh"
SHAPES = (["--n", "256", "--causal", "no"], ["--n", "256", "--causal", "yes"], ["--n", "256", "--causal", "yes", "--kv-heads", "1"],
          ["--n", "1000", "--pass", "decode"], ["--n", "256", "--dtype", "f16,bf16", "--kv-dtype", "f16,bf16"])


def rows_of(sweep, python, arguments):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "a.csv")
        done = subprocess.run([sweep, "--variants", "*@torch,*@onnxruntime", "--heads", "2", "--samples", "2", "--rounds", "1", "--sample-time",
                               "0.001", "--quiet", "--out", out, *arguments], env={**os.environ, "ATTN_PYTHON": python}, capture_output=True, text=True)
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
            for row in rows_of(sweep, made.stdout.strip(), arguments):
                said = f"{row['name']} {' '.join(arguments)}: {row['status']} {row['reason']}"
                print(said)
                if row["status"] == "ok":
                    measured.add(f"{row['variant']}@{row['implementation']}")
                elif row["status"] != "unsupported" and row["dtype"] == "f32":  # 8 bits of a framework's own rounding may miss the gate
                    bad.append(said)
        print(f"{len(measured)} measured: {', '.join(sorted(measured))}")
        sys.exit(1 if bad or len(measured) < 11 else 0)
    finally:
        subprocess.run([SCRIPT, "--unmount", folder], check=True)


if __name__ == "__main__":
    main()
