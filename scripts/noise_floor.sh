#!/usr/bin/env bash
# Measures this machine's noise floor: the same cells twice, and how much they differ from themselves.
#   scripts/noise_floor.sh [ARGUMENTS of attn_sweep...]    writes results/noise_floor.json (installed: ./noise_floor.json)
#                                                          for compare.py --noise
# ATTN_SWEEP names another program, ATTN_NOISE_FLOOR another file.
set -euo pipefail
scripts=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$scripts")

if [[ ! -e $root/CMakeLists.txt ]]; then # installed as PREFIX/share/attnbench/scripts
  sweep=${ATTN_SWEEP:-$root/../../bin/attn_sweep}
  out=${ATTN_NOISE_FLOOR:-noise_floor.json}
else
  sweep=${ATTN_SWEEP:-$root/build/release/bin/attn_sweep}
  out=${ATTN_NOISE_FLOOR:-$root/results/noise_floor.json}
fi
if [[ ! -x $sweep ]]; then
  echo "noise_floor.sh: no program $sweep: build it with scripts/build.sh, or name one with ATTN_SWEEP" >&2
  exit 2
fi
if (($# == 0)); then
  set -- --variants full,local,linear --n '256..2048*2'
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for run in first second; do
  echo "noise_floor.sh: $run run" >&2
  "$sweep" "$@" --out "$folder/$run.csv" --quiet >&2
done
mkdir -p "$(dirname "$out")"
"$scripts/compare.py" "$folder/first.csv" "$folder/second.csv" --write-noise "$out"
