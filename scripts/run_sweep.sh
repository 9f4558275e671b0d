#!/usr/bin/env bash
# Installs what is missing, builds, runs attn_sweep with the arguments given (none: the default sweep), and makes a report
# of the CSV. The exit code is attn_sweep's.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

"$root/scripts/build.sh" attn_sweep_app

said=$(mktemp)
trap 'rm -f "$said"' EXIT
trap : INT  # attn_sweep ends by itself and keeps its rows
code=0
"$root/build/release/bin/attn_sweep" "$@" | tee -i "$said" || code=${PIPESTATUS[0]}

csv=$(sed -nE 's/^[0-9]+ rows in (.+)$/\1/p' "$said")
if [[ $code == [01] && -n $csv ]]; then
  echo
  "$root/scripts/report.py" "$csv" --summary || echo "run_sweep.sh: no report was made; the figures are in $csv" >&2
fi
exit "$code"
