#!/usr/bin/env bash
# Installs what is missing, builds, runs the tests: scripts/run_tests.sh [--all] [CTEST ARGUMENTS...]
# --all adds the tests labelled slow. -R ID, where tests/variants/ID_test.cpp is, builds and runs that one alone. The last line is
# "N passed, N failed"; before it the number of skipped ones.
set -euo pipefail
cd "$(dirname "$0")/.."

# Tests of single variants are those of test_variants once more, for who asks for one.
selection=(--label-exclude '^(slow|single)$')
targets=()
if [[ $# -eq 0 || ${1:-} == --all ]]; then
  scripts/setup.sh --browser || echo "run_tests.sh: without Chromium no page is looked at" >&2
fi
if [[ ${1:-} == --all ]]; then
  selection=(--label-exclude '^single$')
  shift
  scripts/setup.sh --all
  # Hundreds of megabytes, and of no use to who only builds: tests that lack them are skipped, and counted as such.
  scripts/setup.sh --capture || echo "run_tests.sh: without ONNX Runtime no capture of an ONNX model is tested" >&2
  scripts/setup.sh --replay || echo "run_tests.sh: without SimGrid no replay of ranks is tested" >&2
  scripts/setup.sh --cluster || echo "run_tests.sh: without Slurm no cluster is tested" >&2
fi
if [[ ${1:-} == -R && -f tests/variants/${2:-}_test.cpp ]]; then
  selection=()
  targets=(test_variants test_variants_2)
  set -- -R "^variant_$2\$" "${@:3}"
fi

scripts/build.sh "${targets[@]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
code=0
# Several tests at a time; those that measure are marked RUN_SERIAL.
ctest --test-dir build/release --output-on-failure --no-tests=error --parallel "$(nproc)" \
  "${selection[@]}" "$@" </dev/null 2>&1 | tee "$log" || code=$?

summary=$(sed -nE 's/^[0-9]+% tests passed, ([0-9]+) tests? failed out of ([0-9]+)$/\1 \2/p' "$log")
read -r failed total <<<"${summary:-0 0}"
skipped=$(grep -c '\*\*\*Skipped' "$log" || true)
# What a whole run took, beside what it took before: which part grew.
if [[ $# -eq 0 ]]; then
  python3 -B tests/house/times.py build/release || true
fi
echo "$skipped skipped"
echo "$((total - failed - skipped)) passed, $failed failed"
exit "$code"
