#!/usr/bin/env bash
# Installs what is missing, builds, runs attn_sweep with the arguments given (none: the default sweep).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

"$root/scripts/build.sh" attn_sweep_app
exec "$root/build/release/bin/attn_sweep" "$@"
