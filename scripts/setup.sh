#!/usr/bin/env bash
# Installs what attnbench needs and the machine lacks. Does nothing, and needs no network, when all is there.
# --all adds what the tests labelled slow need. ATTN_SKIP_SETUP=1 skips everything: for machines where the libraries come from
# elsewhere.
set -euo pipefail

needs=$(cat <<'END'
cmake               configures the build (3.25 or newer)
ninja-build         runs the build
g++                 compiles (12 or newer; clang 14 works too)
pkg-config          finds hwloc and Highway
libdnnl-dev         oneDNN: dense products
libtbb-dev          oneTBB: the pool of threads
libhwy-dev          Highway: SIMD with run-time dispatch
libhwloc-dev        topology and pinning
libbenchmark-dev    Google Benchmark: the clock
libfmt-dev          text
libcli11-dev        command line
libtomlplusplus-dev --config files
nlohmann-json3-dev  context files, JSONL
libeigen3-dev       algebra in double
catch2              tests: framework
python3             tests and reports
python3-dev         the Python module; without it the rest is built
pybind11-dev        the same
python3-numpy       tests: .npy files from another hand; guests
python3-pandas      reports: tables
python3-scipy       reports: statistics
python3-matplotlib  reports: pictures
libjs-chart.js      reports: interactive charts
END
)
slow_needs=$(cat <<'END'
clang               fuzzing and sanitizers
libclang-rt-dev     their run-time libraries
clang-tidy          findings in the source
clang-format        and its form
ccache              the same files compiled for one more build
dpkg-dev            the Debian package's dependencies
file                the same
END
)
if [[ ${1:-} == --all ]]; then
  needs+=$'\n'$slow_needs
fi

if [[ ${ATTN_SKIP_SETUP:-0} == 1 ]]; then
  exit 0
fi

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  {
    echo "setup.sh installs with apt, which this system lacks. Needed, by their Debian names:"
    echo
    echo "$needs"
    echo
    echo "Install them your own way, then run this again with ATTN_SKIP_SETUP=1."
  } >&2
  exit 2
fi

missing=()
while read -r package _; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $status == installed ]] || missing+=("$package")
done <<<"$needs"
if ((${#missing[@]} == 0)); then
  exit 0
fi

as_root=()
if ((EUID != 0)); then
  if ! command -v sudo >/dev/null; then
    echo "setup.sh needs root to install: ${missing[*]}" >&2
    echo "Run as root: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 2
  fi
  as_root=(sudo)
fi

echo "setup.sh installs: ${missing[*]}" >&2
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" >&2 </dev/null; }
# A list of packages older than the mirror's is the usual reason for a failed install, so refresh it first.
apt update
apt install --no-install-recommends "${missing[@]}"
