#!/usr/bin/env bash
# Measures this machine's noise floor: the same cells twice, and how much they differ from themselves.
#   scripts/aa.sh [ARGUMENTS of attn_sweep...]      writes results/aa.json (installed: ./aa.json)
#                                              for compare.py --noise
# ATTN_SWEEP names another program, ATTN_AA_OUT another file.
set -euo pipefail
scripts=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$scripts")

if [[ ! -e $root/CMakeLists.txt ]]; then # installed as PREFIX/share/attnbench/scripts
  sweep=${ATTN_SWEEP:-$root/../../bin/attn_sweep}
  out=${ATTN_AA_OUT:-aa.json}
else
  sweep=${ATTN_SWEEP:-$root/build/release/bin/attn_sweep}
  out=${ATTN_AA_OUT:-$root/results/aa.json}
fi
if [[ ! -x $sweep ]]; then
  echo "aa.sh: no program $sweep: build it with scripts/build.sh, or name one with ATTN_SWEEP" >&2
  exit 2
fi
if (($# == 0)); then
  set -- --variants full,local,linear --n '256..2048*2'
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for run in first second; do
  echo "aa.sh: $run run" >&2
  "$sweep" "$@" --out "$folder/$run.csv" --quiet >&2
done
mkdir -p "$(dirname "$out")"
"$scripts/compare.py" "$folder/first.csv" "$folder/second.csv" --aa "$out"
