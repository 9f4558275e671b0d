#!/usr/bin/env bash
# Brings build/release up to date: scripts/build.sh [TARGET...], everything without a target.
# Output goes to stderr: stdout belongs to the command that is built for.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
exec >&2 </dev/null
if [[ ! -f build/release/build.ninja ]]; then
  cmake --preset release
fi
cmake --build build/release --parallel "$(nproc)" ${1:+--target "$@"}
