#!/usr/bin/env bash
# Installs what is missing, builds, runs attn_sweep with the arguments given, and makes a report of the CSV. Without arguments: the sweeps of
# scripts/sweeps (prefill, causal, causal in bf16, a model's own tensors, decode: three minutes on two cores), one report of them all. The exit
# code is attn_sweep's.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

"$root/scripts/build.sh" programs

said=$(mktemp)
trap 'rm -f "$said"' EXIT
trap : INT  # attn_sweep ends by itself and keeps its rows
csvs=() code=0

# sweep ARGUMENTS...: its CSV joins the others; 1 and 5, cells without a time, do not keep the next from running.
sweep() {
  local own=0 csv
  "$root/build/release/bin/attn_sweep" "$@" | tee -i "$said" || own=${PIPESTATUS[0]}
  csv=$(sed -nE 's/^[0-9]+ rows? in (.+)$/\1/p' "$said")
  [[ $own != [015] || -z $csv ]] || csvs+=("$csv")
  ((code != 0)) || code=$own
  [[ $own == [015] ]]
}

out=()
if (($# > 0)); then
  sweep "$@" || exit "$code"
else
  stem=results/sweep-$(date -u +%Y%m%dT%H%M%SZ)
  mkdir -p "$stem"
  out=(-o "$stem/report.html")
  for part in prefill causal bf16 model decode; do
    sweep --config "$root/scripts/sweeps/$part.toml" --out "$stem/$part.csv" || exit "$code"
  done
fi

if [[ $code == [01] && ${#csvs[@]} -gt 0 ]]; then
  echo
  "$root/scripts/report.py" "${csvs[@]}" "${out[@]}" --summary || echo "run_sweep.sh: no report was made; the figures are in ${csvs[*]}" >&2
fi
exit "$code"
